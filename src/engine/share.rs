//! What one client may have of a turn, so that a turn stays short for the others.
//!
//! Commands alone are no measure: 2048 reads of 1 KiB are 2 MiB to be copied, and 200 clients that ask for that and never
//! read would make a turn of a fifth of a second. So the bytes copied count too. (Large values are counted references,
//! and cost what a command costs.) A client whose share is spent is put on the ready list, behind the others, and goes on
//! in the next turn with what it has sent.
#![forbid(unsafe_code)]

use super::Engine;

/// Commands of one client handled in one turn.
const COMMANDS_PER_TURN: usize = 2048;
/// Bytes copied for one client in one turn, and at most one reply more: 64 replies of 1 KiB with their heads.
pub(super) const REPLY_BYTES_PER_TURN: usize = 64 * (1024 + 64);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Share {
    /// Commands that may still be handled.
    pub(super) commands: usize,
    /// It is spent when so many bytes were copied into outboxes, as the pool counts them.
    copied_until: u64,
}

impl Share {
    /// A share of which nothing is spent but what was copied since the pool had counted `copied` bytes.
    pub(super) fn since(copied: u64) -> Share {
        Share {
            commands: COMMANDS_PER_TURN,
            copied_until: copied + REPLY_BYTES_PER_TURN as u64,
        }
    }

    /// Whether a command was handled on it.
    pub(super) fn is_begun(&self) -> bool {
        self.commands < COMMANDS_PER_TURN
    }

    /// Whether nothing is left of it, `copied` being what the pool has counted now.
    #[inline]
    pub(super) fn is_spent(&self, copied: u64) -> bool {
        self.commands == 0 || copied >= self.copied_until
    }
}

impl Engine {
    /// Whether nothing is left of the share of the client that is being served.
    #[inline]
    pub(super) fn is_spent(&self, share: &Share) -> bool {
        share.is_spent(self.pool.copied_bytes())
    }
}
