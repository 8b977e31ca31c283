//! Conversations about bodies: where a request with content ends, and what is refused because two readers could differ
//! about that.
#![forbid(unsafe_code)]

use super::{NEXT, check, check_fields};

/// `fields` and `body` in an otherwise good request with `NEXT` behind it.
#[track_caller]
fn check_body(fields: &str, body: &str, expected: &str) {
    check(
        format!("POST /get?key=a HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}{NEXT}"),
        expected,
    );
}

#[test]
fn bodies_are_dropped_and_the_next_request_is_found() {
    check_body("", "", "405 MethodNotAllowed, get(smuggled)");
    check_body(
        "Content-Length: 0\r\n",
        "",
        "405 MethodNotAllowed, get(smuggled)",
    );
    check_body(
        "Content-Length: 5\r\n",
        "a\r\n\r\n",
        "405 MethodNotAllowed, get(smuggled)",
    );
    check_body(
        "Content-Length: 005\r\n",
        "\0\n\rxx",
        "405 MethodNotAllowed, get(smuggled)",
    );
    check(
        format!("GET /get?key=a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc{NEXT}"),
        "get(a), get(smuggled)",
    );
    check(
        format!(
            "HEAD /get?key=a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc{NEXT}"
        ),
        "head(a), get(smuggled)",
    );
    check(
        format!(
            "GET /get?key=a HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{NEXT}{NEXT}",
            NEXT.len()
        ),
        "get(a), get(smuggled)",
    );
}

#[test]
fn lengths_that_two_readers_could_take_differently_are_refused() {
    for length in [
        "",
        "+5",
        "-5",
        "-0",
        "5, 5",
        "5,5",
        "5 5",
        "0x5",
        "5.0",
        "5;",
        "\"5\"",
        "five",
        "18446744073709551616",
        "99999999999999999999999",
        "\u{665}",
        "5\t6",
    ] {
        check_body(
            &format!("Content-Length: {length}\r\n"),
            "",
            "400 LengthMalformed!",
        );
    }
    check_body(
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "",
        "400 LengthRepeated!",
    );
    check_body(
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "",
        "400 LengthRepeated!",
    );
    check_body(
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "",
        "400 LengthRepeated!",
    );
    check_body(
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "400 LengthAndEncoding!",
    );
    check_body(
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
        "400 LengthAndEncoding!",
    );
    check_body(
        "Transfer-Encoding: x\r\nContent-Length: 0\r\n",
        "0\r\n\r\n",
        "400 LengthAndEncoding!",
    );
    check_body("Content-Length: 65537\r\n", "", "413 BodyTooLarge!");
    check_body(
        "Content-Length: 18446744073709551615\r\n",
        "",
        "413 BodyTooLarge!",
    );
    // Not the field at all: a name is compared whole.
    check_body(
        "Content_Length: 5\r\nX-Transfer-Encoding: chunked\r\n",
        "",
        "405 MethodNotAllowed, get(smuggled)",
    );
}

#[test]
fn codings_other_than_chunked_alone_are_refused() {
    for (coding, expected) in [
        ("", "400 Encoding!"),
        (",", "400 Encoding!"),
        ("chunked,", "400 Encoding!"),
        (", chunked", "400 Encoding!"),
        ("gzip,, chunked", "400 Encoding!"),
        ("identity", "400 Encoding!"),
        ("gzip", "400 Encoding!"),
        ("chunked, gzip", "400 Encoding!"),
        ("chunked, chunked", "400 Encoding!"),
        ("xchunked", "400 Encoding!"),
        ("chunked;q=1", "400 Encoding!"),
        ("\"chunked\"", "400 Encoding!"),
        ("chunked x", "400 Encoding!"),
        ("chunked, identity", "400 Encoding!"),
        ("gzip, chunked", "501 EncodingUnknown!"),
        ("identity, chunked", "501 EncodingUnknown!"),
        ("\u{b}chunked", "400 ControlByte!"),
    ] {
        check_body(
            &format!("Transfer-Encoding: {coding}\r\n"),
            "0\r\n\r\n",
            expected,
        );
    }
    check_body(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "400 Encoding!",
    );
    check_body(
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "501 EncodingUnknown!",
    );
    check_body(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        "0\r\n\r\n",
        "400 Encoding!",
    );
    check(
        format!(
            "POST /get HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}"
        ),
        "400 EncodingIn10!",
    );
}

#[track_caller]
fn check_chunks(body: &str, expected: &str) {
    check_body("Transfer-Encoding: chunked\r\n", body, expected);
}

#[test]
fn chunked_bodies_end_where_they_say() {
    let served = "405 MethodNotAllowed, get(smuggled)";
    check_body("Transfer-Encoding:\t CHUNKED \r\n", "0\r\n\r\n", served);
    check_chunks("0\r\n\r\n", served);
    check_chunks("000\r\n\r\n", served);
    check_chunks("3\r\nabc\r\n0\r\n\r\n", served);
    check_chunks("5\r\n0\r\n\r\n\r\n0\r\n\r\n", served);
    check_chunks("00a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", served);
    check_chunks("3;a\r\nabc\r\n0;b=c;d=\"e;f\"\r\n\r\n", served);
    check_chunks("3 ; a = b\r\nabc\r\n0\t;\tb\r\n\r\n", served);
    check_chunks("0\r\nX: y\r\nContent-Length: 5\r\nz:\r\n\r\n", served);
    check_chunks(&format!("{:x}\r\n{NEXT}\r\n0\r\n\r\n", NEXT.len()), served);
}

#[test]
fn chunks_that_two_readers_could_take_differently_are_refused() {
    for (body, expected) in [
        ("\r\n0\r\n\r\n", "400 ChunkSize!"),
        (" 0\r\n\r\n", "400 ChunkSize!"),
        ("+0\r\n\r\n", "400 ChunkSize!"),
        ("-1\r\n\r\n", "400 ChunkSize!"),
        ("0x0\r\n\r\n", "400 ChunkSize!"),
        ("g\r\n\r\n", "400 ChunkSize!"),
        (";a\r\n\r\n", "400 ChunkSize!"),
        ("0\n\r\n", "400 ChunkSize!"),
        ("0\r\r\n", "400 ChunkSize!"),
        ("1_0\r\n", "400 ChunkSize!"),
        ("3\r\nabc0\r\n\r\n", "400 ChunkEnd!"),
        ("3\r\nabcd\r\n0\r\n\r\n", "400 ChunkEnd!"),
        ("3\r\nabc\n0\r\n\r\n", "400 ChunkEnd!"),
        ("3\r\nabc\r0\r\n\r\n", "400 ChunkEnd!"),
        ("3\r\nabc\r\n\r\n", "400 ChunkSize!"),
        ("0 \r\n\r\n", "400 ChunkExtension!"),
        ("0 0\r\n\r\n", "400 ChunkExtension!"),
        ("0;\r\n\r\n", "400 ChunkExtension!"),
        ("0;a\n\r\n", "400 ChunkExtension!"),
        ("0;a=\"\n\"\r\n\r\n", "400 ChunkExtension!"),
        ("0;a\0\r\n\r\n", "400 ChunkExtension!"),
        ("0;a\rb\r\n\r\n", "400 ChunkSize!"),
        ("0\r\nX\r\n\r\n", "400 Trailer!"),
        ("0\r\n: y\r\n\r\n", "400 Trailer!"),
        ("0\r\nX : y\r\n\r\n", "400 Trailer!"),
        ("0\r\n X: y\r\n\r\n", "400 Trailer!"),
        ("0\r\nX: y\r\n z\r\n\r\n", "400 Trailer!"),
        ("0\r\nX: y\n\r\n", "400 Trailer!"),
        ("0\r\n\n", "400 Trailer!"),
        ("0\r\n\rX", "400 Trailer!"),
        ("0\r\nX: \u{7f}\r\n\r\n", "400 Trailer!"),
        ("10001\r\n", "413 BodyTooLarge!"),
        ("ffffffffffffffff\r\n", "413 BodyTooLarge!"),
        ("100000000000000000000\r\n", "413 BodyTooLarge!"),
        ("fffe\r\n", "405?"),
    ] {
        if expected == "405?" {
            check_body("Transfer-Encoding: chunked\r\n", body, ""); // just within the bound: waits for its content
            continue;
        }
        check_chunks(body, expected);
    }
}

#[test]
fn expectations_are_met_once_or_refused() {
    let body = "Content-Length: 3\r\nExpect: 100-Continue\r\n";
    check_body(body, "abc", "100, 405 MethodNotAllowed, get(smuggled)");
    check_body(
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
        "0\r\n\r\n",
        "100, 405 MethodNotAllowed, get(smuggled)",
    );
    check_fields("Expect: 100-continue\r\n", "get(a), get(smuggled)");
    check_fields("Expect: 200-ok\r\n", "417 Expectation!");
    check_fields("Expect: 100-continue\r\nExpect: x\r\n", "417 Expectation!");
    check_body(
        "Content-Length: 65537\r\nExpect: 100-continue\r\n",
        "",
        "413 BodyTooLarge!",
    );
    check(
        "POST /get HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
        "405 MethodNotAllowed close",
    );
    check(
        "POST /get HTTP/1.0\r\nExpect: x\r\n\r\n",
        "405 MethodNotAllowed close",
    );
}
