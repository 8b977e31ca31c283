//! What does not fit a cell: key and value in allocations of their own, and large values in counted ones.
//!
//! It never decides where an entry is kept but by its length ([`Place::of`]). What an allocation costs is reckoned as
//! glibc rounds it. Costs: O(bytes) to make a block, and nothing afterwards.
#![forbid(unsafe_code)]

use super::arena::{CELL_BYTES_MAX, cell_bytes_for};
use super::entry::NewContent;
use super::head::HEAD_BYTES;
use std::sync::Arc;

/// Values from this length on are kept in a counted block of their own, so that an outbox can send them without a copy.
pub const SHARED_VALUE_BYTES_MIN: usize = 8 * 1024;
/// How long a tag is.
pub(super) const TAG_BYTES: usize = 8;
/// How long the number of a block is.
pub(super) const BLOCK_ID_BYTES: usize = 4;
/// What the table of blocks has for each.
const BLOCK_ROW_BYTES: usize = 24;
/// An entry's share of the index.
const INDEX_BYTES: usize = size_of::<u32>();
/// What the cheapest entry costs.
pub(super) const ENTRY_COST_MIN: usize = HEAD_BYTES + INDEX_BYTES;

/// A ready-made reply that others may hold while the entry goes.
pub type SharedReply = Arc<Vec<u8>>;

/// Where key and value of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the cell.
    Cell,
    /// Both in one allocation.
    Joined,
    /// The value in a counted one.
    Shared,
}

impl Place {
    /// A cell must have room for a tag that may come later, so that no entry changes its place for it.
    pub(super) fn of(key_len: usize, content: &NewContent<'_>) -> Place {
        let value_len = content.value_len();
        if value_len >= SHARED_VALUE_BYTES_MIN {
            Place::Shared
        } else if HEAD_BYTES + key_len + value_len + TAG_BYTES <= CELL_BYTES_MAX {
            Place::Cell
        } else {
            Place::Joined
        }
    }
}

/// How many bytes of its cell such an entry needs, without a tag.
pub(super) fn cell_need(key_len: usize, content: &NewContent<'_>) -> usize {
    HEAD_BYTES
        + match Place::of(key_len, content) {
            Place::Cell => key_len + content.value_len(),
            Place::Joined | Place::Shared => BLOCK_ID_BYTES,
        }
}

/// What an entry with such a key and content costs: its cell, its share of the index, and its allocations.
pub(super) fn cost_of(key_len: usize, content: &NewContent<'_>, tagged: bool) -> usize {
    let tag = if tagged { TAG_BYTES } else { 0 };
    INDEX_BYTES
        + cell_bytes_for(cell_need(key_len, content) + tag)
        + match Place::of(key_len, content) {
            Place::Cell => 0,
            Place::Joined => BLOCK_ROW_BYTES + allocation_cost(key_len + content.value_len()),
            Place::Shared => BLOCK_ROW_BYTES + large_cost(key_len, reply_len(content.value_len())),
        }
}

/// What an entry in a cell of this length costs beside its block.
pub(super) fn cost_in_cell(cell_bytes: usize) -> usize {
    INDEX_BYTES + cell_bytes
}

/// What glibc takes for an allocation: 8 bytes in front, rounded up to 16, at least 32; whole pages when it is large.
/// Other allocators differ by little.
fn allocation_cost(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..0x20000 => (bytes + 8).next_multiple_of(16).max(32),
        _ => (bytes + 16).next_multiple_of(4096),
    }
}

fn large_cost(key_len: usize, reply_len: usize) -> usize {
    allocation_cost(size_of::<Large>()) + allocation_cost(key_len) + reply_cost(reply_len)
}

/// The part of a large block that can outlive its entry: the bytes, and the counts in front of the `Vec`.
pub(super) fn reply_cost(reply_len: usize) -> usize {
    allocation_cost(2 * size_of::<usize>() + size_of::<Vec<u8>>()) + allocation_cost(reply_len)
}

/// Key and value of an entry.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// The key, and right behind it the value.
    Joined(Box<[u8]>),
    /// A value of [`SHARED_VALUE_BYTES_MIN`] or more.
    Large(Box<Large>),
}

#[derive(Debug, Clone)]
pub(super) struct Large {
    key: Box<[u8]>,
    pub(super) reply: SharedReply,
}

impl Block {
    pub(super) fn joined(key: &[u8], value: &[u8]) -> Block {
        Block::Joined([key, value].concat().into_boxed_slice())
    }

    pub(super) fn large(key: &[u8], value: &[u8]) -> Block {
        let mut reply = Vec::with_capacity(reply_len(value.len()));
        append_reply(&mut reply, value);
        Block::Large(Box::new(Large {
            key: key.into(),
            reply: Arc::new(reply),
        }))
    }

    /// The key, whose length is known elsewhere.
    pub(super) fn key(&self, key_len: usize) -> &[u8] {
        match self {
            Block::Joined(bytes) => &bytes[..key_len],
            Block::Large(large) => &large.key,
        }
    }

    /// The value, given the length of the key.
    pub(super) fn value(&self, key_len: usize) -> &[u8] {
        match self {
            Block::Joined(bytes) => &bytes[key_len..],
            Block::Large(large) => {
                let head = large.reply.iter().position(|&byte| byte == b'\n');
                &large.reply[head.map_or(0, |at| at + 1)..large.reply.len() - 2]
            }
        }
    }

    pub(super) fn shared(&self) -> Option<&SharedReply> {
        match self {
            Block::Joined(_) => None,
            Block::Large(large) => Some(&large.reply),
        }
    }

    /// What is freed with it, at least.
    pub(super) fn freed_bytes(&self) -> usize {
        match self {
            Block::Joined(bytes) => allocation_cost(bytes.len()),
            Block::Large(large) => reply_cost(large.reply.len()),
        }
    }

    pub(super) fn cost(&self, key_len: usize) -> usize {
        BLOCK_ROW_BYTES
            + match self {
                Block::Joined(bytes) => allocation_cost(bytes.len()),
                Block::Large(large) => large_cost(key_len, large.reply.len()),
            }
    }
}

/// The length of `$<len>\r\n<value>\r\n`.
pub(super) fn reply_len(value_len: usize) -> usize {
    1 + value_len.checked_ilog10().map_or(1, |log| log as usize + 1) + 2 + value_len + 2
}

/// Writes `$<len>\r\n` at the beginning of `out`; how long it is. `None`: there is no room for it.
#[inline(never)]
pub(super) fn write_reply_head(out: &mut [u8], value_len: usize) -> Option<usize> {
    let head = format!("${value_len}\r\n");
    out.get_mut(..head.len())?.copy_from_slice(head.as_bytes());
    Some(head.len())
}

/// Appends `$<len>\r\n<value>\r\n`.
pub(super) fn append_reply(out: &mut Vec<u8>, value: &[u8]) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(b'$');
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_as_long_as_was_reckoned() {
        for len in [0, 1, 9, 10, 99, 100, 9_999, 10_000, 123_456] {
            let mut reply = Vec::new();
            append_reply(&mut reply, &vec![b'v'; len]);
            assert_eq!(reply.len(), reply_len(len));
            assert!(
                reply.starts_with(format!("${len}\r\n").as_bytes()) && reply.ends_with(b"\r\n")
            );
        }
    }

    #[test]
    fn a_block_has_its_key_and_its_value_and_the_cost_known_before() {
        let value = vec![b'v'; 200_000];
        for len in [0, 1, 1000, SHARED_VALUE_BYTES_MIN, value.len()] {
            let content = NewContent::Value(&value[..len]);
            for key in [&b""[..], b"k", &value[..1100]] {
                let block = match Place::of(key.len(), &content) {
                    Place::Cell => continue,
                    Place::Joined => Block::joined(key, &value[..len]),
                    Place::Shared => Block::large(key, &value[..len]),
                };
                assert_eq!(
                    (block.key(key.len()), block.value(key.len())),
                    (key, &value[..len])
                );
                let in_cell = cost_in_cell(cell_bytes_for(HEAD_BYTES + BLOCK_ID_BYTES));
                let cost = in_cell + block.cost(key.len());
                assert_eq!(cost, cost_of(key.len(), &content, false));
                assert!(cost >= ENTRY_COST_MIN);
            }
        }
    }

    #[test]
    fn sixteen_and_sixty_four_bytes_cost_forty_four_more() {
        let content = NewContent::Value(&[b'v'; 64]);
        // 40 head + 4 index; with a tag 8 more.
        assert_eq!(cost_of(16, &content, false), 16 + 64 + 44);
        assert_eq!(cost_of(16, &content, true), 16 + 64 + 52);
    }
}
