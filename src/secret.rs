//! What is said to prove who one is: kept in one place, compared in a time that tells nothing of how much of it was right.
//!
//! It never logs or prints a secret. Invariant: all holders of a secret share one copy of it, which is overwritten when the
//! last of them lets go. What passes through a socket's buffers on its way, and what a library is handed, is not ours to
//! overwrite. Costs: O(length).
#![forbid(unsafe_code)]

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Something that is never printed.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: &str) -> Secret {
        Secret(Arc::new(Zeroizing::new(text.to_owned())))
    }

    /// The text, to be compared or said.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        same(self.text().as_bytes(), other.text().as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether the two are the same. The time it takes depends on the lengths only.
pub fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours
        .iter()
        .zip(theirs)
        .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    (ours.len() == theirs.len()) & (black_box(difference) == 0)
}

/// The text in base64 (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at)) & 63;
            let is_there = at <= chunk.len();
            out.push(if is_there {
                DIGITS[digit as usize]
            } else {
                b'='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_the_same_only_when_every_byte_is() {
        assert!(same(b"secret", b"secret"));
        assert!(same(b"", b""));
        assert!(!same(b"secret", b"secres"));
        assert!(!same(b"secret", b"secre"));
        assert!(!same(b"secre", b"secret"));
        assert!(!same(b"", b"x"));
    }

    #[test]
    fn holders_of_a_secret_share_one_copy_and_print_none() {
        let one = Secret::new("sesame");
        let other = one.clone();
        assert_eq!(one.text().as_ptr(), other.text().as_ptr());
        assert_eq!(one, Secret::new("sesame"));
        assert_ne!(one, Secret::new("sesamE"));
        assert_eq!(format!("{one:?} {:?}", Some(&other)), "*** Some(***)");
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let samples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, encoded) in samples {
            assert_eq!(base64(text.as_bytes()), encoded.as_bytes(), "{text}");
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), b"/+++");
    }
}
