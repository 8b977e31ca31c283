//! The answer to a plain hit, for the requests that [`super::KnownHead`] recognises.
//!
//! Never writes anything but what [`super::response`] would have written: what is the same for all hits of a second is
//! put together once, and the few parts that differ are put in between. O(bytes written), no allocation.
#![forbid(unsafe_code)]

use super::response::{
    DATE_BYTES, NUMBERS_MAX, OK_OCTETS, OK_TEXT, append_field, append_number, hexadecimal,
    short_number,
};

/// The part of a hit's head that is the same for every value for a second: from its date to its entity tag.
pub fn middle(date: &[u8; DATE_BYTES], cache_control: &str) -> Vec<u8> {
    let mut middle = b"\r\nDate: ".to_vec();
    middle.extend_from_slice(date);
    if !cache_control.is_empty() {
        middle.extend_from_slice(b"\r\nCache-Control: ");
        append_field(&mut middle, cache_control);
    }
    middle.extend_from_slice(b"\r\nETag: \"");
    middle
}

/// What differs between the answers to plain hits.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// The bytes.
    pub value: &'a [u8],
    /// Whether they are UTF-8.
    pub utf8: bool,
    /// A hash of them, for the entity tag.
    pub etag: u64,
    /// Seconds until the entry expires.
    pub ttl_secs: u64,
    /// Seconds since the value left Redis.
    pub age_secs: u64,
}

/// How long the head of a hit can be, without its `middle`.
pub const HEAD_BYTES_MAX: usize = 256;

/// What stands between the entity tag and the seconds that are left.
const STATUS: &[u8; 37] = b"\"\r\nCache-Status: nearcache; hit; ttl=";
const AGE: &[u8; 7] = b"\r\nAge: ";

/// Writes the whole answer to a hit in HTTP/1.1 that keeps the connection, has no condition, and may be read by the page
/// that asked: byte for byte what [`super::response::value`] appends, in an eighth of the instructions. `middle` is from
/// [`middle`]. Returns what is left of `out`; `None`: there may be no room for it.
#[inline]
pub fn write<'o>(out: &'o mut [u8], middle: &[u8], hit: &Hit) -> Option<&'o mut [u8]> {
    let value_bytes = hit.value.len() as u64;
    // One look at the room for all that follows. Numbers are short but for very long times to live.
    let room = out.get_mut(..HEAD_BYTES_MAX + middle.len() + hit.value.len())?;
    let len = match value_bytes.max(hit.ttl_secs).max(hit.age_secs) {
        0..NUMBERS_MAX => write_short_numbers(room, middle, hit),
        _ => write_long_numbers(room, middle, hit),
    };
    out.get_mut(len..)
}

#[inline(always)]
fn write_short_numbers(out: &mut [u8], middle: &[u8], hit: &Hit) -> usize {
    let mut at = put(out, 0, if hit.utf8 { OK_TEXT } else { OK_OCTETS });
    at = put_short(out, at, hit.value.len() as u64);
    at = put(out, at, middle);
    at = put(out, at, &hexadecimal(hit.etag));
    at = put(out, at, STATUS);
    at = put_short(out, at, hit.ttl_secs);
    at = put(out, at, AGE);
    at = put_short(out, at, hit.age_secs);
    at = put(out, at, b"\r\n\r\n");
    put(out, at, hit.value)
}

#[inline(always)]
fn put(out: &mut [u8], at: usize, part: &[u8]) -> usize {
    out[at..at + part.len()].copy_from_slice(part);
    at + part.len()
}

/// A number below [`NUMBERS_MAX`]: four bytes are written, and as many of them count as it has digits.
#[inline(always)]
fn put_short(out: &mut [u8], at: usize, number: u64) -> usize {
    let (digits, len) = short_number(number);
    put(out, at, &digits);
    at + len
}

#[cold]
fn write_long_numbers(out: &mut [u8], middle: &[u8], hit: &Hit) -> usize {
    let mut head = if hit.utf8 { OK_TEXT } else { OK_OCTETS }.to_vec();
    append_number(&mut head, hit.value.len() as u64);
    head.extend_from_slice(middle);
    head.extend_from_slice(&hexadecimal(hit.etag));
    head.extend_from_slice(STATUS);
    append_number(&mut head, hit.ttl_secs);
    head.extend_from_slice(AGE);
    append_number(&mut head, hit.age_secs);
    head.extend_from_slice(b"\r\n\r\n");
    let at = put(out, 0, &head);
    put(out, at, hit.value)
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::super::response::{CacheStatus, Envelope, ValueAnswer, value};
    use super::super::route::{Grant, Manner};
    use super::*;

    const DATE: [u8; DATE_BYTES] = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    const ANSWER: ValueAnswer = ValueAnswer {
        envelope: Envelope {
            manner: Manner {
                version: Version::Http11,
                keep_alive: true,
                head_only: false,
                grant: Grant::NotNeeded,
            },
            allow_origin: None,
            date: &DATE,
        },
        utf8: true,
        etag: None,
        if_none_match: None,
        cache_status: CacheStatus::Miss,
        age_secs: None,
        cache_control: "",
    };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn the_quick_way_writes_what_the_long_way_writes() {
        let long = vec![b'v'; 12_345];
        for cache_control in ["no-store", "", "a\nb"] {
            for (bytes, utf8, etag, ttl_secs, age_secs) in [
                (&b""[..], true, 0, 0, 0),
                (b"some value", true, 0x0123_4567_89ab_cdef, 12, 3),
                (b"\xff", false, u64::MAX, 86_400, 86_399),
                (&long, true, 0xf0f0_9a9a_0f0f_a9a9, 9, 10),
            ] {
                let long_answer = ValueAnswer {
                    utf8,
                    etag: Some(etag),
                    cache_status: CacheStatus::Hit { ttl_secs },
                    age_secs: Some(age_secs),
                    cache_control,
                    ..ANSWER
                };
                let short = Hit {
                    value: bytes,
                    utf8,
                    etag,
                    ttl_secs,
                    age_secs,
                };
                let middle = middle(&DATE, cache_control);
                let written_long = written(|out| value(out, &long_answer, bytes));
                let mut room = vec![b'?'; HEAD_BYTES_MAX + middle.len() + bytes.len()];
                let left = write(&mut room, &middle, &short)
                    .expect("there is room")
                    .len();
                let len = room.len() - left;
                assert_eq!(room[..len], written_long);
                room.pop();
                assert!(write(&mut room, &middle, &short).is_none());
            }
        }
    }
}
