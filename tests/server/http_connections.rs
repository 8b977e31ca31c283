//! HTTP connections from their begin to their end: slow, half-closed, refused and foreign ones, and the ports themselves.

use crate::support::http::{HttpClient, Response, request_for};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};

/// A proxy before a Redis that holds `k` = `v`.
fn start_with(configure: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> (Proxy, RedisServer) {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    (configure(Proxy::to(&redis)).start(), redis)
}

/// The same, with a relay between the two.
fn start_relayed(
    configure: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
) -> (Proxy, Relay, RedisServer) {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    let relay = Relay::to(redis.port());
    let proxy = configure(Proxy::through(&relay)).start();
    (proxy, relay, redis)
}

#[test]
fn slow_heads_and_bodies_get_408_and_a_close() {
    let (proxy, redis) = start_with(|proxy| proxy.env("HTTP_HEAD_TIMEOUT_SECS", "300ms"));
    for slow in [
        "GET /get?key=k HTT",
        "GET /get?key=k HTTP/1.1\r\nHost: h\r\nX:",
        "POST /get?key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        "GET /get?key=k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut http = proxy.http();
        http.send(slow.as_bytes());
        let response = http.response();
        assert_eq!(response.status, 408, "{slow}");
        assert_eq!(response.header("connection"), Some("close"));
        assert!(http.bytes_until_closed().is_empty());
    }
    assert_eq!(redis.calls_of("get"), 0);
}

#[test]
fn idle_connections_are_closed_without_a_word_and_busy_ones_are_not() {
    let (proxy, relay, _redis) = start_relayed(|proxy| {
        proxy
            .env("HTTP_IDLE_TIMEOUT_SECS", "300ms")
            .env("REDIS_TIMEOUT_MS", 60_000)
    });
    assert!(proxy.http().bytes_until_closed().is_empty());
    let mut used = proxy.http();
    assert_eq!(used.get("k").body, b"v");
    assert!(used.bytes_until_closed().is_empty());
    // Others come and go while this one waits for Redis.
    relay.pause(Way::Down);
    let mut waiting = proxy.http();
    waiting.send(&request_for("GET", "cold"));
    eventually("it is asked", PATIENCE, || relay.has_seen(Way::Up, b"cold"));
    for _ in 0..3 {
        assert!(proxy.http().bytes_until_closed().is_empty());
    }
    relay.resume(Way::Down);
    assert_eq!(waiting.response().status, 404);
    assert!(waiting.bytes_until_closed().is_empty());
}

#[test]
fn a_half_closed_client_waits_for_what_redis_owes_it() {
    let (proxy, relay, redis) = start_relayed(|proxy| proxy);
    assert_eq!(proxy.http().get("k").body, b"v");
    redis.call(&["SET", "cold", "w"]);
    relay.pause(Way::Down);
    let mut http = proxy.http();
    http.send(
        &[
            request_for("GET", "cold"),
            request_for("GET", "k"),
            request_for("GET", "cold"),
        ]
        .concat(),
    );
    http.finish_sending();
    eventually("it is asked", PATIENCE, || relay.has_seen(Way::Up, b"cold"));
    relay.resume(Way::Down);
    let answers: Vec<Response> = (0..3).map(|_| http.response()).collect();
    let statuses: Vec<&str> = answers
        .iter()
        .map(|answer| answer.cache_status().split("; ttl").next().unwrap_or(""))
        .collect();
    assert_eq!(
        statuses,
        [
            "nearcache; fwd=uri-miss; stored",
            "nearcache; hit",
            "nearcache; fwd=uri-miss; collapsed"
        ]
    );
    assert_eq!([&answers[0].body, &answers[1].body], [b"w", b"v"]);
    assert!(http.bytes_until_closed().is_empty());
}

#[test]
fn a_refusal_is_read_although_much_more_was_sent() {
    let (proxy, _redis) = start_with(|proxy| proxy);
    let body = vec![b'x'; 1 << 20];
    let chunk = [
        format!("{:x}\r\n", body.len()).as_bytes(),
        &body,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for (field, body) in [
        ("Content-Length: 1048576", &body),
        ("Transfer-Encoding: chunked", &chunk),
    ] {
        let mut http = proxy.http();
        http.send(format!("POST /get?key=k HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n").as_bytes());
        http.send(body);
        http.send(&request_for("GET", "k"));
        http.finish_sending();
        let response = http.response();
        assert_eq!(response.status, 413, "{field}");
        assert!(http.bytes_until_closed().is_empty(), "{field}");
    }
}

#[test]
fn heads_up_to_their_limits_are_answered_and_longer_ones_refused_and_closed() {
    let (proxy, _redis) = start_with(|proxy| proxy);
    let mut well = proxy.http();
    // The line without its end; all fields with the empty line behind them, `Host: h` among them; how many there are.
    let ask = |line_bytes: usize, fields_bytes: usize, fields: usize| {
        let frame = "GET /get?key=k&=x HTTP/1.1".len();
        let line = format!(
            "GET /get?key=k&{}=x HTTP/1.1\r\n",
            "x".repeat(line_bytes - frame)
        );
        let mut head = "Host: h\r\n".to_owned();
        for n in 2..fields {
            head.push_str(&format!("A{n}: b\r\n"));
        }
        let frame = head.len() + "Z: \r\n\r\n".len();
        head.push_str(&format!("Z: {}\r\n\r\n", "z".repeat(fields_bytes - frame)));
        (line + &head).into_bytes()
    };
    const LINE: usize = 32 * 1024;
    const FIELDS: usize = 16 * 1024;
    for (bytes, status) in [
        (ask(LINE, FIELDS, 100), 200),
        (ask(LINE + 1, 100, 2), 414),
        (ask(100, FIELDS + 1, 2), 431),
        (ask(100, 2000, 101), 431),
    ] {
        let mut http = proxy.http();
        http.send(&bytes);
        let response = http.response();
        assert_eq!(response.status, status, "{}", crate::support::show(&bytes));
        if status == 200 {
            assert_eq!(response.body, b"v");
        } else {
            assert!(http.bytes_until_closed().is_empty());
        }
        assert_eq!(well.get("k").body, b"v", "others notice nothing");
    }
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let (proxy, _redis) = start_with(|proxy| proxy);
    let mut http = proxy.http();
    let head =
        "POST /get?key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    for _ in 0..3 {
        http.send(head.as_bytes());
        assert_eq!(http.response().status, 100);
        http.send(b"hello");
        assert_eq!(http.response().status, 405);
        assert_eq!(http.get("k").body, b"v");
    }
}

#[test]
fn bytes_of_other_protocols_never_reach_redis() {
    let (proxy, relay, redis) = start_relayed(|proxy| proxy);
    let resp = encode(&["SET", "smuggled", "x"]);
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0smuggled".to_vec();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03smuggled".to_vec();
    let posted = [
        b"POST /get?key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n".as_slice(),
        &resp,
    ]
    .concat();
    for (bytes, status) in [
        (resp, 400),
        (b"SET smuggled x\r\n".to_vec(), 400),
        (http2, 400),
        (tls, 400),
        (posted, 413),
    ] {
        let mut http = proxy.http();
        http.send(&bytes);
        let response = http.response();
        assert_eq!(response.status, status, "{}", crate::support::show(&bytes));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(http.bytes_until_closed().is_empty());
    }
    // What is asked afterwards does reach Redis, so the silence before means something.
    assert_eq!(proxy.http().get("k").body, b"v");
    assert!(relay.has_seen(Way::Up, b"\r\nk\r\n"));
    assert!(!relay.has_seen(Way::Up, b"smuggled"));
    assert_eq!(redis.call(&["EXISTS", "smuggled"]), Reply::Int(0));
}

#[test]
fn failures_of_redis_have_their_status() {
    let (proxy, relay, redis) = start_relayed(|proxy| proxy.env("REDIS_TIMEOUT_MS", 300));
    let mut http = proxy.http();
    assert_eq!(http.get("k").status, 200);
    redis.call(&["ACL", "SETUSER", "default", "-get"]);
    let refused = http.get("refused");
    assert_eq!(refused.status, 502);
    assert!(
        refused.body.starts_with(b"NOPERM "),
        "{}",
        crate::support::show(&refused.body)
    );
    redis.call(&["ACL", "SETUSER", "default", "+get"]);
    relay.pause(Way::Down);
    let late = http.get("late");
    assert_eq!(late.status, 504);
    assert_eq!(late.cache_status(), "nearcache; fwd=uri-miss");
    relay.resume(Way::Down);
    relay.refuse(true);
    relay.cut_all();
    eventually("it is known that Redis is away", PATIENCE, || {
        let away = http.get("away");
        away.status == 503 && away.header("retry-after") == Some("1")
    });
    relay.refuse(false);
    eventually("Redis is back", PATIENCE, || http.get("away").status == 404);
}

/// What a browser adds when a page of `origin` fetches from here, as the Fetch standard has it.
fn fetched_by(origin: &str, site: &str) -> Vec<u8> {
    format!(
        "GET /get?key=k HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\nAccept: */*\r\n\
         User-Agent: Mozilla/5.0\r\nOrigin: {origin}\r\nSec-Fetch-Site: {site}\r\nSec-Fetch-Mode: cors\r\n\
         Sec-Fetch-Dest: empty\r\nReferer: {origin}/\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn pages_of_other_origins_read_nothing_unless_they_are_allowed() {
    let ask = |http: &mut HttpClient, request: &[u8]| {
        http.send(request);
        http.response()
    };
    let image = b"GET /get?key=k HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\
        Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n\r\n";
    let typed = b"GET /get?key=k HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\n\
        Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-User: ?1\r\n\r\n";
    let evil = fetched_by("https://evil.example", "cross-site");
    let app = fetched_by("https://app.example", "cross-site");
    let neighbour = fetched_by("http://localhost:3000", "same-site");
    let own = fetched_by("http://localhost", "same-origin");

    let (strict, redis) = start_with(|proxy| proxy);
    let mut http = strict.http();
    for foreign in [&evil[..], &app, &neighbour, image] {
        let response = ask(&mut http, foreign);
        assert_eq!(response.status, 403, "{}", crate::support::show(foreign));
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert_eq!(redis.calls_of("get"), 0);
    for ours in [&own[..], typed] {
        assert_eq!(ask(&mut http, ours).body, b"v");
    }

    let origins = "https://other.example,https://app.example";
    let (listed, _redis) = start_with(|proxy| proxy.env("HTTP_ALLOWED_ORIGINS", origins));
    let mut http = listed.http();
    let response = ask(&mut http, &app);
    assert_eq!(response.body, b"v");
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(response.header("vary"), Some("Origin"));
    for foreign in [&evil[..], &neighbour, image] {
        assert_eq!(ask(&mut http, foreign).status, 403);
    }

    let (open, _redis) = start_with(|proxy| proxy.env("HTTP_ALLOWED_ORIGINS", "*"));
    let mut http = open.http();
    let response = ask(&mut http, &evil);
    assert_eq!(response.body, b"v");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn names_that_are_not_listed_are_not_answered() {
    let (proxy, redis) =
        start_with(|proxy| proxy.env("HTTP_ALLOWED_HOSTS", "localhost, cache.example:8080"));
    let mut http = proxy.http();
    let mut ask = |host: &str| {
        http.send(format!("GET /get?key=k HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        http.response().status
    };
    // A page of evil.example whose name now points here says evil.example, and it is its own origin.
    for foreign in [
        "evil.example",
        "evil.example:6000",
        "cache.example",
        "127.0.0.1",
    ] {
        assert_eq!(ask(foreign), 403, "{foreign}");
    }
    assert_eq!(redis.calls_of("get"), 0);
    for ours in [
        "localhost",
        "localhost:6000",
        "LOCALHOST",
        "cache.example:8080",
    ] {
        assert_eq!(ask(ours), 200, "{ours}");
    }
}

#[test]
fn each_port_can_be_off() {
    let (proxy, redis) = start_with(ProxyBuilder::without_http);
    assert!(HttpClient::try_connect(proxy.http_port).is_none());
    assert_eq!(proxy.resp().call(&["GET", "k"]), Reply::bulk("v"));
    drop(proxy);
    let proxy = Proxy::to(&redis).without_resp().start();
    assert!(crate::support::resp::RespClient::try_connect(proxy.resp_port).is_none());
    assert_eq!(proxy.http().get("k").body, b"v");
}

#[test]
fn values_are_text_or_octets_and_say_so_each_time() {
    let (proxy, redis) = start_with(|proxy| proxy);
    for (value, kind) in [
        (
            "gr\u{fc}n \u{1f600}".as_bytes(),
            "text/plain; charset=utf-8",
        ),
        (b"", "text/plain; charset=utf-8"),
        (b"\xff\xfe", "application/octet-stream"),
        (&[b'x'; 20_000], "text/plain; charset=utf-8"),
    ] {
        redis.call(&[b"SET".as_slice(), b"value", value]);
        let mut http = proxy.http();
        let fresh = b"GET /get?key=value HTTP/1.1\r\nHost: h\r\nCache-Control: no-cache\r\n\r\n";
        http.send(fresh);
        let answers = [http.response(), http.get("value"), http.get("value")];
        for answer in &answers {
            assert_eq!((answer.status, &answer.body[..]), (200, value));
            assert_eq!(answer.header("content-type"), Some(kind));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.header("etag"), answers[0].header("etag"));
        }
        assert!(!answers[0].is_hit() && answers[1].is_hit() && answers[2].is_hit());
        // What RESP put there is found out by the first HTTP read.
        proxy.resp().call(&["DEL", "value"]);
        redis.call(&[b"SET".as_slice(), b"value", value]);
        assert_eq!(proxy.resp().call(&["GET", "value"]), Reply::bulk(value));
        let hit = http.get("value");
        assert!(hit.is_hit());
        assert_eq!(hit.header("content-type"), Some(kind));
        assert_eq!(hit.header("etag"), answers[0].header("etag"));
    }
}
