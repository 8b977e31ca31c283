//! The buffer in which the straight way puts its replies, one behind the other.
//!
//! Of a fixed size, so that a reply asks once whether it has room and is then written in place. It never grows and never
//! moves what is in it. Invariant: `len` bytes from the beginning are replies. An engine that has not used it, and a
//! clone, holds no memory for it.
#![forbid(unsafe_code)]

use super::share::REPLY_BYTES_PER_TURN;
use crate::cache::SMALL_REPLY_ROOM;

/// With so many bytes of replies the rest of a read goes the general way, which knows how to put a client off.
pub(super) const REPLIES_BYTES_MAX: usize = REPLY_BYTES_PER_TURN + SMALL_REPLY_ROOM;

/// The buffer: its length is a constant, so that room for a reply of a bounded length is nothing to ask for.
pub(super) type Room = [u8; REPLIES_BYTES_MAX];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Option<Box<Room>>,
    len: usize,
}

impl Replies {
    /// Room for new ones, in place of those before. What is written must be told with [`Replies::set_len`].
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut Room {
        self.bytes.get_or_insert_with(vacant)
    }

    /// `write` puts replies at the beginning of the room, and says how long they are: exactly these.
    #[inline(always)]
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Room) -> usize) -> &[u8] {
        let room = self.bytes.get_or_insert_with(vacant);
        self.len = write(room);
        &room[..self.len]
    }

    /// So many bytes from the beginning are replies.
    #[inline(always)]
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// How long all of them are.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Some(bytes) => &bytes[..self.len],
            None => &[],
        }
    }
}

#[cold]
#[inline(never)]
fn vacant() -> Box<Room> {
    let bytes = vec![0; REPLIES_BYTES_MAX].into_boxed_slice();
    bytes.try_into().expect("made as long as this")
}

/// Between two calls of the engine nothing is in it (`straight.rs`).
impl Clone for Replies {
    fn clone(&self) -> Replies {
        Replies::default()
    }
}
