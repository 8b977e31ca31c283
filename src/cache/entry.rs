//! What goes into the cache and what comes out: contents, values, stamps.
//!
//! Only views and plain data: nothing here is kept, and nothing here changes the cache.
#![forbid(unsafe_code)]

use super::block::{self, SHARED_VALUE_BYTES_MIN, SharedReply};
use super::table::Table;
use crate::time::Time;

/// What is known of a key.
#[derive(Debug, Clone, Copy)]
pub enum Content<'c> {
    /// Its value.
    Value(ValueRef<'c>),
    /// Redis has no such key.
    Missing,
    /// Redis has a value too large to keep: reads of it are relayed.
    TooLarge,
}

/// A value in the cache.
#[derive(Debug, Clone, Copy)]
pub struct ValueRef<'c> {
    pub(super) value: &'c [u8],
    /// What else is known of the entry is looked up when it is asked for: many hits ask for nothing.
    pub(super) table: &'c Table,
    pub(super) id: u32,
    pub(super) clock: Clock,
}

/// What turns the ticks of an entry, which are modulo 2^32, into instants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The present tick.
    pub(super) now: u64,
    /// A tick that no deadline is before.
    pub(super) passed: u64,
}

impl Clock {
    /// When an entry expires.
    pub(super) fn deadline(self, tick: u32) -> Time {
        time_of(tick_after(self.passed, tick))
    }

    /// When it was stored: at most 2^32 ticks ago.
    pub(super) fn stored(self, tick: u32) -> Time {
        let age = (self.now as u32).wrapping_sub(tick);
        time_of(self.now.saturating_sub(u64::from(age)))
    }
}

/// The tick in which an instant lies.
#[inline(always)]
pub(super) fn tick_of(time: Time) -> u64 {
    time.micros() >> 10
}

fn time_of(tick: u64) -> Time {
    Time::from_micros(tick.saturating_mul(1 << 10))
}

/// The first tick from `passed` on that is `tick` modulo 2^32.
pub(super) fn tick_after(passed: u64, tick: u32) -> u64 {
    passed + u64::from(tick.wrapping_sub(passed as u32))
}

/// When and as what an entry was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// As given to `put`, rounded down to 1.024 ms. Right for entries up to 50 days old.
    pub stored_at: Time,
    /// From here on the entry acts as if it had never been: as given to `put`, rounded down to 1.024 ms.
    pub deadline: Time,
    /// The number given to `put`, or to `set_tag` since.
    pub tag: u64,
    /// See [`Put::ping`].
    pub ping: u16,
}

impl<'c> ValueRef<'c> {
    /// The value alone.
    #[inline(always)]
    pub fn value(&self) -> &'c [u8] {
        self.value
    }

    /// How long [`ValueRef::append_reply`] makes its target.
    pub fn reply_len(&self) -> usize {
        block::reply_len(self.value.len())
    }

    /// Appends the reply `$<len>\r\n<value>\r\n`.
    pub fn append_reply(&self, out: &mut Vec<u8>) {
        block::append_reply(out, self.value);
    }

    /// Writes the reply at the beginning of `out`; what is left of it. `None`: there is no room for it.
    #[inline(always)]
    pub fn write_reply<'o>(&self, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        let head_len = match HEADS.get(self.value.len()) {
            Some(head) => {
                *out.first_chunk_mut()? = head.to_le_bytes();
                (head >> 56) as usize
            }
            None => block::write_reply_head(out, self.value.len())?,
        };
        let (value, behind) = out
            .get_mut(head_len..)?
            .split_at_mut_checked(self.value.len())?;
        let (end, left) = behind.split_first_chunk_mut()?;
        value.copy_from_slice(self.value);
        *end = *b"\r\n";
        Some(left)
    }

    /// A counted reference to the reply, for values of [`super::SHARED_VALUE_BYTES_MIN`] bytes or more: an outbox that keeps a
    /// clone of it can send without copying, whatever becomes of the entry. The bytes stay in the cache's budget as
    /// long as anybody holds them.
    #[inline(always)]
    pub fn shared(&self) -> Option<&'c SharedReply> {
        if self.value.len() < SHARED_VALUE_BYTES_MIN {
            return None;
        }
        self.table.shared(self.id)
    }

    /// Whether [`super::Cache::get_in_cell`] would have found it.
    #[inline]
    pub fn is_in_cell(&self) -> bool {
        !self.table.has_block(self.id)
    }

    /// When it was stored, see [`Stamp::stored_at`].
    #[inline]
    pub fn stored_at(&self) -> Time {
        self.clock.stored(self.table.at(self.id).stored())
    }

    /// From here on the entry acts as if it had never been.
    #[inline]
    pub fn deadline(&self) -> Time {
        self.clock.deadline(self.table.at(self.id).deadline())
    }

    /// The number given to [`super::Cache::put`], or to [`super::Cache::set_tag`] since.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.table.tag(self.id)
    }
}

/// A value that is in its cell: the kind that a hit mostly finds.
#[derive(Debug, Clone, Copy)]
pub struct CellValue<'c>(pub(super) &'c [u8]);

impl CellValue<'_> {
    /// Writes the reply `$<len>\r\n<value>\r\n` at the beginning of `out`; how long it is.
    #[inline(always)]
    pub fn write_reply<const ROOM: usize>(self, out: &mut [u8; ROOM]) -> usize {
        let len = write_small_reply(self.0, out);
        len.expect("a cell is shorter than a value that is counted")
    }
}

/// Room in which each reply of [`write_small_reply`] fits: with a head as long as its byte could say, so that
/// the compiler sees it too.
pub const SMALL_REPLY_ROOM: usize = SHARED_VALUE_BYTES_MIN + 256 + 2;

/// Writes the reply of a value that is not counted into room that is known to suffice; how long it is. `None`: it is a
/// longer one. With one look at the length for all that is written.
#[inline(always)]
pub fn write_small_reply<const ROOM: usize>(value: &[u8], out: &mut [u8; ROOM]) -> Option<usize> {
    const { assert!(ROOM >= SMALL_REPLY_ROOM) };
    let (head, len) = (HEADS.get(value.len())?, value.len());
    *out.first_chunk_mut()? = head.to_le_bytes();
    let at = (head >> 56) as usize;
    out[at..at + len].copy_from_slice(value);
    out[at + len..at + len + 2].copy_from_slice(b"\r\n");
    Some(at + len + 2)
}

/// `$<len>\r\n` for the lengths of values that are not counted, padded, as little-endian words; the last byte says how
/// long it is. 64 KiB, of which the lines of the few lengths in use are in the caches.
static HEADS: [u64; SHARED_VALUE_BYTES_MIN] = {
    let mut heads = [0; SHARED_VALUE_BYTES_MIN];
    let mut len = 0;
    while len < heads.len() {
        let mut head = *b"$\0\0\0\0\0\0\0";
        let (mut at, mut unit) = (1, 1000);
        while unit > 0 {
            if len >= unit || unit == 1 {
                head[at] = b'0' + (len / unit % 10) as u8;
                at += 1;
            }
            unit /= 10;
        }
        (head[at], head[at + 1]) = (b'\r', b'\n');
        head[7] = at as u8 + 2;
        heads[len] = u64::from_le_bytes(head);
        len += 1;
    }
    heads
};

/// What to keep of a key.
#[derive(Debug, Clone, Copy)]
pub enum NewContent<'a> {
    /// Its value. Copied.
    Value(&'a [u8]),
    /// Redis has no such key.
    Missing,
    /// Its value is too large to keep.
    TooLarge,
}

impl<'a> NewContent<'a> {
    /// What is to be kept of the value.
    pub(super) fn value(&self) -> &'a [u8] {
        match self {
            NewContent::Value(value) => value,
            NewContent::Missing | NewContent::TooLarge => b"",
        }
    }

    pub(super) fn value_len(&self) -> usize {
        self.value().len()
    }
}

/// An entry to be.
#[derive(Debug, Clone, Copy)]
pub struct Put<'a> {
    /// The database. Above [`super::DB_MAX`] nothing is kept.
    pub db: u32,
    /// The key's name. Longer than [`super::KEY_BYTES_MAX`] it is not kept.
    pub key: &'a [u8],
    /// The hash of the name.
    pub hash: u64,
    /// What is known.
    pub content: NewContent<'a>,
    /// The instant it was true: when the fetch was dispatched. At most `now`.
    pub stored_at: Time,
    /// From when on it must not be used. Rounded down to 1.024 ms, and at most 24 days from now.
    pub deadline: Time,
    /// Any number but zero takes 8 bytes; comes back with the entry.
    pub tag: u64,
    /// Another one, which never changes: the number of the newest PING that had been sent, modulo 2^16 (rule L14).
    pub ping: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_across_the_border_of_their_32_bits() {
        for base in [0, 5, u64::from(u32::MAX), (7 << 32) - 3] {
            for ahead in [0, 1, 10, u64::from(u32::MAX)] {
                assert_eq!(tick_after(base, (base + ahead) as u32), base + ahead);
                let clock = Clock {
                    now: base + ahead,
                    passed: base,
                };
                assert_eq!(clock.stored(base as u32), time_of(base));
                assert_eq!(clock.deadline((base + ahead) as u32), time_of(base + ahead));
            }
        }
    }
}
