//! Appends RESP to a byte vector: replies to clients in either version, requests to Redis.
//!
//! Never reads what it wrote and never allocates beside the vector's own growth. Invariant: each function appends exactly
//! one item, or one head whose elements the caller appends next. O(bytes written).
#![forbid(unsafe_code)]

/// The version a connection speaks, chosen by HELLO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// What every connection speaks at first.
    #[default]
    Resp2,
    /// With maps, a null of its own, and pushes.
    Resp3,
}

/// `+text`. CR and LF in `text` become blanks.
pub fn simple(out: &mut Vec<u8>, text: &[u8]) {
    line(out, b'+', text);
}

/// `-text`: `text` begins with its code (`ERR ...`). CR and LF in it become blanks, as Redis has it: no text can end the
/// line early.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    line(out, b'-', text);
}

/// `$n` and the bytes.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + HEAD_BYTES_MAX + 2);
    head(out, b'$', bytes.len() as u64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// `$n` alone: the caller sends `bytes_len` bytes and CRLF by another way.
#[inline]
pub fn bulk_head(out: &mut Vec<u8>, bytes_len: usize) {
    head(out, b'$', bytes_len as u64);
}

/// A text for people, as Redis sends INFO: a verbatim string in RESP3, a bulk string in RESP2.
pub fn text(out: &mut Vec<u8>, version: Version, text: &[u8]) {
    match version {
        Version::Resp2 => bulk(out, text),
        Version::Resp3 => {
            head(out, b'=', text.len() as u64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// `:n`.
#[inline]
pub fn integer(out: &mut Vec<u8>, n: i64) {
    if n >= 0 {
        head(out, b':', n.unsigned_abs());
    } else {
        out.push(b':');
        decimal(out, n);
        out.extend_from_slice(b"\r\n");
    }
}

/// The head of an array of `len` elements.
#[inline]
pub fn array_head(out: &mut Vec<u8>, len: usize) {
    head(out, b'*', len as u64);
}

/// The head of a map of `pairs` pairs: in RESP2 an array twice as long.
pub fn map_head(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::Resp2 => head(out, b'*', pairs as u64 * 2),
        Version::Resp3 => head(out, b'%', pairs as u64),
    }
}

/// The absence of a value.
#[inline]
pub fn null(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::Resp2 => out.extend_from_slice(b"$-1\r\n"),
        Version::Resp3 => out.extend_from_slice(b"_\r\n"),
    }
}

/// The absence of an array (an EXEC that was aborted, a BLPOP that timed out).
pub fn null_array(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::Resp2 => out.extend_from_slice(b"*-1\r\n"),
        Version::Resp3 => out.extend_from_slice(b"_\r\n"),
    }
}

/// A request in canonical form: an array of bulks.
pub fn command<I>(out: &mut Vec<u8>, args: I)
where
    I: IntoIterator,
    I::IntoIter: ExactSizeIterator,
    I::Item: AsRef<[u8]>,
{
    let args = args.into_iter();
    array_head(out, args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

/// `n` in decimal, without anything around it.
pub fn decimal(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    let mut text = [0; DIGITS_MAX];
    out.extend_from_slice(digits(&mut text, n.unsigned_abs()));
}

/// The digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;
/// A type byte, digits, CRLF.
const HEAD_BYTES_MAX: usize = 1 + DIGITS_MAX + 2;

/// A type byte, a number, CRLF. Up to four digits the text is made in a register: one store, no call of memcpy.
#[inline(always)]
fn head(out: &mut Vec<u8>, kind: u8, n: u64) {
    const CRLF: u64 = u16::from_le_bytes(*b"\r\n") as u64;
    let high = n / 100;
    let low = two_digits(n % 100);
    let (behind_kind, head_len) = match n {
        0..=9 => (0x30 | n | (CRLF << 8), 4),
        10..=99 => (low | (CRLF << 16), 5),
        100..=999 => (0x30 | high | (low << 8) | (CRLF << 24), 6),
        1000..=9999 => (two_digits(high) | (low << 16) | (CRLF << 32), 7),
        _ => return long_head(out, kind, n),
    };
    let end = out.len() + head_len;
    out.extend_from_slice(&(u64::from(kind) | (behind_kind << 8)).to_le_bytes());
    out.truncate(end);
}

/// The two digits of `n < 100`, the tens in the low byte.
#[inline(always)]
fn two_digits(n: u64) -> u64 {
    0x3030 | (n / 10) | ((n % 10) << 8)
}

#[cold]
fn long_head(out: &mut Vec<u8>, kind: u8, n: u64) {
    let mut text = [0; DIGITS_MAX];
    out.push(kind);
    out.extend_from_slice(digits(&mut text, n));
    out.extend_from_slice(b"\r\n");
}

/// The decimal text of `n`, written to the end of `text`.
fn digits(text: &mut [u8; DIGITS_MAX], mut n: u64) -> &[u8] {
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        text[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &text[start..];
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.push(kind);
    out.extend(text.iter().map(|&byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &[u8]) {
        let mut out = b"before".to_vec();
        write(&mut out);
        assert_eq!(out.strip_prefix(b"before"), Some(expected));
    }

    #[test]
    fn numbers_are_written_as_format_does() {
        let mut numbers = vec![
            0,
            1,
            -1,
            9,
            10,
            99,
            100,
            999,
            1000,
            9999,
            10_000,
            123_456_789,
            i64::MAX,
            i64::MIN,
        ];
        let mut random = fastrand::Rng::with_seed(1);
        numbers.extend((0..10_000).map(|_| random.i64(..) >> random.u32(0..64)));
        for n in numbers {
            check(|out| integer(out, n), format!(":{n}\r\n").as_bytes());
            check(|out| decimal(out, n), n.to_string().as_bytes());
            let len = n.unsigned_abs() as usize / 2;
            check(|out| array_head(out, len), format!("*{len}\r\n").as_bytes());
            check(|out| bulk_head(out, len), format!("${len}\r\n").as_bytes());
        }
        check(
            |out| head(out, b'$', u64::MAX),
            b"$18446744073709551615\r\n",
        );
    }

    #[test]
    fn lines_cannot_be_ended_by_their_text() {
        check(|out| simple(out, b"OK"), b"+OK\r\n");
        check(|out| error(out, b"ERR a\r\n-b\n"), b"-ERR a  -b \r\n");
    }

    #[test]
    fn bulks_carry_any_bytes() {
        check(|out| bulk(out, b""), b"$0\r\n\r\n");
        check(|out| bulk(out, b"a\r\nb\0"), b"$5\r\na\r\nb\0\r\n");
        for len in [1, 9, 10, 99, 100, 1000, 9999, 10_000, 100_000] {
            let bytes = vec![b'v'; len];
            let expected = [format!("${len}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
            check(|out| bulk(out, &bytes), &expected);
        }
    }

    #[test]
    fn versions_differ_in_maps_and_nulls() {
        check(|out| map_head(out, Version::Resp2, 3), b"*6\r\n");
        check(|out| map_head(out, Version::Resp3, 3), b"%3\r\n");
        check(|out| null(out, Version::Resp2), b"$-1\r\n");
        check(|out| null(out, Version::Resp3), b"_\r\n");
        check(|out| null_array(out, Version::Resp2), b"*-1\r\n");
        check(|out| null_array(out, Version::Resp3), b"_\r\n");
    }

    #[test]
    fn commands_are_arrays_of_bulks() {
        check(
            |out| command(out, ["GET", "key"]),
            b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
        );
    }
}
