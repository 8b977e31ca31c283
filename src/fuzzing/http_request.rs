//! The body of the fuzz target `http_request`: any bytes, taken for what a client sends to the HTTP port.
//!
//! What must hold for all of them: however they are cut, the same requests and the same refusal come out; each request
//! is the same when it stands alone, and whatever stands behind it (its end never moves); the number of bytes looked at
//! is linear; nothing follows a refusal; and no answer has a field or a length that a peer's bytes chose.
#![forbid(unsafe_code)]

use crate::protocol::http::response::{self, CacheStatus, Envelope, ErrorAnswer, ValueAnswer};
use crate::protocol::http::route::{Manner, Origins, Policy, Route, route};
use crate::protocol::http::{Limits, Refusal, Request, RequestParser, Step};

/// One answer of the parser, with its place in all bytes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'d> {
    /// A request, from the first byte of its line to the end of its body.
    Request {
        /// The request.
        request: Request<'d>,
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// Bytes between requests.
    Skipped {
        /// Where they end.
        end: usize,
    },
    /// The client waits for 100 Continue.
    Expect100,
    /// The end of all parsing.
    Bad {
        /// Why.
        refusal: Refusal,
        /// Its answer has no content.
        head_only: bool,
    },
}

/// A connection played to the parser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace<'d> {
    /// What came out.
    pub events: Vec<Event<'d>>,
    /// How many bytes were looked at, those looked at twice counted twice.
    pub looks: u64,
}

/// Plays `data` to a fresh parser, in pieces of the lengths that `pieces` yields; when it ends, the rest at once.
pub fn replay<'d>(
    data: &'d [u8],
    limits: &Limits,
    pieces: impl IntoIterator<Item = usize>,
) -> Trace<'d> {
    let mut parser = RequestParser::new();
    let mut trace = Trace::default();
    let mut pieces = pieces.into_iter();
    let (mut consumed, mut arrived) = (0, 0);
    loop {
        loop {
            let unconsumed = &data[consumed..arrived];
            match parser.next_counting(unconsumed, limits, &mut trace.looks) {
                Step::Request { request, used } => {
                    assert!(used <= unconsumed.len() && request.head_bytes <= used && used > 0);
                    trace.events.push(Event::Request {
                        request,
                        start: consumed,
                        end: consumed + used,
                    });
                    consumed += used;
                    assert_eq!(parser.is_closed(), !request.keep_alive);
                }
                Step::Skipped { used } => {
                    assert!(used <= unconsumed.len() && used > 0);
                    consumed += used;
                    trace.events.push(Event::Skipped { end: consumed });
                }
                Step::Expect100 => trace.events.push(Event::Expect100),
                Step::Bad { refusal, head_only } => {
                    assert!(parser.is_closed());
                    trace.events.push(Event::Bad { refusal, head_only });
                }
                Step::More => break,
            }
        }
        assert!(
            parser.is_closed() || arrived - consumed <= limits.message_bytes_max(),
            "an inbox of message_bytes_max stands still"
        );
        if arrived == data.len() {
            return trace;
        }
        let piece = pieces.next().unwrap_or(usize::MAX).max(1);
        arrived = arrived.saturating_add(piece).min(data.len());
    }
}

/// Limits so small that inputs of a fuzzer reach them.
pub const LIMITS_TINY: Limits = Limits {
    line_bytes_max: 40,
    fields_bytes_max: 80,
    fields_max: 4,
    body_bytes_max: 20,
    chunk_overhead_bytes_max: 40,
    empty_lines_max: 2,
};

/// Checks all that the module promises for `data`; panics where it does not hold.
pub fn run(data: &[u8]) {
    for limits in [Limits::DEFAULT, LIMITS_TINY] {
        let whole = replay(data, &limits, []);
        check_looks(&whole, data.len());
        check_ends(&whole, data, &limits);

        let single = replay(data, &limits, std::iter::repeat_n(1, data.len()));
        assert_eq!(single.events, whole.events, "byte by byte");
        check_looks(&single, data.len());

        let mut state = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            mix(hash ^ u64::from(byte))
        });
        let cut = replay(
            data,
            &limits,
            std::iter::from_fn(|| {
                state = mix(state);
                Some(1 + (state >> 60) as usize)
            }),
        );
        assert_eq!(cut.events, whole.events, "cut at random");
        check_looks(&cut, data.len());

        for event in &whole.events {
            match event {
                Event::Request { request, .. } => check_answers(request, data),
                Event::Bad { refusal, head_only } => {
                    check_error(
                        &ErrorAnswer::from(*refusal),
                        Manner::closing(*head_only),
                        None,
                    );
                }
                _ => {}
            }
        }
    }
}

fn mix(state: u64) -> u64 {
    (state ^ (state >> 29))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(17)
}

/// Six looks per byte: two of the scan (which takes eight bytes a step and begins anew on each line), one of the
/// request line's check, two of httparse (again when the body is complete), one for a CR seen before its LF.
fn check_looks(trace: &Trace, bytes: usize) {
    assert!(
        trace.looks <= 6 * bytes as u64 + 16,
        "{} looks at {bytes} bytes",
        trace.looks
    );
}

/// Events in order, nothing behind a refusal or a close, and each message the same without its neighbours.
fn check_ends(trace: &Trace, data: &[u8], limits: &Limits) {
    let mut at = 0;
    for (n, event) in trace.events.iter().enumerate() {
        let is_last = n + 1 == trace.events.len();
        match *event {
            Event::Skipped { end } => {
                assert_eq!(&data[at..end], b"\r\n");
                at = end;
            }
            Event::Expect100 => {}
            Event::Bad { .. } => assert!(is_last, "something follows a refusal"),
            Event::Request {
                request,
                start,
                end,
            } => {
                assert_eq!(start, at, "bytes between requests belong to nobody");
                assert!(
                    is_last || request.keep_alive,
                    "something follows the last request"
                );
                let alone = replay(&data[start..end], limits, []);
                let expected = Event::Request {
                    request,
                    start: 0,
                    end: end - start,
                };
                assert_eq!(
                    alone.events.last(),
                    Some(&expected),
                    "a message depends on its neighbours"
                );
                let mut other = data[start..end].to_vec();
                other.extend_from_slice(b"\0\n\0");
                let other = replay(&other, limits, []);
                assert!(
                    other.events.contains(&expected),
                    "what stands behind a message moves its end"
                );
                at = end;
            }
        }
    }
}

/// Routes the request and writes the answers it could get, with values that the peer chose.
fn check_answers(request: &Request, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let policy = Policy {
        origins: Origins::Listed(vec![text.to_string()]),
        hosts: Vec::new(),
        credentials: None,
    };
    let mut scratch = Vec::new();
    match route(request, &policy, &mut scratch) {
        Route::Answer { refusal, manner } => check_error(&ErrorAnswer::from(refusal), manner, None),
        Route::Get {
            key,
            if_none_match,
            manner,
            ..
        } => {
            let bytes = data.len() as u64;
            let answer = ErrorAnswer {
                status: (bytes % 600) as u16,
                retry_after_secs: Some(1),
                cache_status: Some(CacheStatus::Hit { ttl_secs: bytes }),
                age_secs: Some(bytes),
                ..ErrorAnswer::new(0, key)
            };
            check_error(&answer, manner, Some(&text));
            let value = ValueAnswer {
                envelope: Envelope {
                    manner,
                    allow_origin: Some(&text),
                    date: &response::date(bytes),
                },
                utf8: bytes.is_multiple_of(2),
                etag: Some(0),
                if_none_match,
                cache_status: CacheStatus::Stale { for_secs: bytes },
                age_secs: None,
                cache_control: &text,
            };
            check_value(&value, data);
        }
    }
}

fn check_value(answer: &ValueAnswer, value: &[u8]) {
    let mut out = Vec::new();
    response::value(&mut out, answer, value);
    let (status, fields, content) = take_apart(&out);
    let is_head = answer.envelope.manner.head_only;
    if status == 304 {
        assert!(answer.if_none_match.is_some() && content.is_empty());
        assert_eq!(fields, 7 + connection_fields(answer.envelope.manner));
    } else {
        assert_eq!(
            (status, content),
            (200, if is_head { &[][..] } else { value })
        );
        assert_eq!(fields, 9 + connection_fields(answer.envelope.manner));
    }
}

fn check_error(answer: &ErrorAnswer, manner: Manner, allow_origin: Option<&str>) {
    let mut out = Vec::new();
    response::error(
        &mut out,
        answer,
        &Envelope {
            manner,
            allow_origin,
            date: &response::date(0),
        },
    );
    let (_, fields, content) = take_apart(&out);
    let expected = if manner.head_only {
        Vec::new()
    } else {
        [answer.text, b"\n"].concat()
    };
    assert_eq!(content, expected);
    let optional = [
        answer.names_methods,
        answer.retry_after_secs.is_some(),
        answer.cache_status.is_some(),
        answer.age_secs.is_some(),
        allow_origin.is_some(),
        allow_origin.is_some(),
    ];
    let optional = optional.into_iter().filter(|&is_there| is_there).count();
    assert_eq!(fields, 5 + optional + connection_fields(manner));
}

fn connection_fields(manner: Manner) -> usize {
    use crate::protocol::http::Version;
    usize::from(!manner.keep_alive || manner.version == Version::Http10)
}

/// Reads an answer as a client would: its status, how many fields it has, its content.
fn take_apart(answer: &[u8]) -> (u16, usize, &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head
        .parse(answer)
        .expect("an answer has a well-formed head");
    let httparse::Status::Complete(head_bytes) = parsed else {
        panic!("an answer has a complete head")
    };
    for header in head.headers.iter() {
        assert!(
            header
                .value
                .iter()
                .all(|byte| *byte >= b' ' && *byte != 0x7f),
            "{header:?}"
        );
    }
    (
        head.code.expect("a complete head has a status"),
        head.headers.len(),
        &answer[head_bytes..],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn corpus() -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http_request");
        let entries = std::fs::read_dir(&dir).expect("the corpus is part of the repository");
        let mut paths: Vec<_> = entries
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| std::fs::read(path).expect("a readable sample"))
            .collect()
    }

    #[test]
    fn the_corpus_holds() {
        let corpus = corpus();
        assert!(corpus.len() >= 40, "{}", corpus.len());
        corpus.iter().for_each(|sample| run(sample));
    }

    #[test]
    fn mutations_of_the_corpus_hold() {
        const BITS: &[&[u8]] = &[
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"0\r\n\r\n",
            b"1\r\na\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: h\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"GET /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HEAD /get?key=%00 HTTP/1.0\r\n\r\n",
            b"If-None-Match: *\r\n",
            b"%",
            b"\x7f",
            b"\xff",
            b"ffffffffffffffff",
            b"Connection: keep-alive\r\n",
        ];
        let corpus = corpus();
        let mut rng = fastrand::Rng::with_seed(20);
        let mut requests = 0;
        let mut refusals = 0;
        for _ in 0..6_000 {
            let mut data = corpus[rng.usize(..corpus.len())].clone();
            data.truncate(2_000);
            for _ in 0..rng.usize(1..5) {
                let at = rng.usize(..=data.len());
                match rng.u8(0..5) {
                    0 if at < data.len() => data[at] = rng.u8(..),
                    1 if at < data.len() => drop(data.remove(at)),
                    2 => data.truncate(at.max(1)),
                    3 => data.extend_from_slice(&corpus[rng.usize(..corpus.len())]),
                    _ => drop(data.splice(at..at, BITS[rng.usize(..BITS.len())].iter().copied())),
                }
                data.truncate(4_000);
            }
            run(&data);
            for event in replay(&data, &Limits::DEFAULT, []).events {
                requests += usize::from(matches!(event, Event::Request { .. }));
                refusals += usize::from(matches!(event, Event::Bad { .. }));
            }
        }
        assert!(
            requests > 1_000 && refusals > 1_000,
            "{requests} requests, {refusals} refusals: too few to show anything"
        );
    }
}
