//! Answers, as bytes appended to an outbox.
//!
//! Never writes a byte of a peer into a head unless it passed `append_field`, which lets no control byte through, so no
//! value, key or error text can add a field or end the head. Invariant: one call appends one complete head, and
//! the content it announces follows unless the answer has none (HEAD, 304). O(bytes appended), no allocation but the
//! growth of `out`.
#![forbid(unsafe_code)]

use super::Refusal;
use super::head::{IfNoneMatch, Version};
use super::route::Manner;
use std::time::{Duration, UNIX_EPOCH};

/// What a client that expects it is told before it sends its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The length of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// The value of a Date field (RFC 9110 section 5.6.7), for `unix_secs` since 1970. To be made once a second, not per answer.
pub fn date(unix_secs: u64) -> [u8; DATE_BYTES] {
    /// The last second of the year 9999: the format has no fifth digit.
    const LAST: u64 = 253_402_300_799;
    let at = UNIX_EPOCH + Duration::from_secs(unix_secs.min(LAST));
    let text = httpdate::fmt_http_date(at);
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    if text.len() == DATE_BYTES {
        date.copy_from_slice(text.as_bytes());
    }
    date
}

/// What every answer needs to know, whatever it says.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// How the request wants it put.
    pub manner: Manner,
    /// [`super::route::Policy::allow_origin`] of the manner's grant.
    pub allow_origin: Option<&'a str>,
    /// From [`date`].
    pub date: &'a [u8; DATE_BYTES],
}

/// How the cache took part in an answer about a key (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// From memory; it stays there for so long.
    Hit {
        /// Seconds until the entry expires.
        ttl_secs: u64,
    },
    /// Fetched, and now kept.
    Stored,
    /// Fetched, and not kept (an invalidation came in between, or it is too large, or an error).
    NotStored,
    /// Joined a fetch under way.
    Collapsed,
    /// Fetched although it was here, because the request said `no-cache`.
    Forced,
    /// Not looked for here: the cache is off, or the client's own writes go before.
    Bypass,
    /// An entry was here and could not be used.
    Miss,
    /// From memory although it expired, because Redis does not answer.
    Stale {
        /// Seconds since it expired.
        for_secs: u64,
    },
}

/// An answer with the value of a key.
#[derive(Debug, Clone, Copy)]
pub struct ValueAnswer<'a> {
    /// The common part.
    pub envelope: Envelope<'a>,
    /// Whether the value is UTF-8: then it is text, else octets.
    pub utf8: bool,
    /// A hash of the value, for the entity tag.
    pub etag: Option<u64>,
    /// The request's condition; with a tag that it names, the answer is 304.
    pub if_none_match: Option<IfNoneMatch<'a>>,
    /// How the cache took part.
    pub cache_status: CacheStatus,
    /// Seconds since the value left Redis; on hits only.
    pub age_secs: Option<u64>,
    /// The value of Cache-Control, from `HTTP_CACHE_CONTROL`; empty: the field is not sent.
    pub cache_control: &'a str,
}

/// Whether content belongs behind a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Content {
    /// Exactly as many bytes as the head announces.
    Follows,
    /// Nothing: the head is the whole answer.
    Absent,
}

/// Appends the whole answer: its head and, where it belongs, `value`.
pub fn value(out: &mut Vec<u8>, answer: &ValueAnswer, value: &[u8]) {
    if value_head(out, answer, value.len()) == Content::Follows {
        out.extend_from_slice(value);
    }
}

/// Appends the head of an answer whose value has `value_bytes` bytes, for a value that is sent as a segment of its own.
pub fn value_head(out: &mut Vec<u8>, answer: &ValueAnswer, value_bytes: usize) -> Content {
    out.reserve(HEAD_BYTES_USUAL);
    let tag = answer.etag.map(hexadecimal);
    let is_not_modified = matches!((answer.if_none_match, &tag), (Some(condition), Some(tag)) if condition.matches(tag));
    if is_not_modified {
        out.extend_from_slice(
            b"HTTP/1.1 304 Not Modified\r\nX-Content-Type-Options: nosniff\r\nDate: ",
        );
    } else {
        out.extend_from_slice(if answer.utf8 { OK_TEXT } else { OK_OCTETS });
        append_number(out, value_bytes as u64);
        out.extend_from_slice(b"\r\nDate: ");
    }
    out.extend_from_slice(answer.envelope.date);
    if !answer.cache_control.is_empty() {
        out.extend_from_slice(b"\r\nCache-Control: ");
        append_field(out, answer.cache_control);
    }
    if let Some(tag) = &tag {
        out.extend_from_slice(b"\r\nETag: \"");
        out.extend_from_slice(tag);
        out.push(b'"');
    }
    append_cache_status(out, answer.cache_status);
    append_age(out, answer.age_secs);
    end_head(out, &answer.envelope);
    match is_not_modified || answer.envelope.manner.head_only {
        true => Content::Absent,
        false => Content::Follows,
    }
}

/// An answer without a value.
#[derive(Debug, Clone, Copy)]
pub struct ErrorAnswer<'a> {
    /// The status code; one without a row in `reason` is sent as 500.
    pub status: u16,
    /// The body, to which a newline is added. Redis's error texts are passed on as they are.
    pub text: &'a [u8],
    /// Name the allowed methods, as 405 must.
    pub names_methods: bool,
    /// When to come back, as 503 should say.
    pub retry_after_secs: Option<u32>,
    /// How the cache took part, if the answer is about a key.
    pub cache_status: Option<CacheStatus>,
    /// Seconds since Redis said so; on hits only (a key known to be missing).
    pub age_secs: Option<u64>,
}

impl<'a> ErrorAnswer<'a> {
    /// An answer with this status and text and nothing special.
    pub const fn new(status: u16, text: &'a [u8]) -> ErrorAnswer<'a> {
        ErrorAnswer {
            status,
            text,
            names_methods: false,
            retry_after_secs: None,
            cache_status: None,
            age_secs: None,
        }
    }
}

impl From<Refusal> for ErrorAnswer<'static> {
    fn from(refusal: Refusal) -> ErrorAnswer<'static> {
        ErrorAnswer {
            names_methods: refusal.names_methods(),
            ..ErrorAnswer::new(refusal.status(), refusal.text().as_bytes())
        }
    }
}

/// Appends an answer without a value: a small text that ends with a newline, not to be stored by anyone.
pub fn error(out: &mut Vec<u8>, answer: &ErrorAnswer, envelope: &Envelope) {
    out.reserve(HEAD_BYTES_USUAL + answer.text.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    let (status, reason) = reason(answer.status);
    append_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(
        b"\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: ",
    );
    append_number(out, answer.text.len() as u64 + 1);
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(envelope.date);
    out.extend_from_slice(b"\r\nCache-Control: no-store");
    if answer.names_methods {
        out.extend_from_slice(b"\r\nAllow: GET, HEAD");
    }
    if answer.status == 401 {
        // RFC 9110 section 11.6.1: what would be accepted.
        out.extend_from_slice(
            b"\r\nWWW-Authenticate: Basic realm=\"nearcache\", charset=\"UTF-8\"\r\nWWW-Authenticate: Bearer realm=\"nearcache\"",
        );
    }
    if let Some(secs) = answer.retry_after_secs {
        out.extend_from_slice(b"\r\nRetry-After: ");
        append_number(out, u64::from(secs));
    }
    if let Some(status) = answer.cache_status {
        append_cache_status(out, status);
    }
    append_age(out, answer.age_secs);
    end_head(out, envelope);
    if !envelope.manner.head_only {
        out.extend_from_slice(answer.text);
        out.push(b'\n');
    }
}

/// The status for an error that Redis answered a read with; `text` begins with Redis's code. 409: the key holds no
/// string. 503: Redis will be able to answer later. 502: all others.
pub fn status_for_redis_error(text: &[u8]) -> u16 {
    match text.split(|&byte| byte == b' ').next() {
        Some(b"WRONGTYPE") => 409,
        Some(b"LOADING" | b"BUSY" | b"MASTERDOWN") => 503,
        _ => 502,
    }
}

/// Room for a head in one growth of the outbox; most take about 300 bytes.
const HEAD_BYTES_USUAL: usize = 384;

pub(super) const OK_TEXT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
    X-Content-Type-Options: nosniff\r\nContent-Length: ";
pub(super) const OK_OCTETS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
    X-Content-Type-Options: nosniff\r\nContent-Length: ";

/// The statuses that are ever sent. One that is not ours becomes 500, so that the status line is always well formed.
fn reason(status: u16) -> (u16, &'static str) {
    let text = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => return (500, "Internal Server Error"),
    };
    (status, text)
}

/// The fields that depend on the connection, and the empty line.
fn end_head(out: &mut Vec<u8>, envelope: &Envelope) {
    if let Some(origin) = envelope.allow_origin {
        // Caches must not give an answer made for one origin to another (Fetch standard, "CORS protocol and HTTP caches").
        out.extend_from_slice(b"\r\nAccess-Control-Allow-Origin: ");
        append_field(out, origin);
        out.extend_from_slice(b"\r\nVary: Origin");
    }
    out.extend_from_slice(
        match (envelope.manner.keep_alive, envelope.manner.version) {
            (true, Version::Http11) => b"\r\n\r\n",
            (true, Version::Http10) => b"\r\nConnection: keep-alive\r\n\r\n",
            (false, _) => b"\r\nConnection: close\r\n\r\n",
        },
    );
}

fn append_cache_status(out: &mut Vec<u8>, status: CacheStatus) {
    out.extend_from_slice(b"\r\nCache-Status: nearcache; ");
    let fixed: &[u8] = match status {
        CacheStatus::Hit { ttl_secs } => {
            out.extend_from_slice(b"hit; ttl=");
            return append_number(out, ttl_secs);
        }
        // RFC 9211 section 2.4: a negative ttl says since when the response is stale.
        CacheStatus::Stale { for_secs } => {
            out.extend_from_slice(b"hit; ttl=-");
            return append_number(out, for_secs);
        }
        CacheStatus::Stored => b"fwd=uri-miss; stored",
        CacheStatus::NotStored => b"fwd=uri-miss",
        CacheStatus::Collapsed => b"fwd=uri-miss; collapsed",
        CacheStatus::Forced => b"fwd=request",
        CacheStatus::Bypass => b"fwd=bypass",
        CacheStatus::Miss => b"fwd=miss",
    };
    out.extend_from_slice(fixed);
}

fn append_age(out: &mut Vec<u8>, age_secs: Option<u64>) {
    if let Some(secs) = age_secs {
        out.extend_from_slice(b"\r\nAge: ");
        append_number(out, secs);
    }
}

/// Appends text as part of a field's value: control bytes become spaces, so it stays within its line.
pub(super) fn append_field(out: &mut Vec<u8>, text: &str) {
    let at = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in &mut out[at..] {
        if *byte < b' ' || *byte == 0x7f {
            *byte = b' ';
        }
    }
}

/// Numbers below this are written from a table.
pub(super) const NUMBERS_MAX: u64 = 10_000;

/// The digits of each, from the left. 40 KB, of which the lines of the few lengths and ages in use are in the caches.
static NUMBERS: [[u8; 4]; NUMBERS_MAX as usize] = {
    let mut numbers = [[b'0'; 4]; NUMBERS_MAX as usize];
    let mut number = 0;
    while number < numbers.len() {
        let len = digits_of(number as u64);
        let (mut at, mut rest) = (len, number);
        while at > 0 {
            at -= 1;
            numbers[number][at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        number += 1;
    }
    numbers
};

/// How many digits a number below [`NUMBERS_MAX`] has.
#[inline(always)]
const fn digits_of(number: u64) -> usize {
    1 + (number >= 10) as usize + (number >= 100) as usize + (number >= 1000) as usize
}

/// The digits of a number below [`NUMBERS_MAX`], and how many of them count.
#[inline(always)]
pub(super) fn short_number(number: u64) -> ([u8; 4], usize) {
    (NUMBERS[number as usize], digits_of(number))
}

/// Nearly all numbers in heads are short.
#[inline]
pub(super) fn append_number(out: &mut Vec<u8>, number: u64) {
    if number >= NUMBERS_MAX {
        return append_long_number(out, number);
    }
    let (digits, len) = short_number(number);
    let end = out.len() + len;
    out.extend_from_slice(&digits);
    out.truncate(end);
}

#[cold]
fn append_long_number(out: &mut Vec<u8>, number: u64) {
    /// `u64::MAX` has 20 digits.
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Two digits for each byte.
static PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The opaque part of an entity tag: a load and a store for each byte of the hash.
#[inline(always)]
pub(super) fn hexadecimal(hash: u64) -> [u8; 16] {
    let mut text = [[0; 2]; 8];
    for (pair, byte) in text.iter_mut().zip(hash.to_be_bytes()) {
        *pair = PAIRS[usize::from(byte)];
    }
    *text.as_flattened().first_chunk().expect("eight pairs")
}

#[cfg(test)]
mod tests {
    use super::super::route::{Grant, Policy, Route, route};
    use super::super::{Limits, RequestParser, Step};
    use super::*;

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const KEPT: Manner = Manner {
        version: Version::Http11,
        keep_alive: true,
        head_only: false,
        grant: Grant::NotNeeded,
    };
    const HIT: ValueAnswer = ValueAnswer {
        envelope: Envelope {
            manner: KEPT,
            allow_origin: None,
            date: DATE,
        },
        utf8: true,
        etag: Some(0x0123_4567_89ab_cdef),
        if_none_match: None,
        cache_status: CacheStatus::Hit { ttl_secs: 12 },
        age_secs: Some(3),
        cache_control: "no-store",
    };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before|".to_vec();
        write(&mut out);
        String::from_utf8_lossy(&out)
            .strip_prefix("before|")
            .expect("writers append")
            .to_owned()
    }

    fn of_value(answer: ValueAnswer) -> String {
        written(|out| value(out, &answer, b"some value"))
    }

    #[test]
    fn a_hit_is_written_as_the_rfcs_say() {
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
            Content-Length: 10\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\n\
            ETag: \"0123456789abcdef\"\r\nCache-Status: nearcache; hit; ttl=12\r\nAge: 3\r\n\r\nsome value";
        assert_eq!(of_value(HIT), expected);
        let head = expected.strip_suffix("some value").unwrap_or_default();
        let envelope = Envelope {
            manner: Manner {
                head_only: true,
                ..KEPT
            },
            ..HIT.envelope
        };
        assert_eq!(of_value(ValueAnswer { envelope, ..HIT }), head);
        assert_eq!(
            written(|out| assert_eq!(value_head(out, &HIT, 10), Content::Follows)),
            head
        );
        let octets = expected.replace("text/plain; charset=utf-8", "application/octet-stream");
        assert_eq!(of_value(ValueAnswer { utf8: false, ..HIT }), octets);
    }

    #[test]
    fn entity_tags_are_the_hash_in_hexadecimal() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..1000 {
            let hash = rng.u64(..);
            assert_eq!(hexadecimal(hash), format!("{hash:016x}").as_bytes());
        }
    }

    #[test]
    fn every_way_through_the_cache_has_its_own_status() {
        for (status, expected) in [
            (CacheStatus::Hit { ttl_secs: 0 }, "hit; ttl=0"),
            (CacheStatus::Stored, "fwd=uri-miss; stored"),
            (CacheStatus::NotStored, "fwd=uri-miss"),
            (CacheStatus::Collapsed, "fwd=uri-miss; collapsed"),
            (CacheStatus::Forced, "fwd=request"),
            (CacheStatus::Bypass, "fwd=bypass"),
            (CacheStatus::Miss, "fwd=miss"),
            (CacheStatus::Stale { for_secs: 7 }, "hit; ttl=-7"),
        ] {
            let answer = of_value(ValueAnswer {
                cache_status: status,
                age_secs: None,
                ..HIT
            });
            assert!(
                answer.contains(&format!("\r\nCache-Status: nearcache; {expected}\r\n")),
                "{answer}"
            );
            assert!(!answer.contains("Age:"), "{answer}");
        }
    }

    #[test]
    fn the_connection_field_follows_the_version_and_the_wish() {
        let with = |version, keep_alive| {
            let envelope = Envelope {
                manner: Manner {
                    version,
                    keep_alive,
                    ..KEPT
                },
                ..HIT.envelope
            };
            let answer = of_value(ValueAnswer { envelope, ..HIT });
            answer
                .lines()
                .find(|line| line.starts_with("Connection"))
                .map(str::to_owned)
        };
        assert_eq!(with(Version::Http11, true), None);
        assert_eq!(
            with(Version::Http11, false).as_deref(),
            Some("Connection: close")
        );
        assert_eq!(
            with(Version::Http10, true).as_deref(),
            Some("Connection: keep-alive")
        );
        assert_eq!(
            with(Version::Http10, false).as_deref(),
            Some("Connection: close")
        );
    }

    #[test]
    fn a_condition_that_names_the_value_is_answered_304() {
        let answer_to = |fields: &str| {
            let input = format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let Step::Request { request, .. } =
                RequestParser::new().next(input.as_bytes(), &Limits::DEFAULT)
            else {
                panic!("not a request: {input}")
            };
            let mut scratch = Vec::new();
            match route(&request, &Policy::default(), &mut scratch) {
                Route::Get { if_none_match, .. } => of_value(ValueAnswer {
                    if_none_match,
                    ..HIT
                }),
                Route::Answer { refusal, .. } => panic!("{refusal:?}"),
            }
        };
        let not_modified = "HTTP/1.1 304 Not Modified\r\nX-Content-Type-Options: nosniff\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\nETag: \"0123456789abcdef\"\r\n\
            Cache-Status: nearcache; hit; ttl=12\r\nAge: 3\r\n\r\n";
        for fields in [
            "If-None-Match: \"0123456789abcdef\"\r\n",
            "If-None-Match: W/\"0123456789abcdef\"\r\n",
            "If-None-Match: *\r\n",
            "If-None-Match: \"a\", \"b,c\" ,,W/\"0123456789abcdef\", \"d\"\r\n",
            "If-None-Match: \"a\"\r\nX: \"y\"\r\nif-none-match: \"0123456789abcdef\"\r\n",
            "If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\nIf-None-Match:\t*\r\n",
        ] {
            assert_eq!(answer_to(fields), not_modified, "{fields}");
        }
        for fields in [
            "",
            "If-None-Match:\r\n",
            "If-None-Match: \"0123456789abcde\"\r\n",
            "If-None-Match: 0123456789abcdef\r\n",
            "If-None-Match: w/\"0123456789abcdef\"\r\n",
            "If-None-Match: \"0123456789abcdef\r\n",
            "If-None-Match: \"a, \"0123456789abcdef\"\r\n",
            "If-None-Match: \"a\"\r\nX-If-None-Match: \"0123456789abcdef\"\r\n",
            "If-None-Match: \"a\"\r\nX: \"0123456789abcdef\"\r\nIf-None-Match: \"b\"\r\n",
            "If-Match: *\r\n",
        ] {
            assert!(
                answer_to(fields).starts_with("HTTP/1.1 200 OK\r\n"),
                "{fields}"
            );
        }
    }

    #[test]
    fn errors_are_small_texts_that_nobody_stores() {
        let answer = written(|out| error(out, &Refusal::MethodNotAllowed.into(), &HIT.envelope));
        assert_eq!(
            answer,
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: 36\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Cache-Control: no-store\r\nAllow: GET, HEAD\r\n\r\nmethod not allowed: use GET or HEAD\n"
        );
        let answer = ErrorAnswer {
            retry_after_secs: Some(1),
            cache_status: Some(CacheStatus::NotStored),
            ..ErrorAnswer::new(503, b"LOADING Redis is loading")
        };
        let envelope = Envelope {
            manner: Manner::closing(true),
            ..HIT.envelope
        };
        assert_eq!(
            written(|out| error(out, &answer, &envelope)),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: 25\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Cache-Control: no-store\r\nRetry-After: 1\r\nCache-Status: nearcache; fwd=uri-miss\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn an_empty_cache_control_is_not_sent() {
        let answer = of_value(ValueAnswer {
            cache_control: "",
            ..HIT
        });
        assert!(!answer.contains("Cache-Control"), "{answer}");
    }

    #[test]
    fn configured_and_foreign_texts_stay_within_their_line() {
        let envelope = Envelope {
            allow_origin: Some("https://a\r\nX: 1"),
            ..HIT.envelope
        };
        let answer = of_value(ValueAnswer {
            envelope,
            cache_control: "a\nb\0c\x7fd",
            ..HIT
        });
        assert!(
            answer.contains("\r\nCache-Control: a b c d\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("\r\nAccess-Control-Allow-Origin: https://a  X: 1\r\nVary: Origin\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn redis_errors_become_statuses_by_their_code() {
        for (text, expected) in [
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                409,
            ),
            ("LOADING Redis is loading the dataset in memory", 503),
            ("BUSY Redis is busy running a script", 503),
            ("MASTERDOWN Link with MASTER is down", 503),
            ("NOAUTH Authentication required.", 502),
            ("ERR something", 502),
            ("BUSYGROUP x", 502),
            ("", 502),
        ] {
            assert_eq!(status_for_redis_error(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn dates_are_of_fixed_length_for_ever() {
        assert_eq!(&date(784_111_777), DATE);
        assert_eq!(&date(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 12_345, u64::MAX] {
            assert_eq!(
                written(|out| append_number(out, number)),
                number.to_string()
            );
        }
    }
}
