//! A head that was understood before: of a client's requests for keys most differ in nothing but the key.
//!
//! ```text
//!  GET /get?key=name HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n
//!  └ always ────┘└──┘└ tail ─────────────────────────────────┘
//! ```
//! When the tail is, byte for byte, that of a request that was understood and asked for nothing special, and the key
//! needs no decoding, then the whole request means what that one meant, for another key. So it is neither scanned nor
//! parsed: one look at each byte of the key and one comparison, a ninth of the instructions of the long way.
//!
//! The same holds when the tail differs only in the values of fields that tell us nothing (User-Agent, a trace's or a
//! request's number, cookies): such a field means nothing whatever its value is, if that is a well-formed one. It costs
//! one look at each byte of those values more: 270 instructions for a head of five lines, where the long way takes 2,900.
//!
//! It never takes a request that the long way would refuse or understand differently: whatever is not exactly so is left
//! to [`super::RequestParser`]. Invariant: the tail holds a version, all fields and the empty line, and nothing else.
#![forbid(unsafe_code)]

use super::head::{self, Method, Request, Version};
use super::route::{self, Grant, Manner, Policy};
use super::{Limits, RequestParser, Step, octets};
use std::ops::Range;

/// What stands before the key.
const BEGINNING: &[u8; 13] = b"GET /get?key=";
/// Longer tails are not remembered: browsers send up to about this much.
const TAIL_BYTES_MAX: usize = 1024;
/// Tails with other values than the known may be longer, up to this: far below the limit on all fields.
const VARIED_BYTES_MAX: usize = 4 * TAIL_BYTES_MAX;
const _: () = assert!(2 * VARIED_BYTES_MAX <= Limits::DEFAULT.fields_bytes_max);
/// Keys above this take the long way: far below the limit on a request line.
const KEY_BYTES_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct KnownHead {
    /// From the space behind the target to the end of the head. Empty: none is known.
    tail: Vec<u8>,
    /// Where in the tail the values are that may be others, from behind the colon to the end of the line.
    values: Vec<Range<usize>>,
    /// The last that was studied was not plain: not worth another study before a plain one has come the long way.
    is_barren: bool,
}

impl KnownHead {
    /// Remembers the head of `request` if what is special about it is the key alone. `message` are its bytes, the body
    /// included; `manner` is how it is answered.
    pub fn learn(&mut self, message: &[u8], request: &Request, manner: Manner) {
        let is_plain = request.method == Method::Get
            && request.version == Version::Http11
            && request.keep_alive
            && !request.no_cache
            && request.if_none_match.is_none()
            && manner.grant == Grant::NotNeeded
            && message.len() == request.head_bytes;
        let Some(rest) = message.strip_prefix(BEGINNING).filter(|_| is_plain) else {
            return;
        };
        let tail = &rest[plain_bytes(rest)..];
        if tail.first() != Some(&b' ') || tail.len() > TAIL_BYTES_MAX {
            return;
        }
        self.is_barren = false;
        if tail != self.tail {
            self.tail.clear();
            self.tail.extend_from_slice(tail);
            self.values.clear();
            let values = inert_values(tail).map(|value| place_in(tail, value));
            self.values.extend(values);
        }
    }

    /// Understands the request at the beginning of `buf` and remembers its head, if what is special about it is the key
    /// alone; whether it is. Where heads differ from request to request this is half the way that is long.
    #[inline(never)]
    pub fn study(&mut self, buf: &[u8], limits: &Limits, policy: &Policy) -> bool {
        if self.is_barren || !buf.starts_with(BEGINNING) {
            return false;
        }
        let Step::Request { request, used } = RequestParser::new().next(buf, limits) else {
            return false;
        };
        self.is_barren = true;
        if let Some(manner) = route::manner(&request, policy) {
            self.learn(&buf[..used], &request, manner);
        }
        !self.is_barren && self.get_at_start(buf).is_some()
    }

    /// The key of the request that `buf` is from its beginning to its end, if all but the key is known. As [`KnownHead::get_at_start`] but without a search for the key's end: the tail begins with a space, which
    /// may not stand in a key.
    #[inline(always)]
    pub fn only<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        let key = buf.strip_prefix(BEGINNING)?.strip_suffix(&self.tail[..])?;
        let is_known = !self.tail.is_empty() && key.len() <= KEY_BYTES_MAX;
        (is_known && octets::all_plain(key)).then_some(key)
    }

    /// The key and the length of the request at the beginning of `buf`, if it is one like the one that is known. It asks
    /// with GET in HTTP/1.1, keeps the connection, has no body and no condition, and comes of no foreign page. `None` says
    /// nothing else.
    #[inline(always)]
    pub fn get_at_start<'b>(&self, buf: &'b [u8]) -> Option<(&'b [u8], usize)> {
        let rest = buf.strip_prefix(BEGINNING)?;
        let key_bytes = plain_bytes(rest);
        let (key, behind) = rest.split_at(key_bytes);
        if self.tail.is_empty() {
            return None;
        }
        let tail_bytes = match behind.starts_with(&self.tail) {
            true => self.tail.len(),
            false => self.varied_at_start(behind)?,
        };
        Some((key, BEGINNING.len() + key_bytes + tail_bytes))
    }

    /// How long the tail at the beginning of `bytes` is if it is the known one but for values that tell nothing.
    #[inline(never)]
    fn varied_at_start(&self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut known_at) = (0, 0);
        for value in &self.values {
            let fixed = &self.tail[known_at..value.start];
            let rest = bytes.get(at..)?.strip_prefix(fixed)?;
            // What ends the value is compared as the beginning of what follows: CR, LF, and no blank behind them.
            let value_bytes = octets::first_unusual(&rest[..rest.len().min(VARIED_BYTES_MAX)])?;
            at += fixed.len() + value_bytes;
            known_at = value.end;
        }
        let fixed = &self.tail[known_at..];
        let is_known = known_at > 0 && bytes.get(at..)?.starts_with(fixed);
        let tail_bytes = at + fixed.len();
        (is_known && tail_bytes <= VARIED_BYTES_MAX).then_some(tail_bytes)
    }
}

/// The values of the fields in `tail` (which begins with a version) that tell us nothing, with the blanks around them.
fn inert_values(tail: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = tail.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        (!head::is_telling(&line[..colon])).then_some(&line[colon + 1..])
    })
}

/// Where `part` is, a slice of `whole`.
fn place_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// How many bytes at the start of `bytes` may stand in a query and stand for themselves there.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    let seen = &bytes[..bytes.len().min(KEY_BYTES_MAX)];
    let (eights, _) = seen.as_chunks::<8>();
    let whole = eights
        .iter()
        .take_while(|eight| octets::all(*eight, octets::PLAIN))
        .count();
    let rest = &seen[8 * whole..];
    let more = rest
        .iter()
        .position(|&byte| !octets::is(byte, octets::PLAIN));
    8 * whole + more.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::route::{Route, route};
    use super::*;

    const FIELDS: &str = "Host: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";

    /// What the long way makes of a message: the key, if it is a plain GET of one.
    fn learnt(known: &mut KnownHead, message: &str) -> Option<Vec<u8>> {
        let Step::Request { request, used } =
            RequestParser::new().next(message.as_bytes(), &Limits::DEFAULT)
        else {
            return None;
        };
        let mut scratch = Vec::new();
        match route(&request, &Policy::default(), &mut scratch) {
            Route::Get { key, manner, .. } => {
                known.learn(&message.as_bytes()[..used], &request, manner);
                Some(key.to_vec())
            }
            Route::Answer { .. } => None,
        }
    }

    fn known() -> KnownHead {
        let mut known = KnownHead::default();
        let message = format!("GET /get?key=first HTTP/1.1\r\n{FIELDS}");
        assert_eq!(
            known.get_at_start(message.as_bytes()),
            None,
            "nothing is known"
        );
        assert_eq!(
            known.only(b"GET /get?key=first"),
            None,
            "nor that there is nothing"
        );
        assert!(learnt(&mut known, &message).is_some());
        known
    }

    #[test]
    fn a_request_that_differs_in_its_key_alone_is_known() {
        let known = known();
        for key in ["k", "first", "user:1000", "a=b?c/d@e,f;g(h)*'!$[0]~-._"] {
            let message = format!("GET /get?key={key} HTTP/1.1\r\n{FIELDS}");
            let expected = Some((key.as_bytes(), message.len()));
            assert_eq!(known.get_at_start(message.as_bytes()), expected);
            let only = known.only(message.as_bytes());
            assert_eq!(only, Some(key.as_bytes()));
            for behind in ["GET /", &message] {
                let pipelined = format!("{message}{behind}");
                assert_eq!(known.get_at_start(pipelined.as_bytes()), expected);
                assert_eq!(known.only(pipelined.as_bytes()), None);
            }
            for cut in 0..message.len() {
                assert_eq!(known.get_at_start(&message.as_bytes()[..cut]), None);
                assert_eq!(known.only(&message.as_bytes()[..cut]), None);
            }
        }
    }

    #[test]
    fn whatever_the_known_way_takes_the_long_way_reads_in_the_same_manner() {
        let known = known();
        let good = format!("GET /get?key=name HTTP/1.1\r\n{FIELDS}");
        let mut taken = 0;
        // Every byte in every place: mostly refused or left to the long way, and never read in two ways.
        for at in 0..good.len() {
            for byte in 0..=127u8 {
                let mut message = good.clone().into_bytes();
                message[at] = byte;
                let found = known.get_at_start(&message);
                if let Some(key) = known.only(&message) {
                    assert_eq!(Some((key, message.len())), found);
                }
                let Some((key, used)) = found else {
                    continue;
                };
                taken += 1;
                let text = String::from_utf8(message.clone()).expect("ASCII");
                let long = learnt(&mut KnownHead::default(), &text);
                assert_eq!((Some(key.to_vec()), used), (long, message.len()), "{text}");
            }
        }
        assert!(taken > 4 * 60, "{taken}");
    }

    #[test]
    fn values_that_tell_nothing_may_be_any_well_formed_ones() {
        let known = known();
        let is_known = |fields: &str| {
            let message = format!("GET /get?key=k HTTP/1.1\r\n{fields}\r\n");
            let found = known.get_at_start(message.as_bytes());
            let mut long = KnownHead::default();
            let read = learnt(&mut long, &message).map(|key| (key, message.len()));
            let found = found.map(|(key, used)| (key.to_vec(), used));
            assert!(found.is_none() || found == read, "{message}");
            found.is_some()
        };
        for agent in [
            "",
            " ",
            "x",
            " a longer agent than the one before: 7",
            " \u{e9}\u{ff}",
        ] {
            for accept in [" */*", "text/html", ""] {
                let fields =
                    format!("Host: localhost\r\nUser-Agent:{agent}\r\nAccept:{accept}\r\n");
                assert!(is_known(&fields), "{fields}");
            }
        }
        for other in [
            "Host: localhosT\r\nUser-Agent: test\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-agent: test\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: te\x7fst\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: te\x01st\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: te\rst\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: test\r\n\tfolded\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: test\r\nConnection: close\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: test\r\nAccept: */*\r\nContent-Length: 1\r\n",
            "Host: localhost\r\nUser-Agent: test\r\n\r\nAccept: */*\r\n",
            "Host: localhost\r\nAccept: */*\r\n",
        ] {
            assert!(!is_known(other), "{other}");
        }
        // The longest key goes either way, a longer one neither.
        for len in [KEY_BYTES_MAX, KEY_BYTES_MAX + 1] {
            let message = format!("GET /get?key={} HTTP/1.1\r\n{FIELDS}", "k".repeat(len));
            let is_short = len == KEY_BYTES_MAX;
            assert_eq!(known.only(message.as_bytes()).is_some(), is_short);
            assert_eq!(known.get_at_start(message.as_bytes()).is_some(), is_short);
        }
        let long = "x".repeat(VARIED_BYTES_MAX);
        assert!(!is_known(&format!(
            "Host: localhost\r\nUser-Agent: {long}\r\nAccept: */*\r\n"
        )));
    }

    #[test]
    fn what_asks_for_more_than_a_key_is_not_learnt() {
        for message in [
            "GET /get?key=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET /get?key=a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET /get?key=a HTTP/1.1\r\nHost: h\r\nCache-Control: no-cache\r\n\r\n",
            "GET /get?key=a HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n",
            "GET /get?key=a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
            "GET /get?key=a&b=c HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /get?key=a%20b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/get?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
            "HEAD /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            let mut known = KnownHead::default();
            assert!(learnt(&mut known, message).is_some(), "{message}");
            assert_eq!(known.get_at_start(message.as_bytes()), None, "{message}");
            let bytes = message.as_bytes();
            assert!(!known.study(bytes, &Limits::DEFAULT, &Policy::default()));
            assert_eq!(known.get_at_start(bytes), None, "{message}");
        }
    }

    #[test]
    fn a_plain_head_is_understood_at_first_sight_and_others_only_once() {
        let study = |known: &mut KnownHead, message: &str| {
            known.study(message.as_bytes(), &Limits::DEFAULT, &Policy::default())
        };
        let plain = format!("GET /get?key=k HTTP/1.1\r\n{FIELDS}");
        let foreign = format!("GET /get?key=k HTTP/1.1\r\nOrigin: http://evil\r\n{FIELDS}");
        let mut known = KnownHead::default();
        assert!(!study(&mut known, &plain[..plain.len() - 1]), "incomplete");
        assert!(study(&mut known, &plain));
        assert!(known.get_at_start(plain.as_bytes()).is_some());
        assert!(!study(&mut known, &foreign));
        assert_eq!(known.get_at_start(foreign.as_bytes()), None);
        assert!(
            !study(&mut known, &plain),
            "the long way has to show that it pays"
        );
        assert!(learnt(&mut known, &plain).is_some());
        assert!(study(&mut known, &plain));
    }
}
