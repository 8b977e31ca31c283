//! What goes into the cache and what comes out: contents, values, stamps.
//!
//! Only views and plain data: nothing here is kept, and nothing here changes the cache.
#![forbid(unsafe_code)]

use super::block::{self, SharedReply, TAG_BYTES};
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
    pub(super) shared: Option<&'c SharedReply>,
    pub(super) tag: Option<&'c [u8; TAG_BYTES]>,
    pub(super) clock: Clock,
    pub(super) deadline: u32,
    pub(super) stored: u32,
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
    #[inline]
    pub fn append_reply(&self, out: &mut Vec<u8>) {
        if let Some(head) = HEADS.get(self.value.len()) {
            // Room for all that follows, so that it is asked for once.
            out.reserve(self.value.len() + head.len() + 2);
            let len = out.len() + usize::from(head[7]);
            out.extend_from_slice(head);
            out.truncate(len);
            out.extend_from_slice(self.value);
            out.extend_from_slice(b"\r\n");
        } else {
            block::append_reply(out, self.value);
        }
    }

    /// A counted reference to the reply, for values of [`super::SHARED_VALUE_BYTES_MIN`] bytes or more: an outbox that keeps a
    /// clone of it can send without copying, whatever becomes of the entry. The bytes stay in the cache's budget as
    /// long as anybody holds them.
    #[inline]
    pub fn shared(&self) -> Option<&'c SharedReply> {
        self.shared
    }

    /// When it was stored, see [`Stamp::stored_at`].
    #[inline]
    pub fn stored_at(&self) -> Time {
        self.clock.stored(self.stored)
    }

    /// From here on the entry acts as if it had never been.
    #[inline]
    pub fn deadline(&self) -> Time {
        self.clock.deadline(self.deadline)
    }

    /// The number given to [`super::Cache::put`], or to [`super::Cache::set_tag`] since.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.tag.map_or(0, |tag| u64::from_ne_bytes(*tag))
    }
}

/// `$<len>\r\n` for the lengths of values that fit a cell, padded; the last byte says how long it is.
static HEADS: [[u8; 8]; 1024] = {
    let mut heads = [*b"$\0\0\0\0\0\0\0"; 1024];
    let mut len = 0;
    while len < heads.len() {
        let (mut at, mut unit) = (1, 1000);
        while unit > 0 {
            if len >= unit || unit == 1 {
                heads[len][at] = b'0' + (len / unit % 10) as u8;
                at += 1;
            }
            unit /= 10;
        }
        heads[len][at] = b'\r';
        heads[len][at + 1] = b'\n';
        heads[len][7] = at as u8 + 2;
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
    fn replies_of_every_length_are_the_same_both_ways() {
        let clock = Clock { now: 0, passed: 0 };
        let bytes = vec![b'v'; 1030];
        for len in 0..bytes.len() {
            let value = ValueRef {
                value: &bytes[..len],
                shared: None,
                tag: None,
                clock,
                deadline: 0,
                stored: 0,
            };
            let (mut quick, mut plain) = (b"+".to_vec(), b"+".to_vec());
            value.append_reply(&mut quick);
            block::append_reply(&mut plain, value.value());
            assert_eq!(quick, plain);
            assert_eq!(value.reply_len() + 1, plain.len());
        }
    }

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
