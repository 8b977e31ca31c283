//! The parsers of requests and the scanner of replies.

use crate::each;
use nearcache::protocol::Parse;
use nearcache::protocol::http;
use nearcache::protocol::http::route::Policy;
use nearcache::protocol::resp::request::{GetMemo, RequestLimits, RequestParser};

const CALLS: usize = 100_000;
const HEAD: &str = "GET /get?key=key:000000000001 HTTP/1.1\r\nHost: localhost:6000\r\nUser-Agent: agent\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n";

pub fn run() {
    let get = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n";
    let mut memo = GetMemo::default();
    each("RESP GET, the shortcut", CALLS, |_| {
        memo.get_at_start(get)
            .map(|(key, behind)| (key.len(), behind.len()))
    });
    let limits = RequestLimits::default();
    each(
        "RESP GET, the general parser",
        CALLS,
        |_| match RequestParser::default().parse(get, &limits) {
            Parse::Done(request) => request.len(),
            Parse::More | Parse::Bad(_) => 0,
        },
    );
    let set =
        b"*5\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$5\r\nvalue\r\n$2\r\nEX\r\n$2\r\n60\r\n";
    each(
        "RESP SET with four arguments",
        CALLS,
        |_| match RequestParser::default().parse(set, &limits) {
            Parse::Done(request) => request.args().map(<[u8]>::len).sum(),
            Parse::More | Parse::Bad(_) => 0,
        },
    );
    let inline = b"SET key:000000000001 \"a value\"\r\n";
    each(
        "RESP inline SET",
        CALLS,
        |_| match RequestParser::default().parse(inline, &limits) {
            Parse::Done(request) => request.len(),
            Parse::More | Parse::Bad(_) => 0,
        },
    );
    let limits = http::Limits::DEFAULT;
    each(
        "HTTP head of five lines, httparse and what it means",
        CALLS,
        |_| match http::RequestParser::new().next(HEAD.as_bytes(), &limits) {
            http::Step::Request { used, .. } => used,
            _ => 0,
        },
    );
    let mut known = http::KnownHead::default();
    assert!(known.study(HEAD.as_bytes(), &limits, &Policy::default()));
    each("HTTP head, known", CALLS, |_| {
        known
            .get_at_start(HEAD.as_bytes())
            .map(|(key, used)| (key.len(), used))
    });
    let other = HEAD.replace(": agent", ": another agent");
    each("HTTP head, known but for a User-Agent", CALLS, |_| {
        known
            .get_at_start(other.as_bytes())
            .map(|(key, used)| (key.len(), used))
    });
}
