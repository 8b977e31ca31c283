//! How long a connection lasts, and what is never taken for a request.
#![forbid(unsafe_code)]

use super::driver::{End, Step, send, wait_ms};
use super::{Scene, get, request};
use crate::protocol::http::Limits;

const HIT: &str = "200 [hit; ttl=30] age=0 v";
const HIT_CLOSE: &str = "200 [hit; ttl=30] age=0 close v";

/// Plays `steps` to a refusal that Redis never hears of.
#[track_caller]
fn check_refused(input: impl AsRef<[u8]>, expected: &[&str]) {
    let scene = Scene::new();
    let steps = [send(input)];
    scene.check(&steps, expected, End::Shut);
    assert!(scene.play(&steps).driver.asked.is_empty());
}

#[test]
fn connections_are_kept_and_closed_as_version_and_connection_say() {
    let close = |value: &str| request("GET", "/get?key=k", &format!("Connection: {value}\r\n"));
    let old = |fields: &str| format!("GET /get?key=k HTTP/1.0\r\n{fields}\r\n");
    let check = |requests: &[String], expected: &[&str], end: End| {
        Scene::new().check(&[send(requests.concat())], expected, end);
    };
    check(&[get("k"), get("k")], &[HIT, HIT], End::Open);
    check(&[close("close"), get("k")], &[HIT_CLOSE], End::Shut);
    check(&[close("x, CLOSE"), get("k")], &[HIT_CLOSE], End::Shut);
    check(&[close("keep-alive"), get("k")], &[HIT, HIT], End::Open);
    check(&[old(""), get("k")], &[HIT_CLOSE], End::Shut);
    let keep = "200 [hit; ttl=30] age=0 keep v";
    check(
        &[old("Connection: keep-alive\r\n"), old("")],
        &[keep, HIT_CLOSE],
        End::Shut,
    );
}

#[test]
fn what_is_owed_before_a_refusal_is_answered_first() {
    Scene::new().check(
        &[
            send([&get("cold"), "GET /get?key=k HTTP/1.1\r\n\r\n", &get("k")].concat()),
            wait_ms(1000),
            Step::Answer,
        ],
        &["200 [fwd=uri-miss; stored] w", "400 close"],
        End::Shut,
    );
}

#[test]
fn the_last_answer_before_our_end_says_so() {
    let closing = request("GET", "/get?key=cold", "Connection: close\r\n");
    Scene::new().check(
        &[send([get("text"), closing].concat()), Step::Answer],
        &[
            "200 [fwd=uri-miss; stored] gr\\xc3\\xbcn",
            "200 [fwd=uri-miss; stored] close w",
        ],
        End::Shut,
    );
    Scene::new().check(
        &[
            send(get("text")),
            send(get("cold")),
            Step::Drain,
            Step::Answer,
        ],
        &[
            "200 [fwd=uri-miss; stored] gr\\xc3\\xbcn",
            "200 [fwd=uri-miss; stored] close w",
        ],
        End::Shut,
    );
}

#[test]
fn a_client_that_ends_its_side_gets_what_it_is_owed() {
    Scene::new().check(
        &[
            send([get("k"), get("cold"), get("k"), get("text")].concat()),
            Step::Finish,
            Step::Answer,
        ],
        &[
            HIT,
            "200 [fwd=uri-miss; stored] w",
            HIT,
            "200 [fwd=uri-miss; stored] gr\\xc3\\xbcn",
        ],
        End::Closed,
    );
    // It may also end behind half a request, which is then none.
    Scene::new().check(
        &[send(get("k") + "GET /get?key=cold HT"), Step::Finish],
        &[HIT],
        End::Closed,
    );
    // And while its request waits for its turn.
    Scene::new()
        .with(|config| config.max_concurrent_requests = 1)
        .check(
            &[
                send([get("cold"), get("text"), get("k")].concat()),
                Step::Finish,
                Step::Answer,
                Step::Answer,
            ],
            &[
                "200 [fwd=uri-miss; stored] w",
                "200 [fwd=uri-miss; stored] gr\\xc3\\xbcn",
                HIT,
            ],
            End::Closed,
        );
}

#[test]
fn other_protocols_are_refused_and_reach_nobody() {
    for input in [
        &b"*2\r\n$3\r\nGET\r\n$4\r\ncold\r\n"[..],
        b"GET cold\r\nGET cold\r\n",
        b"PING\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"SSH-2.0-x\r\n",
    ] {
        check_refused(input, &["400 close"]);
    }
}

#[test]
fn requests_that_two_readers_could_take_differently_are_refused_with_all_behind_them() {
    let next = get("cold");
    let behind = |head: &str| format!("{head}\r\n{next}");
    let fields = |fields: &str| behind(&request("POST", "/get?key=k", fields)[..]);
    for (input, status) in [
        (behind("GET /get?key=k HTTP/1.1\nHost: h\n"), "400 close"),
        (behind("GET /get?key=k HTTP/1.1\r\n"), "400 close"),
        (
            behind("GET /get?key=k HTTP/1.1\r\nHost: h\r\nHost: h\r\n"),
            "400 close",
        ),
        (
            behind("GET /get?key=k HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n"),
            "400 close",
        ),
        (
            behind("GET /get?key=k HTTP/2.0\r\nHost: h\r\n"),
            "505 close",
        ),
        (
            fields("Content-Length: 1\r\nContent-Length: 1\r\n"),
            "400 close",
        ),
        (fields("Content-Length: 1, 1\r\n"), "400 close"),
        (fields("Content-Length: +1\r\n"), "400 close"),
        (
            fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            "400 close",
        ),
        (fields("Transfer-Encoding: gzip, chunked\r\n"), "501 close"),
        (fields("Transfer-Encoding: chunked, gzip\r\n"), "400 close"),
        (
            fields("Transfer-Encoding: chunked\r\n") + "0\n\r\n",
            "400 close",
        ),
        (fields("Content-Length: 65537\r\n"), "413 close"),
        (
            fields("Content-Length: 1048576\r\nExpect: 100-continue\r\n"),
            "413 close",
        ),
        (fields("Expect: 200-ok\r\n"), "417 close"),
    ] {
        check_refused(input, &[status]);
    }
}

#[test]
fn methods_and_paths_that_are_not_served_keep_the_connection() {
    Scene::new().check(
        &[send(
            [
                request("POST", "/get?key=k", ""),
                request("OPTIONS", "/get?key=k", ""),
                request("PURGE", "/get?key=k", ""),
                request("GET", "/", ""),
                request("GET", "/get?key=%zz", ""),
                request("GET", "/get?key=a&key=b", ""),
                get("k"),
            ]
            .concat(),
        )],
        &["405", "405", "501", "404", "400", "400", HIT],
        End::Open,
    );
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let played = |input: &str| {
        let played = Scene::new().play(&[send(input)]);
        assert_eq!(played.driver.end, End::Shut);
        played.answers(&[]).remove(0).status
    };
    assert_eq!(played(&get(&"x".repeat(33 << 10))), 414);
    let fields = format!("X: {}\r\n", "y".repeat(17 << 10));
    assert_eq!(played(&request("GET", "/get?key=k", &fields)), 431);
}

#[test]
fn a_body_is_read_and_dropped() {
    let hidden = get("cold");
    let plain = request(
        "POST",
        "/get?key=k",
        &format!("Content-Length: {}\r\n", hidden.len()),
    );
    let chunked = request("GET", "/get?key=k", "Transfer-Encoding: chunked\r\n");
    let chunks = format!(
        "{:x};a=b\r\n{hidden}\r\n0\r\nTrailer: x\r\n\r\n",
        hidden.len()
    );
    let scene = Scene::new();
    let steps = [send(
        [&plain, &hidden, &chunked, &chunks, &get("k")[..]].concat(),
    )];
    scene.check(&steps, &["405", HIT, HIT], End::Open);
    assert!(scene.play(&steps).driver.asked.is_empty());
}

#[test]
fn the_largest_body_goes_through_whatever_comes_behind_it() {
    let length = Limits::DEFAULT.body_bytes_max;
    let head = request(
        "GET",
        "/get?key=k",
        &format!("Content-Length: {length}\r\n"),
    );
    let message = [head.as_bytes(), &vec![b'z'; length], get("k").as_bytes()].concat();
    for piece in [1460, 65_536, usize::MAX] {
        let steps: Vec<Step> = message.chunks(piece.min(message.len())).map(send).collect();
        let played = Scene::new().play(&steps);
        assert_eq!(played.answers(&[]).len(), 2, "in pieces of {piece}");
        assert_eq!(played.driver.end, End::Open);
    }
}

#[test]
fn a_client_that_expects_it_is_told_to_send_its_body_in_its_turn() {
    let expecting = request(
        "POST",
        "/get?key=k",
        "Content-Length: 3\r\nExpect: 100-continue\r\n",
    );
    Scene::new().check(
        &[send(&expecting), send("abc"), send(get("k"))],
        &["100", "405", HIT],
        End::Open,
    );
    // Behind an answer that is owed the word must wait.
    Scene::new().check(
        &[
            send([get("cold"), expecting].concat()),
            Step::Answer,
            send("abc"),
        ],
        &["200 [fwd=uri-miss; stored] w", "100", "405"],
        End::Open,
    );
    // Without a body there is nothing to continue with.
    Scene::new().check(
        &[send(request(
            "GET",
            "/get?key=k",
            "Expect: 100-continue\r\n",
        ))],
        &[HIT],
        End::Open,
    );
}

#[test]
fn slow_requests_get_408_and_a_close() {
    let body = request("POST", "/get?key=k", "Content-Length: 10\r\n") + "abc";
    let chunks = request("GET", "/get?key=k", "Transfer-Encoding: chunked\r\n") + "3\r\nab";
    for slow in ["G", "GET /get?key=k HTTP/1.1\r\nHost:", &body, &chunks] {
        let scene = Scene::new();
        scene.check(&[send(slow), wait_ms(9900)], &[], End::Open);
        scene.check(&[send(slow), wait_ms(10_200)], &["408 close"], End::Shut);
        // A byte now and then does not help, nor does what comes after.
        scene.check(
            &[
                wait_ms(3000),
                send(slow),
                wait_ms(6000),
                send("x"),
                wait_ms(4200),
                send(get("k")),
            ],
            &["408 close"],
            End::Shut,
        );
        scene.check(&[send(slow), wait_ms(13_000)], &["408 close"], End::Closed);
    }
}

#[test]
fn each_request_has_its_own_time() {
    // Every piece ends one request and begins the next, so there is always an unfinished one.
    let (front, back) = ("GET /get?key=k HTTP/1.1\r\n", "Host: h\r\n\r\n");
    let mut steps = vec![send(front)];
    for _ in 0..4 {
        steps.extend([wait_ms(6000), send([back, front].concat())]);
    }
    Scene::new().check(
        &steps,
        &[
            "200 [hit; ttl=24] age=6 v",
            "200 [hit; ttl=18] age=12 v",
            "200 [hit; ttl=12] age=18 v",
            "200 [hit; ttl=6] age=24 v",
        ],
        End::Open,
    );
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let scene = Scene::new();
    scene.check(&[wait_ms(74_000)], &[], End::Open);
    scene.check(&[wait_ms(75_300)], &[], End::Shut);
    scene.check(&[send(get("k")), wait_ms(74_000)], &[HIT], End::Open);
    scene.check(&[send(get("k")), wait_ms(75_300)], &[HIT], End::Shut);
    // An empty line is no beginning of a request.
    scene.check(&[send("\r\n"), wait_ms(75_300)], &[], End::Shut);
}

#[test]
fn waiting_for_redis_is_not_idleness() {
    let scene = Scene::new().with(|config| {
        config.redis_timeout = std::time::Duration::from_secs(3600);
        config.http_idle_timeout = std::time::Duration::from_secs(5);
    });
    scene.check(
        &[
            send(get("cold")),
            wait_ms(60_000),
            Step::Answer,
            wait_ms(4000),
        ],
        &["200 [fwd=uri-miss] w"],
        End::Open,
    );
    scene.check(
        &[
            send(get("cold")),
            wait_ms(60_000),
            Step::Answer,
            wait_ms(5200),
        ],
        &["200 [fwd=uri-miss] w"],
        End::Shut,
    );
}

#[test]
fn a_client_that_does_not_read_is_closed_when_its_time_is_over() {
    let scene = Scene::new();
    let steps = |ms| [Step::StopReading, send(get("k")), wait_ms(ms)];
    scene.check(&steps(74_000), &[], End::Open);
    scene.check(&steps(86_000), &[], End::Closed);
    // Neither does one whose refusal is still to be sent last longer for sending more.
    let mut refused = vec![Step::StopReading, send("x\r\n")];
    for _ in 0..9 {
        refused.extend([send("more"), wait_ms(10_000)]);
    }
    scene.check(&refused, &[], End::Closed);
}
