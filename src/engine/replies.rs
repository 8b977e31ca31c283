//! The buffer in which the straight way puts its replies, one behind the other.
//!
//! Of a fixed size, so that a reply asks once whether it has room and is then written in place. It never grows and never
//! moves what is in it. Invariant: `len` bytes from the beginning are replies. An engine that has not used it, and a
//! clone, holds no memory for it.
#![forbid(unsafe_code)]

/// With so many bytes of replies a read goes the general way, which knows how to hold a client: 64 replies of 1 KiB fit.
pub(super) const REPLIES_BYTES_MAX: usize = 128 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    len: usize,
}

impl Replies {
    /// Room for new ones, in place of those before. What is written must be told with [`Replies::set_left`].
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.make();
        }
        self.len = 0;
        &mut self.bytes
    }

    #[cold]
    #[inline(never)]
    fn make(&mut self) {
        self.bytes = vec![0; REPLIES_BYTES_MAX];
    }

    /// All of the room but the last `left` bytes is replies.
    #[inline(always)]
    pub(super) fn set_left(&mut self, left: usize) {
        self.len = self.bytes.len() - left;
    }

    /// All of them.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Between two calls of the engine nothing is in it (`straight.rs`).
impl Clone for Replies {
    fn clone(&self) -> Replies {
        Replies::default()
    }
}
