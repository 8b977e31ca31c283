//! What a key is called in the log: by its hash, as it is, or not at all (`LOG_KEYS`). Everything that logs a key says it
//! through [`KeyName`].
//!
//! It never prints a control character, a quote that is not escaped, or more than a line's worth: a key is whatever a
//! client has chosen. The hash is FNV-1a of 64 bits (Fowler, Noll, Vo) without a seed, so that one key has one name on all
//! machines and days and an operator finds it by hashing the names he suspects; it hides names from whoever reads the log
//! in passing, not from somebody who tries all of them. Costs: O(length of the key), when the line is written.
#![forbid(unsafe_code)]

use crate::config::LogKeys;
use std::fmt;

/// Bytes of a key that are shown.
const SHOWN_BYTES_MAX: usize = 128;

/// A key, to be written into a line of the log.
#[derive(Clone, Copy)]
pub struct KeyName<'k> {
    key: &'k [u8],
    how: LogKeys,
}

impl<'k> KeyName<'k> {
    /// `key`, as `LOG_KEYS` has it.
    pub fn new(key: &'k [u8], how: LogKeys) -> KeyName<'k> {
        KeyName { key, how }
    }
}

impl fmt::Display for KeyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            LogKeys::Hash => write!(f, "fnv1a:{:016x}", fnv1a(self.key)),
            LogKeys::Hidden => f.write_str("hidden"),
            LogKeys::Shown => {
                let shown = &self.key[..self.key.len().min(SHOWN_BYTES_MAX)];
                write!(f, "{}", shown.escape_ascii())?;
                if shown.len() < self.key.len() {
                    write!(f, "...({} bytes)", self.key.len())?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for KeyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn fnv1a(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_fnv1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_key_of_any_bytes_stays_within_its_line() {
        let check = |key: &[u8], how: LogKeys, expected: &str| {
            assert_eq!(KeyName::new(key, how).to_string(), expected);
        };
        check(b"foobar", LogKeys::Hash, "fnv1a:85944171f73967e8");
        check(b"foobar", LogKeys::Hidden, "hidden");
        check(b"user:1", LogKeys::Shown, "user:1");
        check(b"", LogKeys::Shown, "");
        check(
            b"a\r\nERROR forged \"\\\x1b[2J\0\xff\xc3\xa9",
            LogKeys::Shown,
            r#"a\r\nERROR forged \"\\\x1b[2J\x00\xff\xc3\xa9"#,
        );
        let long = KeyName::new(&[b'k'; 1000], LogKeys::Shown).to_string();
        assert!(long.ends_with("k...(1000 bytes)"), "{long}");
        assert!(long.len() < 160);
    }
}
