//! What goes into the cache and what comes out: contents, values, stamps.
//!
//! Only views and plain data: nothing here is kept, and nothing here changes the cache.
#![forbid(unsafe_code)]

use super::arena::{Block, SharedReply, Slot};
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
    pub(super) slot: &'c Slot,
    pub(super) reply: &'c [u8],
    pub(super) now: Time,
}

/// When and as what an entry was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// As given to `put`, rounded down to 1.024 ms. Right for entries up to 50 days old.
    pub stored_at: Time,
    /// From here on the entry acts as if it had never been.
    pub deadline: Time,
    /// The number given to `put`, or to `set_tag` since.
    pub tag: u64,
    /// See [`Put::ping`].
    pub ping: u16,
}

impl<'c> ValueRef<'c> {
    /// The ready reply `$<len>\r\n<value>\r\n`.
    #[inline]
    pub fn reply(&self) -> &'c [u8] {
        self.reply
    }

    /// The value alone.
    pub fn value(&self) -> &'c [u8] {
        let head = self
            .reply
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        &self.reply[head..self.reply.len() - 2]
    }

    /// A counted reference to the reply, for values of [`super::SHARED_VALUE_BYTES_MIN`] bytes or more: an outbox that keeps a
    /// clone of it can send without copying, whatever becomes of the entry. The bytes stay in the cache's budget as
    /// long as anybody holds them.
    #[inline]
    pub fn shared(&self) -> Option<&'c SharedReply> {
        match &self.slot.block {
            Block::Small(_) => None,
            Block::Large(large) => Some(&large.reply),
        }
    }

    /// When it was stored, see [`Stamp::stored_at`].
    #[inline]
    pub fn stored_at(&self) -> Time {
        self.slot.stamp(self.now).stored_at
    }

    /// From here on the entry acts as if it had never been.
    #[inline]
    pub fn deadline(&self) -> Time {
        self.slot.deadline
    }

    /// The number given to [`super::Cache::put`], or to [`super::Cache::set_tag`] since.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.slot.label.tag()
    }
}

/// What to keep of a key.
#[derive(Debug, Clone, Copy)]
pub enum NewContent<'a> {
    /// Its value. Copied, with the head and tail of a RESP bulk around it.
    Value(&'a [u8]),
    /// Redis has no such key.
    Missing,
    /// Its value is too large to keep.
    TooLarge,
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
    /// From when on it must not be used.
    pub deadline: Time,
    /// Any number up to [`super::TAG_MAX`]; comes back with the entry.
    pub tag: u64,
    /// Another one, which never changes: the number of the newest PING that had been sent, modulo 2^16 (rule L14).
    pub ping: u16,
}
