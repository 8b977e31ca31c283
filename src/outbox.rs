//! What is to be sent on one connection, in order: owned bytes, and large values by counted reference.
//!
//! It never writes; the shell asks for slices and says how much went out. Invariant: `len` is the number of bytes not
//! yet sent, and the segments in front of `tail` are never empty. Appending is amortised O(1) per byte and takes memory
//! from the pool only while something is in it, so an idle connection holds none.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

/// An owned tail longer than this becomes a segment of its own, so that a long stream never copies what it has.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// What a fresh block of the pool can hold.
const BLOCK_BYTES: usize = 16 * 1024;

/// Blocks that outboxes have given back, kept for reuse.
#[derive(Debug, Clone)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
    spare_blocks_max: usize,
}

impl Pool {
    /// A pool that keeps at most this many blocks of 16 KiB; others are freed when given back.
    pub fn new(spare_blocks_max: usize) -> Pool {
        Pool {
            spare: Vec::new(),
            spare_blocks_max,
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    fn give(&mut self, mut block: Vec<u8>) {
        if block.capacity() == BLOCK_BYTES && self.spare.len() < self.spare_blocks_max {
            block.clear();
            self.spare.push(block);
        }
    }
}

#[derive(Debug, Clone)]
enum Segment {
    Owned(Vec<u8>),
    Shared(Arc<Vec<u8>>, Range<usize>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Owned(bytes) => bytes,
            Segment::Shared(bytes, range) => &bytes[range.clone()],
        }
    }
}

/// A queue of bytes to send.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    /// Segments in front of `tail`: there for large or long output only, and then not empty.
    #[allow(clippy::box_collection)]
    // 8 bytes instead of 32 in every client, and nearly none has any
    full: Option<Box<VecDeque<Segment>>>,
    /// Where small replies are appended.
    tail: Vec<u8>,
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
    }

    /// Appends whatever `write` appends to the vector it is given (it must not shorten it).
    #[inline]
    pub fn append_with(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.capacity() == 0 || self.tail.len() > SEGMENT_BYTES_MAX {
            self.make_room(0, pool);
        }
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len() - before;
        if self.len == 0 {
            pool.give(std::mem::take(&mut self.tail));
        }
    }

    /// Appends this part of a large value without copying it.
    pub fn append_shared(&mut self, bytes: Arc<Vec<u8>>, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        self.seal_tail();
        self.len += part.len();
        self.push_segment(Segment::Shared(bytes, part));
    }

    /// Moves everything from `other` behind what is here.
    pub fn append_all(&mut self, mut other: Outbox, pool: &mut Pool) {
        debug_assert_eq!(other.sent, 0, "a reply that waited was not sent from");
        let Some(segments) = other.full.take() else {
            self.append(&other.tail, pool);
            pool.give(other.tail);
            return;
        };
        self.seal_tail();
        self.len += other.len;
        for segment in *segments {
            self.push_segment(segment);
        }
        self.tail = other.tail;
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
        let segments = full.iter().map(Segment::bytes);
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

    /// `n` bytes of what [`Outbox::slices`] gave were sent.
    #[inline]
    pub fn sent(&mut self, n: usize, pool: &mut Pool) {
        assert!(n <= self.len, "no more can be sent than there is");
        self.len -= n;
        if self.full.is_none() {
            self.sent += n;
            if self.len == 0 {
                self.sent = 0;
                pool.give(std::mem::take(&mut self.tail));
            }
            return;
        }
        self.sent_segments(n, pool);
    }

    fn sent_segments(&mut self, n: usize, pool: &mut Pool) {
        let mut left = self.sent + n;
        if let Some(full) = &mut self.full {
            while let Some(front) = full.front() {
                if left < front.bytes().len() {
                    break;
                }
                left -= front.bytes().len();
                if let Some(Segment::Owned(bytes)) = full.pop_front() {
                    pool.give(bytes);
                }
            }
            if full.is_empty() {
                self.full = None;
            }
        }
        self.sent = left;
        if self.len == 0 {
            self.sent = 0;
            pool.give(std::mem::take(&mut self.tail));
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
        for segment in self.full.iter().flat_map(|full| full.iter()) {
            all.extend_from_slice(segment.bytes());
        }
        all.extend_from_slice(&self.tail);
        all.drain(..self.sent);
        all
    }

    /// Panics where the invariant does not hold.
    pub fn check(&self) {
        let segments = || self.full.iter().flat_map(|full| full.iter());
        assert!(segments().all(|segment| !segment.bytes().is_empty()));
        assert!(self.full.as_ref().is_none_or(|full| !full.is_empty()));
        let held: usize = segments().map(|segment| segment.bytes().len()).sum();
        assert_eq!(self.len + self.sent, held + self.tail.len());
        assert!(
            self.len > 0 || (self.tail.capacity() == 0 && self.full.is_none()),
            "an empty outbox holds memory"
        );
    }

    fn make_room(&mut self, want: usize, pool: &mut Pool) {
        if self.tail.len() > SEGMENT_BYTES_MAX {
            self.seal_tail();
        }
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
        self.tail.reserve(want);
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let segment = Segment::Owned(std::mem::take(&mut self.tail));
            self.push_segment(segment);
        }
    }

    fn push_segment(&mut self, segment: Segment) {
        self.full.get_or_insert_default().push_back(segment);
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
                    2 => outbox
                        .append_shared(Arc::new([b"x", &piece[..]].concat()), 1..piece.len() + 1),
                    3 => {
                        let mut other = Outbox::default();
                        other.append(&piece, &mut pool);
                        other.append_shared(
                            Arc::new([b"x", &piece[..]].concat()),
                            1..piece.len() + 1,
                        );
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
            }
            while !outbox.is_empty() {
                send(&mut outbox, 50_000, &mut sent, &mut pool);
            }
            outbox.check();
            assert_eq!(sent, expected, "seed {seed}");
        }
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
