//! The one place where the name of a key becomes something that may stand in the log.
#![forbid(unsafe_code)]

/// What the log says of a key: not its name, which may be nobody's business, but a hash that is found again by hashing
/// the names one suspects (FNV-1a, 64 bits; Fowler, Noll, Vo).
pub fn shown(key: &[u8]) -> String {
    format!("{:016x}", fnv1a(key))
}

fn fnv1a(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn the_name_of_a_key_in_the_log_is_the_published_fnv1a() {
        assert_eq!(shown(b""), "cbf29ce484222325");
        assert_eq!(shown(b"a"), "af63dc4c8601ec8c");
        assert_eq!(shown(b"foobar"), "85944171f73967e8");
    }
}
