//! What is said to prove who one is: compared in a time that tells nothing of how much of it was right.
//!
//! It never logs or prints a secret. Costs: O(length).
#![forbid(unsafe_code)]

use std::hint::black_box;

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
