//! A second opinion on where requests end: the same bytes are given to hyper's HTTP/1 server. Whatever we take for a
//! request, hyper must take for the same request; we may refuse what hyper serves, but not serve what it refuses
//! (HTTP/1.2 excepted, which hyper does not know).
#![forbid(unsafe_code)]

use super::Limits;
use crate::fuzzing::http_request::{Event, replay};
use fastrand::Rng;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// What a server took the bytes for.
#[derive(Debug, PartialEq)]
struct Reading {
    /// The paths of the requests that came whole, in order.
    requests: Vec<String>,
    how_it_ended: Ended,
}

#[derive(Debug, PartialEq)]
enum Ended {
    /// Something was refused or incomplete.
    Refused,
    /// All bytes were used up, or the last request asked to close.
    Well,
}

fn our_reading(data: &[u8]) -> Reading {
    let mut requests = Vec::new();
    let mut used = 0;
    let mut is_kept = true;
    let mut how_it_ended = Ended::Well;
    for event in replay(data, &Limits::DEFAULT, [1, 2, 3, 5, 8, 13, 21]).events {
        match event {
            Event::Request { request, end, .. } => {
                requests.push(String::from_utf8_lossy(request.path).into_owned());
                used = end;
                is_kept = request.keep_alive;
            }
            Event::Skipped { end } => used = end,
            Event::Bad { .. } => how_it_ended = Ended::Refused,
            Event::Expect100 => {}
        }
    }
    if is_kept && used < data.len() {
        how_it_ended = Ended::Refused;
    }
    Reading {
        requests,
        how_it_ended,
    }
}

/// Bytes that are all there at once, in reads of at most `read_bytes`, and then the end; writes go nowhere.
struct Wire<'d> {
    unread: &'d [u8],
    read_bytes: usize,
}

impl Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context,
        mut buf: ReadBufCursor,
    ) -> Poll<io::Result<()>> {
        let bytes = self.read_bytes.min(self.unread.len()).min(buf.remaining());
        let (now, later) = self.unread.split_at(bytes);
        buf.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn hypers_reading(data: &[u8], read_bytes: usize) -> Reading {
    let requests = RefCell::new(Vec::new());
    let serve = service_fn(|request: Request<Incoming>| {
        let requests = &requests;
        async move {
            let target = request.uri().path().to_owned();
            let mut body = request.into_body();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                frame?;
            }
            requests.borrow_mut().push(target);
            Ok::<_, hyper::Error>(Response::new(String::new()))
        }
    });
    let wire = Wire {
        unread: data,
        read_bytes,
    };
    let result = {
        let mut connection = pin!(
            http1::Builder::new()
                .half_close(true)
                .serve_connection(wire, serve)
        );
        let mut cx = Context::from_waker(Waker::noop());
        // The wire is always ready, so each poll goes on; the bound turns a hang into a failure.
        let mut polls = 0..100_000;
        loop {
            polls.next().expect("hyper comes to an end");
            if let Poll::Ready(result) = connection.as_mut().poll(&mut cx) {
                break result;
            }
        }
    };
    let how_it_ended = if result.is_ok() {
        Ended::Well
    } else {
        Ended::Refused
    };
    Reading {
        requests: requests.into_inner(),
        how_it_ended,
    }
}

fn pick<'t>(rng: &mut Rng, table: &[&'t str]) -> &'t str {
    table[rng.usize(..table.len())]
}

/// A body's content, made to be taken for a request by who ends it in the wrong place.
fn content(rng: &mut Rng, n: usize) -> String {
    match rng.u8(0..4) {
        0 => String::new(),
        1 => "x".repeat(rng.usize(1..20)),
        2 => format!("GET /inner{n} HTTP/1.1\r\nHost: h\r\n\r\n"),
        _ => format!("\r\n0\r\n\r\nGET /inner{n} HTTP/1.1\r\nHost: h\r\n\r\n"),
    }
}

/// Appends a message that is nearly always good; `how_odd` of 100 have something odd.
fn message(rng: &mut Rng, out: &mut Vec<u8>, n: usize, how_odd: u8) {
    let mut odd = || rng.u8(0..100) < how_odd;
    let (odd_version, odd_body, odd_connection, odd_bytes) = (odd(), odd(), odd(), odd());
    let method = pick(rng, &["GET", "POST", "PUT"]);
    let version = if odd_version {
        pick(rng, &["1.0", "1.2", "2.0"])
    } else {
        "1.1"
    };
    let mut fields = vec!["Host: h".to_owned()];
    if odd_connection {
        fields.push(
            pick(
                rng,
                &[
                    "Connection: close",
                    "Connection: keep-alive",
                    "Connection: x,close",
                    "Connection:",
                ],
            )
            .into(),
        );
    }
    let content = content(rng, n);
    let mut body = Vec::new();
    match rng.u8(0..3) {
        0 => {}
        1 => {
            let length = content.len();
            fields.push(format!("Content-Length: {length}"));
            if odd_body {
                let other = rng.usize(0..60);
                let lengths = [
                    format!("Content-Length: {length}"),
                    format!("Content-Length: {other}"),
                    format!("Content-Length: +{length}"),
                    format!("Content-Length: {length}, {other}"),
                    "Content-Length:".into(),
                    "Transfer-Encoding: chunked".into(),
                    "Transfer-Encoding: x, chunked".into(),
                ];
                fields.push(lengths[rng.usize(..lengths.len())].clone());
                if rng.bool() {
                    fields.swap_remove(fields.len() - 2);
                }
            }
            body.extend_from_slice(content.as_bytes());
        }
        _ => {
            let coding = match odd_body {
                true => pick(
                    rng,
                    &[
                        "x",
                        "chunked, x",
                        "chunked,",
                        "CHUNKED",
                        "chunked;a",
                        "x, chunked",
                        "chunked, chunked",
                        "",
                    ],
                ),
                false => "chunked",
            };
            fields.push(format!("Transfer-Encoding: {coding}"));
            if odd_body && rng.bool() {
                fields.push(format!("Content-Length: {}", rng.usize(0..60)));
            }
            for piece in content.as_bytes().chunks(rng.usize(1..24)) {
                let size = match rng.u8(0..6) {
                    0 => format!("0{:x}", piece.len()),
                    1 => format!("{:X};name=\"v\"", piece.len()),
                    2 if odd_body => format!("{:x} ", piece.len()),
                    3 if odd_body => format!("{:x}", piece.len() + rng.usize(0..3)),
                    _ => format!("{:x}", piece.len()),
                };
                body.extend_from_slice(size.as_bytes());
                body.extend_from_slice(b"\r\n");
                body.extend_from_slice(piece);
                body.extend_from_slice(
                    if odd_body {
                        pick(rng, &["\r\n", "\n", ""])
                    } else {
                        "\r\n"
                    }
                    .as_bytes(),
                );
            }
            let end = if odd_body {
                pick(
                    rng,
                    &["0\r\nX: y\r\n\r\n", "0\n\n", "0\r\n", "0\r\nX\r\n\r\n"],
                )
            } else {
                "0\r\n\r\n"
            };
            body.extend_from_slice(end.as_bytes());
        }
    }
    rng.shuffle(&mut fields);
    let head = format!(
        "{method} /outer{n} HTTP/{version}\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    let start = out.len();
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&body);
    if odd_bytes {
        let at = rng.usize(start..out.len());
        match rng.u8(0..3) {
            0 => out[at] = *b"\r\n\t 0;:,\0a"[..].get(rng.usize(..10)).unwrap_or(&b'x'),
            1 => drop(out.remove(at)),
            _ => out.insert(at, *b"\r\n\t 0;:,1a".get(rng.usize(..10)).unwrap_or(&b'x')),
        }
    }
}

#[test]
fn hyper_ends_requests_where_we_do_or_we_refuse() {
    let mut agreed = [0; 2];
    let mut refused = 0;
    for seed in 0..30_000 {
        let mut rng = Rng::with_seed(seed);
        let how_odd = [0, 5, 30][rng.usize(..3)];
        let mut data = Vec::new();
        for n in 0..rng.usize(1..6) {
            message(&mut rng, &mut data, n, how_odd);
        }
        let ours = our_reading(&data);
        let hypers = hypers_reading(&data, [1, 7, 4096][rng.usize(..3)]);
        let both = ours.requests.len().min(hypers.requests.len());
        let told = || {
            format!(
                "seed {seed}: {}\nours {ours:?}\nhyper {hypers:?}",
                data.escape_ascii()
            )
        };
        assert_eq!(ours.requests[..both], hypers.requests[..both], "{}", told());
        if ours.requests.len() > both && !data.windows(8).any(|version| version == b"HTTP/1.2") {
            panic!("we serve what hyper refuses; {}", told());
        }
        if hypers.requests.len() > both {
            assert_eq!(ours.how_it_ended, Ended::Refused, "{}", told());
        }
        match ours.how_it_ended {
            Ended::Well => agreed[usize::from(both > 1)] += 1,
            Ended::Refused => refused += 1,
        }
    }
    assert!(
        agreed[0] > 3_000 && agreed[1] > 8_000 && refused > 3_000,
        "{agreed:?} agreed, {refused} refused"
    );
}
