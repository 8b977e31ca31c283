//! What is to be sent on one connection, in order: owned bytes, and large values by counted reference.
//!
//! It never writes; the shell asks for slices and says how much went out. Invariant: `len` is the number of bytes not
//! yet sent, and the segments in front of `tail` are never empty. Appending is amortised O(1) per byte and takes memory
//! from the pool only while something is in it, so an idle connection holds none.
//!
//! The pool counts what all outboxes hold: owned blocks with their whole capacity, and large values that nobody else
//! keeps, each once, however many outboxes wait to send it. A value that the cache keeps is in the cache's budget.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

/// An owned tail longer than this becomes a segment of its own, so that a long stream never copies what it has.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// What a fresh block of the pool can hold.
const BLOCK_BYTES: usize = 16 * 1024;

/// Who else has a large value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The cache, in whose budget it is.
    ByCache,
    /// Nobody: it lives until the last outbox has sent it, and counts among the buffers.
    ByNobody,
}

/// Blocks that outboxes have given back, kept for reuse, and a count of those they hold.
#[derive(Debug, Clone)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
    spare_blocks_max: usize,
    in_use_bytes: usize,
    /// Bytes copied into outboxes so far: what serving clients costs beside handling their commands.
    copied_bytes: u64,
    /// Large values that nobody else keeps: by their address, in how many segments each is, and its bytes.
    loose: BTreeMap<usize, (usize, usize)>,
}

impl Pool {
    /// A pool that keeps at most this many blocks of 16 KiB; others are freed when given back.
    pub fn new(spare_blocks_max: usize) -> Pool {
        Pool {
            spare: Vec::new(),
            spare_blocks_max,
            in_use_bytes: 0,
            copied_bytes: 0,
            loose: BTreeMap::new(),
        }
    }

    /// The bytes that all outboxes hold.
    #[inline]
    pub fn in_use_bytes(&self) -> usize {
        self.in_use_bytes
    }

    /// The bytes that were ever copied into outboxes. Large values are not copied.
    #[inline]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Something that is no outbox but waits like one now has `new` bytes instead of `old`.
    pub fn recount(&mut self, old: usize, new: usize) {
        self.in_use_bytes = self.in_use_bytes - old + new;
    }

    /// The bytes of the largest value that nobody else keeps. O(such values).
    pub fn largest_loose_bytes(&self) -> usize {
        let held = self.loose.values().map(|(_, held)| *held);
        held.max().unwrap_or(0)
    }

    /// Frees the spare blocks, and keeps none from now on.
    pub fn drop_spare(&mut self) {
        (self.spare, self.spare_blocks_max) = (Vec::new(), 0);
    }

    fn take(&mut self) -> Vec<u8> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    fn hold_loose(&mut self, bytes: &Arc<Vec<u8>>) {
        let (segments, held) = self.loose.entry(address(bytes)).or_default();
        if *segments == 0 {
            *held = bytes.capacity();
            self.in_use_bytes += *held;
        }
        *segments += 1;
    }

    fn drop_loose(&mut self, bytes: &Arc<Vec<u8>>) {
        let address = address(bytes);
        let Some((segments, _)) = self.loose.get_mut(&address) else {
            debug_assert!(false, "a loose value that was not counted");
            return;
        };
        *segments -= 1;
        if *segments == 0 {
            self.loose.remove(&address);
            self.in_use_bytes -= bytes.capacity();
        }
    }

    /// `held`: what was counted of it.
    fn give(&mut self, mut block: Vec<u8>, held: usize) {
        self.in_use_bytes -= held;
        if block.capacity() == BLOCK_BYTES && self.spare.len() < self.spare_blocks_max {
            block.clear();
            self.spare.push(block);
        }
    }
}

/// A value is the same one while it stays where it is, and it does while anybody holds it.
fn address(bytes: &Arc<Vec<u8>>) -> usize {
    Arc::as_ptr(bytes).addr()
}

#[derive(Debug, Clone)]
enum Segment {
    /// With what the pool has counted of it: a clone of a vector has less room than its original.
    Owned(Vec<u8>, usize),
    Shared(Arc<Vec<u8>>, Range<usize>, Kept),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Owned(bytes, _) => bytes,
            Segment::Shared(bytes, range, _) => &bytes[range.clone()],
        }
    }
}

/// Segments that are full.
#[derive(Debug, Clone, Default)]
struct Full {
    segments: VecDeque<Segment>,
    /// Bytes of those that are shared.
    shared: usize,
}

/// A queue of bytes to send.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    /// Segments in front of `tail`: there for large or long output only, and then not empty.
    // Boxed: 8 bytes instead of 40 in every client, and nearly none has any.
    full: Option<Box<Full>>,
    /// Where small replies are appended.
    tail: Vec<u8>,
    /// What the pool has counted of `tail`.
    tail_held: usize,
    /// How much of the front segment (or of `tail`, when there is none) has gone out.
    sent: usize,
    /// Bytes not yet sent.
    len: usize,
}

impl Outbox {
    /// Bytes not yet sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Those of them that are here only: parts of large values are somewhere in any case. O(1).
    pub fn copied_len(&self) -> usize {
        let Some(full) = &self.full else {
            return self.len;
        };
        let sent_of_shared = match full.segments.front() {
            Some(Segment::Shared(..)) => self.sent,
            _ => 0,
        };
        self.len - (full.shared - sent_of_shared)
    }

    /// Whether all was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.make_room(bytes.len(), pool);
        }
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
        pool.copied_bytes += bytes.len() as u64;
    }

    /// Appends whatever `write` appends to the vector it is given (it must not shorten it).
    #[inline]
    pub fn append_with(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.capacity() == 0 || self.tail.len() > SEGMENT_BYTES_MAX {
            self.make_room(0, pool);
        }
        let before = self.tail.len();
        write(&mut self.tail);
        let copied = self.tail.len() - before;
        self.len += copied;
        pool.copied_bytes += copied as u64;
        self.count_tail(pool);
        if self.len == 0 {
            self.give_tail(pool);
        }
    }

    /// Appends this part of a large value without copying it.
    pub fn append_shared(
        &mut self,
        bytes: Arc<Vec<u8>>,
        part: Range<usize>,
        kept: Kept,
        pool: &mut Pool,
    ) {
        if part.is_empty() {
            return;
        }
        if kept == Kept::ByNobody {
            pool.hold_loose(&bytes);
        }
        self.seal_tail(pool);
        self.len += part.len();
        self.push_segment(Segment::Shared(bytes, part, kept));
    }

    /// Moves everything from `other` behind what is here.
    pub fn append_all(&mut self, mut other: Outbox, pool: &mut Pool) {
        debug_assert_eq!(other.sent, 0, "a reply that waited was not sent from");
        let Some(segments) = other.full.take() else {
            self.append(&other.tail, pool);
            pool.give(other.tail, other.tail_held);
            return;
        };
        self.seal_tail(pool);
        self.len += other.len;
        for segment in segments.segments {
            self.push_segment(segment);
        }
        // It may be empty and have a block all the same.
        self.give_tail(pool);
        (self.tail, self.tail_held) = (other.tail, other.tail_held);
    }

    /// Fills `slices` with what is next, front first, and returns how many were filled.
    #[inline]
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(full) = &self.full else {
            if self.len == 0 || slices.is_empty() {
                return 0;
            }
            slices[0] = IoSlice::new(&self.tail[self.sent..]);
            return 1;
        };
        let mut filled = 0;
        let mut skip = self.sent;
        let segments = full.segments.iter().map(Segment::bytes);
        for bytes in segments.chain(std::iter::once(self.tail.as_slice())) {
            if filled == slices.len() {
                break;
            }
            if bytes.len() > skip {
                slices[filled] = IoSlice::new(&bytes[skip..]);
                filled += 1;
            }
            skip = 0;
        }
        filled
    }

    /// What is next, at most so much of it.
    pub fn front(&self, most: usize) -> &[u8] {
        let mut first = [IoSlice::new(&[])];
        if self.slices(&mut first) == 0 {
            return &[];
        }
        let len = first[0].len().min(most);
        let segment = self.full.as_ref().and_then(|full| full.segments.front());
        let bytes = segment.map_or(self.tail.as_slice(), Segment::bytes);
        &bytes[self.sent..self.sent + len]
    }

    /// `n` bytes of what [`Outbox::slices`] gave were sent.
    #[inline]
    pub fn sent(&mut self, n: usize, pool: &mut Pool) {
        assert!(n <= self.len, "no more can be sent than there is");
        self.len -= n;
        if self.full.is_none() {
            self.sent += n;
            if self.len == 0 {
                self.sent = 0;
                self.give_tail(pool);
            }
            return;
        }
        self.sent_segments(n, pool);
    }

    fn sent_segments(&mut self, n: usize, pool: &mut Pool) {
        let mut left = self.sent + n;
        if let Some(full) = &mut self.full {
            while let Some(front) = full.segments.front() {
                if left < front.bytes().len() {
                    break;
                }
                left -= front.bytes().len();
                match full.segments.pop_front() {
                    Some(Segment::Owned(bytes, held)) => pool.give(bytes, held),
                    Some(Segment::Shared(bytes, part, kept)) => {
                        full.shared -= part.len();
                        if kept == Kept::ByNobody {
                            pool.drop_loose(&bytes);
                        }
                    }
                    None => {}
                }
            }
            if full.segments.is_empty() {
                self.full = None;
            }
        }
        self.sent = left;
        if self.len == 0 {
            self.sent = 0;
            self.give_tail(pool);
        }
    }

    /// Drops everything and gives the memory back.
    pub fn clear(&mut self, pool: &mut Pool) {
        let n = self.len;
        self.sent(n, pool);
    }

    /// The bytes not yet sent, joined; for tests and fingerprints.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len + self.sent);
        for segment in self.full.iter().flat_map(|full| &full.segments) {
            all.extend_from_slice(segment.bytes());
        }
        all.extend_from_slice(&self.tail);
        all.drain(..self.sent);
        all
    }

    /// The bytes it holds as the pool counts them, but for values: those go to `values`, each by its address, once.
    pub fn held_bytes(&self, values: &mut BTreeMap<usize, usize>) -> usize {
        let mut owned = self.tail_held;
        for segment in self.full.iter().flat_map(|full| &full.segments) {
            match segment {
                Segment::Owned(_, held) => owned += held,
                Segment::Shared(bytes, _, Kept::ByNobody) => {
                    values.insert(address(bytes), bytes.capacity());
                }
                Segment::Shared(_, _, Kept::ByCache) => {}
            }
        }
        owned
    }

    /// The memory that goes when it does, but for values that others hold too.
    pub fn memory(&self) -> usize {
        let segments = self.full.iter().flat_map(|full| &full.segments);
        let segments = segments.map(|segment| match segment {
            Segment::Owned(_, held) => *held,
            Segment::Shared(bytes, _, Kept::ByNobody) => bytes.capacity(),
            Segment::Shared(_, _, Kept::ByCache) => 0,
        });
        segments.sum::<usize>() + self.tail_held
    }

    /// Panics where the invariant does not hold.
    pub fn check(&self) {
        let segments = || self.full.iter().flat_map(|full| &full.segments);
        assert!(segments().all(|segment| !segment.bytes().is_empty()));
        assert!(
            self.full
                .as_ref()
                .is_none_or(|full| !full.segments.is_empty())
        );
        let shared = segments().map(|segment| match segment {
            Segment::Owned(..) => 0,
            Segment::Shared(_, part, _) => part.len(),
        });
        let counted = self.full.as_ref().map_or(0, |full| full.shared);
        assert_eq!(shared.sum::<usize>(), counted);
        let held: usize = segments().map(|segment| segment.bytes().len()).sum();
        assert_eq!(self.len + self.sent, held + self.tail.len());
        assert!(
            self.len > 0 || (self.tail.capacity() == 0 && self.full.is_none()),
            "an empty outbox holds memory"
        );
    }

    fn make_room(&mut self, want: usize, pool: &mut Pool) {
        // A long tail is left as it is rather than doubled for what does not fit.
        if self.tail.len() > SEGMENT_BYTES_MAX - want.min(SEGMENT_BYTES_MAX / 2) {
            self.seal_tail(pool);
        }
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
        self.tail.reserve(want);
        self.count_tail(pool);
    }

    #[inline]
    fn count_tail(&mut self, pool: &mut Pool) {
        let held = self.tail.capacity();
        pool.recount(std::mem::replace(&mut self.tail_held, held), held);
    }

    fn give_tail(&mut self, pool: &mut Pool) {
        let held = std::mem::take(&mut self.tail_held);
        pool.give(std::mem::take(&mut self.tail), held);
    }

    /// What is in the tail becomes a segment, without the room that a vector takes in advance: all that is held counts.
    fn seal_tail(&mut self, pool: &mut Pool) {
        if !self.tail.is_empty() {
            let (len, held) = (self.tail.len(), self.tail.capacity());
            if held > BLOCK_BYTES && held - len > held / 8 {
                self.tail.shrink_to_fit();
                self.count_tail(pool);
            }
            let held = std::mem::take(&mut self.tail_held);
            let segment = Segment::Owned(std::mem::take(&mut self.tail), held);
            self.push_segment(segment);
        }
    }

    fn push_segment(&mut self, segment: Segment) {
        let full = self.full.get_or_insert_default();
        if let Segment::Shared(_, part, _) = &segment {
            full.shared += part.len();
        }
        full.segments.push_back(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends random pieces in every way, sends random amounts, and compares with a plain vector.
    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pool = Pool::new(4);
            let (mut outbox, mut expected, mut sent) = (Outbox::default(), Vec::new(), Vec::new());
            for step in 0..200usize {
                let size = [0, 1, 7, 300, 20_000][random.usize(..5)];
                let piece: Vec<u8> = (0..size).map(|i| (i + step) as u8).collect();
                match random.usize(..5) {
                    0 => outbox.append(&piece, &mut pool),
                    1 => outbox.append_with(&mut pool, |out| out.extend_from_slice(&piece)),
                    2 => append_value(&mut outbox, &piece, step, &mut pool),
                    3 => {
                        let mut other = Outbox::default();
                        other.append(&piece, &mut pool);
                        append_value(&mut other, &piece, step, &mut pool);
                        outbox.append_all(other, &mut pool);
                        expected.extend_from_slice(&piece);
                    }
                    _ => {
                        send(&mut outbox, random.usize(..40_000), &mut sent, &mut pool);
                        outbox.check();
                        continue;
                    }
                }
                expected.extend_from_slice(&piece);
                outbox.check();
                let mut values = BTreeMap::new();
                let owned = outbox.held_bytes(&mut values);
                assert_eq!(pool.in_use_bytes(), owned + values.values().sum::<usize>());
            }
            while !outbox.is_empty() {
                send(&mut outbox, 50_000, &mut sent, &mut pool);
            }
            outbox.check();
            assert_eq!(sent, expected, "seed {seed}");
            assert_eq!(pool.in_use_bytes(), 0, "what was sent is not held");
        }
    }

    fn append_value(outbox: &mut Outbox, piece: &[u8], step: usize, pool: &mut Pool) {
        let kept = [Kept::ByCache, Kept::ByNobody][step % 2];
        let value = Arc::new([b"x", piece].concat());
        outbox.append_shared(value, 1..piece.len() + 1, kept, pool);
    }

    #[test]
    fn what_many_small_replies_hold_is_little_more_than_what_they_are() {
        for size in [20, 1009, 5000, 40_000] {
            let (mut by_copy, mut by_writing) = (Outbox::default(), Outbox::default());
            let mut pools = [Pool::new(0), Pool::new(0)];
            let piece = vec![b'x'; size];
            while by_copy.len() < 4 << 20 {
                by_copy.append(&piece, &mut pools[0]);
                by_writing.append_with(&mut pools[1], |out| out.extend_from_slice(&piece));
            }
            for (pool, len) in pools.iter().zip([by_copy.len(), by_writing.len()]) {
                let held = pool.in_use_bytes();
                assert!(held < len + len / 7, "{held} for {len} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_value_that_many_send_is_counted_once_until_the_last_has() {
        let mut pool = Pool::new(1);
        let value = Arc::new(vec![b'v'; 100_000]);
        let mut outboxes = vec![Outbox::default(); 3];
        for outbox in &mut outboxes {
            outbox.append_shared(value.clone(), 0..100_000, Kept::ByNobody, &mut pool);
            assert_eq!(pool.in_use_bytes(), value.capacity());
        }
        outboxes[0].clear(&mut pool);
        outboxes[1].sent(100_000, &mut pool);
        outboxes[2].sent(99_999, &mut pool);
        assert_eq!(pool.in_use_bytes(), value.capacity());
        outboxes[2].sent(1, &mut pool);
        assert_eq!(pool.in_use_bytes(), 0);
    }

    fn send(outbox: &mut Outbox, most: usize, sent: &mut Vec<u8>, pool: &mut Pool) {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outbox.slices(&mut slices);
        let joined: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let n = joined.len().min(most);
        sent.extend_from_slice(&joined[..n]);
        outbox.sent(n, pool);
    }
}
