//! A bounded byte queue in one piece of memory: what was received and not yet parsed, or is owed and not yet sent.
//!
//! ```text
//!         head          tail            capacity
//! ├─ done ─┼─ readable ──┼─ space ──────────┤
//! ```
//! Invariant: head <= tail <= capacity <= limit, and head < tail or both are 0.
//!
//! It never takes memory for what is announced, only for what comes: it begins with a block of [`BLOCK_BYTES`] from the
//! [`Pool`] and doubles when it is full. When it has become empty, [`Buffer::release`] gives the memory back, so an idle
//! connection holds none. Blocks are zeroed once, when they are made, never between reads; so a reader may see bytes of
//! an earlier connection in the space it is to fill, and must look only at what it has filled.
//!
//! Costs: amortised O(1) per byte. Unread bytes are moved to the front only when a quarter of the block lies in front of
//! them, or when the block has its full size and its reader asks for space: called after all whole items have been
//! consumed, that moves one incomplete item once. A [`Pool`] keeps a few blocks for reuse and counts what is in use.
#![forbid(unsafe_code)]

/// The size of the blocks that are kept for reuse, and of a buffer's first block.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// The queue. 24 bytes when empty. Give its memory back with [`Buffer::release`] or [`Buffer::discard`], or the pool
/// goes on counting it.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    block: Box<[u8]>,
    head: u32,
    tail: u32,
}

const _: () = assert!(size_of::<Buffer>() <= 32);

/// The bytes do not fit below the limit, at present or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Buffer {
    /// The bytes in the queue, oldest first.
    #[inline]
    pub fn readable(&self) -> &[u8] {
        &self.block[self.head as usize..self.tail as usize]
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// How much memory it holds at present.
    pub fn capacity(&self) -> usize {
        self.block.len()
    }

    /// Takes away the oldest `n` bytes. Panics when there are fewer.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "only what is there can be consumed");
        self.head += n as u32;
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Where to put the next bytes to arrive, at most `want` of them; then say how many with [`Buffer::commit`]. May be
    /// shorter than `want`, and is empty only when `want` is 0 or the queue holds `limit` bytes. Call it after all that
    /// can be consumed has been. `limit` is at most 4 GiB, and the same for all calls.
    pub fn space(&mut self, want: usize, limit: usize, pool: &mut Pool) -> &mut [u8] {
        let limit = limit.min(LIMIT_MAX);
        if self.tail as usize >= self.block.len() && want > 0 {
            if self.block.len() >= limit || self.pays_to_compact() {
                self.compact();
            } else {
                self.grow(self.next_capacity(limit), pool);
            }
        }
        let tail = self.tail as usize;
        let end = self
            .block
            .len()
            .min(limit)
            .min(tail.saturating_add(want))
            .max(tail);
        &mut self.block[tail..end]
    }

    /// `n` bytes were put at the beginning of the last [`Buffer::space`]. Panics when there was less.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        assert!(
            n <= self.block.len() - self.tail as usize,
            "only what there was space for can be committed"
        );
        self.tail += n as u32;
    }

    /// Adds all of `bytes`, or nothing: [`Full`] when they do not fit below `limit`. A block at its full size is not
    /// compacted before a quarter of it has been consumed, so it can be full with three quarters of the limit.
    pub fn append(&mut self, bytes: &[u8], limit: usize, pool: &mut Pool) -> Result<(), Full> {
        let limit = limit.min(LIMIT_MAX);
        if bytes.len() > self.block.len() - self.tail as usize {
            self.make_room(bytes.len(), limit, pool)?;
        }
        let tail = self.tail as usize;
        self.block[tail..tail + bytes.len()].copy_from_slice(bytes);
        self.tail += bytes.len() as u32;
        Ok(())
    }

    /// Gives the memory back if the queue is empty.
    #[inline]
    pub fn release(&mut self, pool: &mut Pool) {
        if self.head == self.tail && !self.block.is_empty() {
            pool.give(std::mem::take(&mut self.block));
        }
    }

    /// Forgets what is in the queue and gives the memory back.
    pub fn discard(&mut self, pool: &mut Pool) {
        (self.head, self.tail) = (0, 0);
        self.release(pool);
    }

    /// Panics unless the invariant holds for `limit`.
    pub fn check(&self, limit: usize) {
        let (head, tail, capacity) = (self.head as usize, self.tail as usize, self.capacity());
        assert!(
            head <= tail && tail <= capacity && capacity <= limit,
            "{head} <= {tail} <= {capacity} <= {limit}"
        );
        assert!(head < tail || tail == 0, "empty at {head}");
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, n: usize, limit: usize, pool: &mut Pool) -> Result<(), Full> {
        let need = self
            .len()
            .checked_add(n)
            .filter(|&need| need <= limit)
            .ok_or(Full)?;
        if need <= self.block.len() && self.pays_to_compact() {
            self.compact();
            return Ok(());
        }
        // These bytes are here, so room for them may be made whatever the present size.
        let capacity = self.next_capacity(limit).max(need);
        if capacity <= self.block.len() {
            return Err(Full);
        }
        self.grow(capacity, pool);
        Ok(())
    }

    /// Whether moving the unread bytes costs at most three times what was consumed since they were last moved.
    fn pays_to_compact(&self) -> bool {
        self.head > 0 && self.head as usize >= self.block.len() / 4
    }

    fn next_capacity(&self, limit: usize) -> usize {
        (2 * self.block.len()).max(BLOCK_BYTES).min(limit)
    }

    fn compact(&mut self) {
        self.block
            .copy_within(self.head as usize..self.tail as usize, 0);
        self.tail -= self.head;
        self.head = 0;
    }

    fn grow(&mut self, capacity: usize, pool: &mut Pool) {
        let mut block = pool.take(capacity);
        let len = self.len();
        block[..len].copy_from_slice(self.readable());
        (self.head, self.tail) = (0, len as u32);
        let old = std::mem::replace(&mut self.block, block);
        if !old.is_empty() {
            pool.give(old);
        }
    }
}

/// Head and tail are kept in 32 bits.
const LIMIT_MAX: usize = u32::MAX as usize;

/// Makes blocks, keeps some of standard size for reuse, and counts the bytes in use.
#[derive(Debug, Clone)]
pub struct Pool {
    spare: Vec<Box<[u8]>>,
    spare_blocks_max: usize,
    in_use_bytes: usize,
}

impl Pool {
    /// A pool that keeps at most `spare_blocks_max` blocks of [`BLOCK_BYTES`]; others are freed when given back.
    pub fn new(spare_blocks_max: usize) -> Pool {
        Pool {
            spare: Vec::new(),
            spare_blocks_max,
            in_use_bytes: 0,
        }
    }

    /// Frees the spare blocks, and keeps none from now on.
    pub fn drop_spare(&mut self) {
        (self.spare, self.spare_blocks_max) = (Vec::new(), 0);
    }

    /// The bytes of all blocks that buffers hold.
    #[inline]
    pub fn in_use_bytes(&self) -> usize {
        self.in_use_bytes
    }

    /// The bytes kept for reuse.
    pub fn spare_bytes(&self) -> usize {
        self.spare.len() * BLOCK_BYTES
    }

    fn take(&mut self, capacity: usize) -> Box<[u8]> {
        self.in_use_bytes += capacity;
        let spare = if capacity == BLOCK_BYTES {
            self.spare.pop()
        } else {
            None
        };
        spare.unwrap_or_else(|| vec![0; capacity].into_boxed_slice())
    }

    fn give(&mut self, block: Box<[u8]>) {
        self.in_use_bytes -= block.len();
        if block.len() == BLOCK_BYTES && self.spare.len() < self.spare_blocks_max {
            self.spare.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const LIMIT: usize = 100_000;

    fn receive(buffer: &mut Buffer, bytes: &[u8], limit: usize, pool: &mut Pool) -> usize {
        let space = buffer.space(bytes.len(), limit, pool);
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        buffer.commit(n);
        buffer.check(limit);
        n
    }

    #[test]
    fn bytes_come_out_as_they_went_in_under_any_sizes() {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..20 {
            let limit = [1, 7, 1000, BLOCK_BYTES, 50_000, LIMIT][round % 6];
            let (mut buffer, mut pool, mut model) =
                (Buffer::default(), Pool::new(2), VecDeque::new());
            for _ in 0..2000 {
                let bytes: Vec<u8> = (0..rng.usize(0..=limit.min(3 * BLOCK_BYTES / 2)))
                    .map(|_| rng.u8(..))
                    .collect();
                match rng.u8(0..4) {
                    0 => {
                        let n = receive(&mut buffer, &bytes, limit, &mut pool);
                        model.extend(&bytes[..n]);
                        assert!(
                            n > 0 || bytes.is_empty() || model.len() == limit,
                            "no space though not full"
                        );
                    }
                    1 => match buffer.append(&bytes, limit, &mut pool) {
                        Ok(()) => model.extend(&bytes),
                        Err(Full) => assert!(
                            model.len() + bytes.len() > limit - limit / 4,
                            "full too early"
                        ),
                    },
                    2 => {
                        let n = rng.usize(0..=buffer.len());
                        buffer.consume(n);
                        model.drain(..n);
                    }
                    _ => buffer.release(&mut pool),
                }
                buffer.check(limit);
                assert!(buffer.readable().iter().eq(&model));
                assert_eq!(pool.in_use_bytes(), buffer.capacity());
            }
        }
    }

    #[test]
    fn an_empty_buffer_holds_no_memory_after_release() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(1));
        assert_eq!(buffer.capacity(), 0);
        buffer
            .append(b"PING\r\n", LIMIT, &mut pool)
            .expect("it is far below the limit");
        buffer.release(&mut pool);
        assert_eq!(
            (buffer.capacity(), pool.in_use_bytes()),
            (BLOCK_BYTES, BLOCK_BYTES)
        );
        buffer.consume(6);
        buffer.release(&mut pool);
        assert_eq!(
            (buffer.capacity(), pool.in_use_bytes(), pool.spare_bytes()),
            (0, 0, BLOCK_BYTES)
        );
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_standard_blocks_only() {
        let mut pool = Pool::new(2);
        let mut buffers = vec![Buffer::default(); 4];
        for buffer in &mut buffers {
            buffer
                .append(b"x", LIMIT, &mut pool)
                .expect("it is far below the limit");
        }
        buffers[0]
            .append(&[0; BLOCK_BYTES], LIMIT, &mut pool)
            .expect("it is far below the limit");
        assert_eq!(pool.in_use_bytes(), 5 * BLOCK_BYTES);
        for buffer in &mut buffers {
            buffer.discard(&mut pool);
        }
        assert_eq!(
            (pool.in_use_bytes(), pool.spare_bytes()),
            (0, 2 * BLOCK_BYTES)
        );
    }

    #[test]
    fn a_claim_takes_no_memory_only_arrivals_do() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(1));
        assert_eq!(buffer.space(1 << 30, 1 << 30, &mut pool).len(), BLOCK_BYTES);
        buffer.commit(BLOCK_BYTES - 1);
        assert_eq!(buffer.space(1 << 30, 1 << 30, &mut pool).len(), 1);
        buffer.commit(1);
        assert_eq!(buffer.space(1 << 30, 1 << 30, &mut pool).len(), BLOCK_BYTES);
        assert_eq!(buffer.capacity(), 2 * BLOCK_BYTES);
    }

    #[test]
    fn a_full_queue_has_no_space_and_one_consumed_byte_makes_one() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(1));
        let bytes = vec![b'x'; LIMIT];
        while buffer.len() < LIMIT {
            assert!(receive(&mut buffer, &bytes, LIMIT, &mut pool) > 0);
        }
        assert_eq!(buffer.space(1, LIMIT, &mut pool).len(), 0);
        buffer.consume(1);
        assert_eq!(buffer.space(10, LIMIT, &mut pool).len(), 1);
    }

    #[test]
    fn a_stream_far_longer_than_the_block_never_makes_it_grow() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(1));
        for _ in 0..10_000 {
            receive(&mut buffer, &[b'x'; 1000], LIMIT, &mut pool);
            buffer.consume(buffer.len().saturating_sub(300));
        }
        assert_eq!(buffer.capacity(), BLOCK_BYTES);
    }
}
