//! What a byte may be in HTTP: four classes in one table, so that a check is one load and one test.
#![forbid(unsafe_code)]

/// May stand in a token: a method, a field name (RFC 9110 section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// May stand in a request target: unreserved, sub-delims, `%`, and `:` `/` `?` `@` `[` `]` of the gen-delims. `#` is not
/// among them: a fragment is never sent (RFC 9112 section 3.2). The brackets belong to IP literals; browsers also send
/// them bare in queries, and they mean nothing to us there.
pub(super) const TARGET: u8 = 2;
/// May stand in a host name (RFC 3986 section 3.2.2, reg-name; IPv4 addresses are a case of it), beside `%XX`.
pub(super) const REG_NAME: u8 = 4;
/// May stand in a query and stands for itself there: the class `TARGET` but `%`, `+` and `&`.
pub(super) const PLAIN: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    mark(&mut table, b"!#$%&'*+-.^_`|~", TOKEN);
    mark(&mut table, b"-._~!$&'()*+,;=%:/?@[]", TARGET);
    mark(&mut table, b"-._~!$&'()*+,;=", REG_NAME);
    mark(&mut table, b"-._~!$'()*,;=:/?@[]", PLAIN);
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] |= TOKEN | TARGET | REG_NAME | PLAIN;
        }
        byte += 1;
    }
    table
}

const fn mark(table: &mut [u8; 256], bytes: &[u8], class: u8) {
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] |= class;
        at += 1;
    }
}

/// Whether `byte` is of `class`.
#[inline]
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether all of `bytes` are of `class`, one of the constants above.
#[inline]
pub(super) fn all(bytes: &[u8], class: u8) -> bool {
    // Without a branch per byte: what is checked is nearly always good.
    bytes
        .iter()
        .fold(class, |common, &byte| common & CLASSES[byte as usize])
        != 0
}

/// Whether all of `bytes` are [`PLAIN`]: sixteen a step, by the letters, digits and signs that names of keys are made of.
#[inline(always)]
pub(super) fn all_plain(bytes: &[u8]) -> bool {
    let (sixteens, rest) = bytes.as_chunks::<16>();
    let is_usual = |sixteen: &[u8; 16]| {
        let bad = sixteen.iter().fold(0, |bad, &byte| {
            // `-./`, digits and `:` stand in a row.
            let is_sign = byte.wrapping_sub(b'-') <= b':' - b'-';
            let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            bad | u8::from(!(is_sign | is_letter | (byte == b'_')))
        });
        bad == 0
    };
    let all_usual = sixteens.iter().all(is_usual);
    (all_usual || all(sixteens.as_flattened(), PLAIN)) && all(rest, PLAIN)
}

/// Whether `byte` may stand in a field value: visible, space, tab or one of the upper half (RFC 9110 section 5.5).
#[inline]
pub(super) fn in_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Where the first byte below 0x20 is: CR, LF, NUL and the other controls, but not DEL; a tab only if it is `TAB` to
/// stop at. Eight bytes a step, each of them looked at once however many tabs are passed over.
#[inline]
pub(super) fn first_control<const TAB: bool>(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let octets = word;
        let word = u64::from_le_bytes(*octets);
        // Subtracting 0x20 borrows into the top bit of a byte that was below 0x20; bytes that had that bit are masked
        // out. A borrow can spoil only bytes above a true hit, so the lowest hit is always a true one.
        let hits = word.wrapping_sub(ONES * 0x20) & !word & (ONES * 0x80);
        if hits != 0 {
            let first = (hits.trailing_zeros() / 8) as usize;
            if TAB || octets[first] != b'\t' {
                return Some(n * 8 + first);
            }
            if let Some(at) = octets.iter().position(|&byte| stops::<TAB>(byte)) {
                return Some(n * 8 + at);
            }
        }
    }
    let behind = words.len() * 8;
    rest.iter()
        .position(|&byte| stops::<TAB>(byte))
        .map(|at| behind + at)
}

/// Where the first byte is that is below 0x20, a tab too, or DEL: up to there all may stand in a field value. Eight bytes
/// a step.
#[inline]
pub(super) fn first_unusual(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let del = word ^ (ONES * 0x7f);
        // Both as in `first_control`: a borrow can spoil only bytes above a true hit.
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let hits = (low | del.wrapping_sub(ONES) & !del) & (ONES * 0x80);
        if hits != 0 {
            return Some(n * 8 + (hits.trailing_zeros() / 8) as usize);
        }
    }
    let is_unusual = |&byte: &u8| byte < b' ' || byte == 0x7f;
    let at = rest.iter().position(is_unusual)?;
    Some(words.len() * 8 + at)
}

fn stops<const TAB: bool>(byte: u8) -> bool {
    byte < b' ' && (TAB || byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_control_finds_what_a_byte_loop_finds() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let len = rng.usize(0..40);
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    if rng.u8(0..12) == 0 {
                        rng.u8(..)
                    } else if rng.u8(0..6) == 0 {
                        b'\t'
                    } else {
                        rng.u8(0x1f..=0x81)
                    }
                })
                .collect();
            let expected = bytes.iter().position(|&b| b < b' ');
            assert_eq!(first_control::<true>(&bytes), expected, "{bytes:?}");
            let expected = bytes.iter().position(|&b| b < b' ' && b != b'\t');
            assert_eq!(first_control::<false>(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn first_unusual_finds_what_a_byte_loop_finds() {
        for byte in 0..=255u8 {
            for (len, at) in (0..20).flat_map(|len| (0..len).map(move |at| (len, at))) {
                for fill in [b'a', 0x80, 0xff, b' ', 0x7e] {
                    let mut bytes = vec![fill; len];
                    bytes[at] = byte;
                    let unusual = |&byte: &u8| byte < b' ' || byte == 0x7f;
                    assert_eq!(first_unusual(&bytes), bytes.iter().position(unusual));
                }
            }
        }
    }

    #[test]
    fn all_plain_says_of_every_byte_in_every_place_what_the_table_says() {
        for byte in 0..=255u8 {
            for (len, at) in (0..40).flat_map(|len| (0..len).map(move |at| (len, at))) {
                for fill in *b"z9:!" {
                    let mut bytes = vec![fill; len];
                    bytes[at] = byte;
                    assert_eq!(all_plain(&bytes), all(&bytes, PLAIN), "{bytes:?}");
                }
            }
        }
        assert!(all_plain(b""));
    }

    #[test]
    fn classes_are_those_of_the_grammars() {
        let members = |class| (0..=255u8).filter(|&b| is(b, class)).count();
        assert_eq!(members(TOKEN), 62 + 15);
        assert_eq!(members(TARGET), 62 + 22);
        assert_eq!(members(REG_NAME), 62 + 15);
        assert_eq!(members(PLAIN), 62 + 19);
        let in_query = |b: u8| is(b, TARGET) && !b"%+&".contains(&b);
        assert!((0..=255).all(|b| is(b, PLAIN) == in_query(b)));
        for byte in *b" \"#<>\\^`{|}\0\r\n\t\x7f\x80\xff" {
            assert!(!is(byte, TARGET), "{byte:#x}");
        }
    }
}
