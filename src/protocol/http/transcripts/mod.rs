//! Conversations: what a client sends, and what must come out of it, whole, byte by byte, and cut at every position.
#![forbid(unsafe_code)]

mod bodies;

use super::route::{Manner, Policy, Route, route};
use super::{Limits, Refusal};
use crate::fuzzing::http_request::{Event, LIMITS_TINY, replay};

/// Plays `input` in every way and compares what comes out with `expected`: one word per event, separated by `, `.
#[track_caller]
fn check(input: impl AsRef<[u8]>, expected: &str) {
    check_within(&Limits::DEFAULT, input, expected);
}

#[track_caller]
fn check_within(limits: &Limits, input: impl AsRef<[u8]>, expected: &str) {
    let input = input.as_ref();
    let whole = replay(input, limits, []);
    let told: Vec<String> = whole.events.iter().map(tell).collect();
    assert_eq!(told.join(", "), expected, "{}", input.escape_ascii());
    let single = replay(input, limits, std::iter::repeat_n(1, input.len()));
    assert_eq!(
        single.events,
        whole.events,
        "byte by byte: {}",
        input.escape_ascii()
    );
    for cut in 1..input.len() {
        let cut_once = replay(input, limits, [cut]);
        assert_eq!(
            cut_once.events,
            whole.events,
            "cut at {cut}: {}",
            input.escape_ascii()
        );
    }
}

/// An event as the tables below write it: `get(key)` or `head(key)` for what is served, the name of the refusal for what
/// is not, `close` where the connection ends.
fn tell(event: &Event) -> String {
    let kept = |manner: Manner| if manner.keep_alive { "" } else { " close" };
    match event {
        Event::Request { request, .. } => match route(request, &Policy::default(), &mut Vec::new())
        {
            Route::Get {
                key,
                no_cache,
                manner,
                ..
            } => {
                let verb = if manner.head_only { "head" } else { "get" };
                let force = if no_cache { " no-cache" } else { "" };
                format!("{verb}({}){force}{}", key.escape_ascii(), kept(manner))
            }
            Route::Answer { refusal, manner } => {
                format!("{} {refusal:?}{}", refusal.status(), kept(manner))
            }
        },
        Event::Skipped { .. } => "skip".into(),
        Event::Expect100 => "100".into(),
        Event::Bad { refusal, .. } => format!("{} {refusal:?}!", refusal.status()),
    }
}

/// A second request, which must not be seen behind a refused one.
const NEXT: &str = "GET /get?key=smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// `fields` in an otherwise good request with `NEXT` behind it.
#[track_caller]
fn check_fields(fields: &str, expected: &str) {
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\n{fields}\r\n{NEXT}"),
        expected,
    );
}

#[test]
fn requests_are_served_in_order() {
    check("", "");
    check("GET /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n", "get(a)");
    check("HEAD /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n", "head(a)");
    check("GET /get?key= HTTP/1.1\r\nHost: h\r\n\r\n", "get()");
    check(
        "GET /get?key=a+b%2Bc%00%FF HTTP/1.1\r\nHost: h\r\n\r\n",
        "get(a b+c\\x00\\xff)",
    );
    check(
        "GET /get?key=a HTTP/1.1\r\nHost: localhost:6000\r\nUser-Agent: curl/8\r\nAccept: */*\r\nX: \r\n\r\n",
        "get(a)",
    );
    check(
        "GET /get?key=a HTTP/1.1\r\nHOST:h\r\nX:\ta\tb\t\r\nY: \u{e9}\r\n\r\n",
        "get(a)",
    );
    check(
        "GET /get?key=1 HTTP/1.1\r\nHost: h\r\n\r\nHEAD /get?key=2 HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /get?key=3 HTTP/1.1\r\nHost: h\r\n\r\nGET /get?key=4 HTT",
        "get(1), head(2), 404 PathUnknown, get(3)",
    );
}

#[test]
fn keys_that_are_missing_doubled_or_wrong_are_answered_without_a_close() {
    check("GET /get HTTP/1.1\r\nHost: h\r\n\r\n", "400 KeyMissing");
    check("GET /get? HTTP/1.1\r\nHost: h\r\n\r\n", "400 KeyMissing");
    check(
        "GET /get?k=a&Key=b HTTP/1.1\r\nHost: h\r\n\r\n",
        "400 KeyMissing",
    );
    check(
        "GET /get?key=a&x=y&key=a HTTP/1.1\r\nHost: h\r\n\r\n",
        "400 KeyRepeated",
    );
    check(
        "GET /get?key=%zz HTTP/1.1\r\nHost: h\r\n\r\nGET /get?key=b HTTP/1.1\r\nHost: h\r\n\r\n",
        "400 KeyEncoding, get(b)",
    );
}

#[test]
fn paths_and_methods_are_told_apart() {
    for path in [
        "/",
        "/get/",
        "/get/x",
        "/GET",
        "//get",
        "/get;x",
        "/favicon.ico",
    ] {
        check(
            format!("GET {path}?key=a HTTP/1.1\r\nHost: h\r\n\r\n"),
            "404 PathUnknown",
        );
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        check(
            format!("{method} /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n"),
            "405 MethodNotAllowed",
        );
        check(
            format!("{method} /x HTTP/1.1\r\nHost: h\r\n\r\n"),
            "404 PathUnknown",
        );
    }
    for method in ["get", "Get", "PROPFIND", "SET", "G!#$%&'*+-.^_`|~T"] {
        check(
            format!("{method} /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n"),
            "501 MethodUnknown",
        );
    }
    check(
        format!("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n{NEXT}"),
        "405 MethodNotAllowed close",
    );
    check(
        format!("CONNECT /get HTTP/1.1\r\nHost: h\r\n\r\n{NEXT}"),
        "400 Target!",
    );
    check(
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "200 OptionsOfServer",
    );
    check("GET * HTTP/1.1\r\nHost: h\r\n\r\n", "400 Target!");
}

#[test]
fn absolute_targets_are_taken_apart() {
    check(
        "GET http://h/get?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
        "get(a)",
    );
    check(
        "GET HTTP://other:80/get?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
        "get(a)",
    );
    check(
        "GET http://h?key=a HTTP/1.1\r\nHost: h\r\n\r\n",
        "404 PathUnknown",
    );
    check(
        "GET http://h/get?key=a HTTP/1.1\r\n\r\n",
        "400 HostMissing!",
    );
    for target in [
        "http://",
        "http:///get",
        "http://u@h/get",
        "http://h:99999/get",
        "ftp://h/get",
        "get",
        "h:80",
        "http:/get",
    ] {
        check(
            format!("GET {target}?key=a HTTP/1.1\r\nHost: h\r\n\r\n{NEXT}"),
            "400 Target!",
        );
    }
}

#[test]
fn targets_hold_what_rfc_3986_allows() {
    check(
        "GET /get?key=a&b[]=-._~!$&'()*+,;=:@/? HTTP/1.1\r\nHost: h\r\n\r\n",
        "get(a)",
    );
    for byte in *b"\"#<>\\^`{|}\x7f\x80\xff" {
        let input = [
            b"GET /get?key=",
            &[byte][..],
            b" HTTP/1.1\r\nHost: h\r\n\r\n",
        ]
        .concat();
        check(input, "400 Target!");
    }
}

#[test]
fn request_lines_are_exact() {
    for line in [
        "GET  /get?key=a HTTP/1.1",
        "GET /get?key=a  HTTP/1.1",
        "GET /get?key=a HTTP/1.1 ",
        " GET /get?key=a HTTP/1.1",
        "GET /get?key=a",
        "GET",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "GET /get?key=a b HTTP/1.1",
        "G@T /get?key=a HTTP/1.1",
        "GET /get?key=a http/1.1",
        "GET /get?key=a HTTP/1",
        "GET /get?key=a HTTP/1.10",
        "GET /get?key=a HTTP/11.1",
        "GET /get?key=a HTTP/x.y",
        "GET /get?key=a HTTPS/1.1",
        "GET /get?key=a ICY/1.1",
        "G\u{e9}T /get?key=a HTTP/1.1",
    ] {
        let input = format!("{line}\r\nHost: h\r\n\r\n{NEXT}");
        let status = replay(input.as_bytes(), &Limits::DEFAULT, [])
            .events
            .iter()
            .map(tell)
            .next();
        let expected = match status.as_deref() {
            Some("400 Target!") => "400 Target!", // a space too many is a byte of the target
            _ => "400 RequestLine!",
        };
        check(input, expected);
    }
    check("GET\t/get?key=a HTTP/1.1\r\n", "400 ControlByte!");
    // The answer does not wait for the rest of the head.
    check("GET /get?key=a\r\n", "400 RequestLine!");
}

#[test]
fn versions_of_the_major_one_are_served() {
    check("GET /get?key=a HTTP/1.0\r\n\r\n", "get(a) close");
    check("GET /get?key=a HTTP/1.2\r\nHost: h\r\n\r\n", "get(a)");
    check("GET /get?key=a HTTP/1.9\r\n\r\n", "400 HostMissing!");
    for version in ["0.9", "2.0", "3.0", "9.9", "0.0"] {
        check(
            format!("GET /get?key=a HTTP/{version}\r\nHost: h\r\n\r\n{NEXT}"),
            "505 Version!",
        );
    }
}

#[test]
fn connections_are_kept_as_the_version_and_the_options_say() {
    let ten = |fields: &str| {
        format!("GET /get?key=a HTTP/1.0\r\n{fields}\r\nGET /get?key=b HTTP/1.0\r\n\r\n")
    };
    check(ten(""), "get(a) close");
    check(ten("Connection: keep-alive\r\n"), "get(a), get(b) close");
    check(
        ten("Connection: x, Keep-Alive ,\r\n"),
        "get(a), get(b) close",
    );
    check(ten("Connection: keep-alive, close\r\n"), "get(a) close");
    check(ten("Connection: keep-alive-x\r\n"), "get(a) close");
    check_fields("Connection: close\r\n", "get(a) close");
    check_fields("Connection: keep-alive, CLOSE\r\n", "get(a) close");
    check_fields(
        "Connection: keep-alive\r\nConnection: close\r\n",
        "get(a) close",
    );
    check_fields("Connection: closed, \"close\"\r\n", "get(a), get(smuggled)");
    check_fields(
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n",
        "get(a), get(smuggled)",
    );
}

#[test]
fn octets_that_two_readers_could_take_differently_are_refused() {
    check(
        format!("GET /get?key=a HTTP/1.1\nHost: h\r\n\r\n{NEXT}"),
        "400 BareLf!",
    );
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\n\r\n{NEXT}"),
        "400 BareLf!",
    );
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\n\n{NEXT}"),
        "400 BareLf!",
    );
    check(format!("\n{NEXT}"), "400 BareLf!");
    check(
        format!("GET /get?key=a HTTP/1.1\rHost: h\r\n\r\n{NEXT}"),
        "400 BareCr!",
    );
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\r\n\r\n{NEXT}"),
        "400 BareCr!",
    );
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\n\r{NEXT}"),
        "400 BareCr!",
    );
    check(format!("\r{NEXT}"), "400 BareCr!");
    check_fields("X: a\r\n b\r\n", "400 ObsFold!");
    check_fields("X: a\r\n\tb\r\n", "400 ObsFold!");
    check(
        format!("GET /get?key=a HTTP/1.1\r\n Host: h\r\n\r\n{NEXT}"),
        "400 ObsFold!",
    );
    for byte in (0..32u8).filter(|byte| !b"\t\r\n".contains(byte)) {
        check_fields(
            &format!("X: a{}b\r\n", char::from(byte)),
            "400 ControlByte!",
        );
        check_fields(&format!("X{}: a\r\n", char::from(byte)), "400 ControlByte!");
    }
    check_fields("X: a\u{7f}b\r\n", "400 Field!");
}

#[test]
fn field_lines_are_exact() {
    for line in [
        "X : a",
        ": a",
        "X",
        "X y: a",
        "X\u{e9}: a",
        "(X): a",
        "Content-Length : 5",
        "Transfer-Encoding\t: chunked",
        "\"X\": a",
    ] {
        check_fields(&format!("{line}\r\n"), "400 Field!");
    }
}

#[test]
fn a_host_is_there_once_and_well_formed() {
    check(
        format!("GET /get?key=a HTTP/1.1\r\n\r\n{NEXT}"),
        "400 HostMissing!",
    );
    check_fields("Host: h\r\n", "400 HostRepeated!");
    check_fields("hOST: other\r\n", "400 HostRepeated!");
    for host in [
        "", "a b", "a,b c", "a/b", "http://a", "u@a", "a:b", "a:99999", "[::1", "a\"", "a#",
        "\u{e9}",
    ] {
        check(
            format!("GET /get?key=a HTTP/1.1\r\nHost: {host}\r\n\r\n{NEXT}"),
            "400 HostMalformed!",
        );
        check(
            format!("GET /get?key=a HTTP/1.0\r\nHost: {host}\r\n\r\n{NEXT}"),
            "400 HostMalformed!",
        );
    }
    for host in [
        "h",
        "h:6000",
        "127.0.0.1",
        "[::1]:6000",
        "a_b.example",
        "h:",
    ] {
        check(
            format!("GET /get?key=a HTTP/1.1\r\nHost: {host} \r\n\r\n"),
            "get(a)",
        );
    }
}

#[test]
fn fields_that_may_stand_once_stand_once() {
    check_fields("Origin: http://h\r\nOrigin: http://h\r\n", "400 Repeated!");
    check_fields(
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n",
        "400 Repeated!",
    );
    check_fields("Authorization: a\r\nAuthorization: b\r\n", "400 Repeated!");
}

#[test]
fn no_cache_forces_a_fetch() {
    check_fields(
        "Cache-Control: no-cache\r\n",
        "get(a) no-cache, get(smuggled)",
    );
    check_fields(
        "Cache-Control: max-age=0\r\nCache-Control: x , No-Cache\r\n",
        "get(a) no-cache, get(smuggled)",
    );
    check_fields("Pragma: no-cache\r\n", "get(a) no-cache, get(smuggled)");
    check_fields(
        "Pragma: no-cache\r\nCache-Control: max-age=9\r\n",
        "get(a), get(smuggled)",
    );
    check_fields("Cache-Control: no-cached\r\n", "get(a), get(smuggled)");
}

#[test]
fn bounds_hold_to_the_byte() {
    let line = |target: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(target));
    // `GET /` and ` HTTP/1.1` are 14 bytes of the 40.
    check_within(&LIMITS_TINY, line(26), "404 PathUnknown");
    check_within(&LIMITS_TINY, line(27), "414 LineTooLong!");
    check_within(&LIMITS_TINY, "x".repeat(100), "414 LineTooLong!");

    // `Host: h`, `X: ` and the line ends are 16 bytes of the 80.
    let fields = |value: usize| {
        format!(
            "GET /x HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
            "y".repeat(value)
        )
    };
    check_within(&LIMITS_TINY, fields(64), "404 PathUnknown");
    check_within(&LIMITS_TINY, fields(65), "431 FieldsTooLarge!");
    let many = |count: usize| {
        format!(
            "GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "X: y\r\n".repeat(count)
        )
    };
    check_within(&LIMITS_TINY, many(3), "404 PathUnknown");
    check_within(&LIMITS_TINY, many(4), "431 FieldsTooMany!");
    check(many(23), "404 PathUnknown");
    check(many(24), "404 PathUnknown");
    check(many(99), "404 PathUnknown");
    check(many(100), "431 FieldsTooMany!");

    let sized = |length: usize| {
        format!(
            "GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}",
            "z".repeat(length)
        )
    };
    check_within(&LIMITS_TINY, sized(20), "404 PathUnknown");
    check_within(&LIMITS_TINY, sized(21), "413 BodyTooLarge!");
    let chunks = |body: &str| {
        format!("GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
    };
    check_within(
        &LIMITS_TINY,
        chunks("a\r\n0123456789\r\n0a\r\n0123456789\r\n"),
        "404 PathUnknown",
    );
    check_within(
        &LIMITS_TINY,
        chunks("a\r\n0123456789\r\n0b\r\n0123456789x\r\n"),
        "413 BodyTooLarge!",
    );
    check_within(
        &LIMITS_TINY,
        chunks(&"1\r\nx\r\n".repeat(7)),
        "404 PathUnknown",
    );
    check_within(
        &LIMITS_TINY,
        chunks(&"1\r\nx\r\n".repeat(8)),
        "413 ChunkOverhead!",
    );
    check_within(
        &LIMITS_TINY,
        chunks(&format!("1;{}\r\nx\r\n", "e".repeat(40))),
        "413 ChunkOverhead!",
    );

    check_within(
        &LIMITS_TINY,
        "\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n\r\n",
        "skip, skip, 404 PathUnknown, skip",
    );
    check_within(
        &LIMITS_TINY,
        "\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        "skip, skip, 400 EmptyLines!",
    );
}

#[test]
fn a_key_of_8_kib_goes_through_in_whatever_encoding() {
    let key = vec![0xfe; 8 << 10];
    let query: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
    let input = format!("GET /get?key={query} HTTP/1.1\r\nHost: h\r\n\r\n");
    let trace = replay(input.as_bytes(), &Limits::DEFAULT, [9, 4096, 4096, 4096]);
    let [Event::Request { request, .. }] = &trace.events[..] else {
        panic!("{:?}", trace.events)
    };
    let mut scratch = Vec::new();
    let Route::Get { key: found, .. } = route(request, &Policy::default(), &mut scratch) else {
        panic!("not routed")
    };
    assert_eq!(found, key);
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    check(
        "\r\nGET /get?key=a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\nGET /get?key=b HTTP/1.1\r\nHost: h\r\n\r\n",
        "skip, get(a), skip, skip, get(b)",
    );
    check(
        "\r\n".repeat(9),
        "skip, skip, skip, skip, skip, skip, skip, skip, 400 EmptyLines!",
    );
}

#[test]
fn other_protocols_are_answered_at_once() {
    // TLS: the first byte of a ClientHello's record.
    check(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "400 ControlByte!",
    );
    check(b"\x16", "400 ControlByte!");
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Http2!");
    check("PRI * HTTP/2.0\r\n", "400 Http2!");
    check("PRI * HTTP/2.1\r\n", "505 Version!");
    check("GET * HTTP/2.0\r\n", "505 Version!");
    for resp in [
        "*1\r\n$4\r\nPING\r\n",
        "PING\r\n",
        "SET a b\r\n",
        "GET a\r\n",
        "+OK\r\n",
        "$3\r\nabc\r\n",
        ":1\r\n",
        "*0\r\n",
    ] {
        check(resp, "400 RequestLine!");
    }
    check("GET a\n", "400 BareLf!");
    check("SSH-2.0-OpenSSH_9.2\r\n", "400 RequestLine!");
    check("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "400 RequestLine!");
}

#[test]
fn a_refused_head_keeps_its_answer_free_of_content() {
    let refused = |input: &'static str| {
        replay(input.as_bytes(), &Limits::DEFAULT, [])
            .events
            .last()
            .copied()
    };
    let bad = |refusal, head_only| Some(Event::Bad { refusal, head_only });
    assert_eq!(
        refused("HEAD /get HTTP/1.1\r\n\r\n"),
        bad(Refusal::HostMissing, true)
    );
    assert_eq!(
        refused("HEAD /get HTTP/1.1\r\nX:\n"),
        bad(Refusal::BareLf, true)
    );
    assert_eq!(
        refused("GET /get HTTP/1.1\r\n\r\n"),
        bad(Refusal::HostMissing, false)
    );
    assert_eq!(
        refused("HEAD /get HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx"),
        bad(Refusal::ChunkSize, true)
    );
}

#[test]
fn looks_stay_linear_however_the_bytes_are_cut() {
    let fields: String = (0..90)
        .map(|n| format!("X-{n}: some value of a field\r\n"))
        .collect();
    // Tabs, alone and among others, are the only control bytes that do not end a step of the scan.
    let tabs = format!("X: {}{}y\r\n", "\t".repeat(500), "\tx".repeat(500));
    let input = format!(
        "POST /get?key={} HTTP/1.1\r\nHost: h\r\n{fields}{tabs}Content-Length: 9\r\n\r\n012345678",
        "k".repeat(3_000)
    );
    for piece in [1, 2, 3, 7, 64, 1460, usize::MAX] {
        let trace = replay(input.as_bytes(), &Limits::DEFAULT, std::iter::repeat(piece));
        assert_eq!(trace.events.len(), 1);
        let per_byte = trace.looks as f64 / input.len() as f64;
        assert!(
            (2.0..=4.5).contains(&per_byte),
            "{per_byte} looks per byte in pieces of {piece}"
        );
    }
}
