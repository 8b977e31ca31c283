//! What HTTP clients see: statuses, heads, bodies, order.

use crate::support::http::{request_for, target_of};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

/// A proxy before a Redis that holds `k` = `v`.
fn start() -> (Proxy, RedisServer) {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    (Proxy::start(&redis), redis)
}

#[test]
fn statuses_say_what_became_of_the_key() {
    let (proxy, redis) = start();
    redis.call(&["HSET", "hash", "f", "v"]);
    redis.call(&["SET", "", "the value of the empty key"]);
    let mut http = proxy.http();
    for (target, status) in [
        ("/get?key=k", 200),
        ("/get?key=none", 404),
        ("/get?key=hash", 409),
        ("/get?key=", 200),
        ("/get?other=1&key=k", 200),
        ("/get", 400),
        ("/get?", 400),
        ("/get?other=1", 400),
        ("/get?key=a&key=b", 400),
        ("/get?key=%zz", 400),
        ("/get?key=%f", 400),
        ("/", 404),
        ("/nowhere?key=k", 404),
        ("/getter?key=k", 404),
    ] {
        let response = http.get_target(target);
        assert_eq!(response.status, status, "{target}: {response:?}");
        assert!(response.header("date").is_some(), "{target}: {response:?}");
    }
    let body = |response: crate::support::http::Response| String::from_utf8(response.body).unwrap();
    assert_eq!(body(http.get("k")), "v");
    assert_eq!(body(http.get("")), "the value of the empty key");
    assert!(
        body(http.get("hash")).contains("WRONGTYPE"),
        "a 409 carries the text of Redis"
    );
    assert_ne!(
        body(http.get("none")),
        body(http.get_target("/nowhere")),
        "the two kinds of 404 are told apart"
    );
}

#[test]
fn other_methods_are_405_with_allow() {
    let (proxy, redis) = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let mut http = proxy.http();
        http.send(
            format!("{method} /get?key=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        );
        let response = http.response();
        assert_eq!(response.status, 405, "{method}");
        let allow = response
            .header("allow")
            .unwrap_or_else(|| panic!("{method}: no Allow"));
        assert!(
            allow.contains("GET") && allow.contains("HEAD"),
            "{method}: {allow}"
        );
    }
    assert_eq!(redis.calls_of("get"), 0);
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let (proxy, redis) = start();
    let hidden = "GET /get?key=hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut http = proxy.http();
    http.send(
        format!(
            "POST /get?key=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        )
        .as_bytes(),
    );
    assert_eq!(http.response().status, 405);
    // Read and dropped, or the connection is closed: either way the hidden request has no answer.
    http.finish_sending();
    let rest = http.bytes_until_closed();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(redis.calls_of("get"), 0);
}

#[test]
fn bytes_that_are_no_http_get_400_and_a_close() {
    let (proxy, redis) = start();
    for garbage in [
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"no such thing\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /get?key=k\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /get?key=k HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let mut http = proxy.http();
        http.send(garbage);
        let response = http.response();
        assert_eq!(
            response.status,
            400,
            "{}: {response:?}",
            crate::support::show(garbage)
        );
        assert!(http.bytes_until_closed().is_empty());
    }
    assert_eq!(redis.calls_of("get"), 0);
}

#[test]
fn a_hit_carries_age_and_cache_status_and_a_miss_no_age() {
    let (proxy, _redis) = start();
    let mut http = proxy.http();
    let miss = http.get("k");
    assert_eq!(miss.cache_status(), "nearcache; fwd=uri-miss; stored");
    assert_eq!(miss.header("age"), None);
    let hit = http.get("k");
    assert_eq!(hit.body, b"v");
    let ttl = hit
        .cache_status()
        .strip_prefix("nearcache; hit; ttl=")
        .unwrap_or_else(|| panic!("{hit:?}"));
    assert!((1..=60).contains(&ttl.parse::<u32>().unwrap()), "{ttl}");
    assert!(
        hit.header("age")
            .expect("a hit has an Age")
            .parse::<u32>()
            .unwrap()
            <= 60
    );
    for response in [miss, hit] {
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn head_is_get_without_the_body() {
    let (proxy, redis) = start();
    redis.call(&["HSET", "hash", "f", "v"]);
    redis.call(&["SET", "long", &"x".repeat(100_000)]);
    let mut http = proxy.http();
    for key in ["k", "long", "none", "hash"] {
        let first = http.head(key);
        let get = http.get(key);
        let head = http.head(key);
        assert_eq!(
            (first.status, head.status),
            (get.status, get.status),
            "{key}"
        );
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str()),
            "{key}"
        );
        assert_eq!(
            first.header("content-length"),
            head.header("content-length"),
            "{key}: a fetch answers HEAD as a hit does"
        );
    }
}

#[test]
fn keys_are_percent_decoded_as_forms_are() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let every_byte: Vec<u8> = (0..=255).collect();
    let samples: [(&[u8], &str); 6] = [
        (&every_byte, &target_of(&every_byte)),
        (b"a b", "/get?key=a+b"),
        (b"a b", "/get?key=a%20b"),
        (b"a+b", "/get?key=a%2Bb"),
        (b"a&b=c", "/get?key=a%26b%3dc"),
        (b"user:1/x", "/get?key=user:1/x"),
    ];
    for (key, target) in samples {
        redis.call(&[b"SET".as_slice(), key, key]);
        let response = proxy.http().get_target(target);
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, key),
            "{target}"
        );
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 1000;
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut set = vec!["MSET".to_string()];
    set.extend((0..100).flat_map(|n| [format!("k{n}"), format!("value {n}")]));
    redis.call(&set);
    let mut http = proxy.http();
    // Misses, hits, absent keys, HEADs and other paths, all in one write.
    let requests: Vec<u8> = (0..REQUESTS)
        .flat_map(|n| match n % 5 {
            3 => request_for("HEAD", format!("k{}", n % 100)),
            4 => b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            _ => request_for("GET", format!("k{}", n % 130)),
        })
        .collect();
    http.send(&requests);
    for n in 0..REQUESTS {
        match n % 5 {
            3 => assert_eq!(
                http.response_to_head().header("content-length"),
                Some(format!("value {}", n % 100).len().to_string().as_str())
            ),
            4 => assert_eq!(http.response().status, 404),
            _ if n % 130 < 100 => assert_eq!(
                http.response().body,
                format!("value {}", n % 130).as_bytes()
            ),
            _ => assert_eq!(http.response().status, 404),
        }
    }
}

#[test]
fn a_request_may_come_byte_by_byte_and_be_cut_anywhere() {
    let (proxy, _redis) = start();
    let mut http = proxy.http();
    let request = request_for("GET", "k");
    for byte in &request {
        http.send(&[*byte]);
    }
    assert_eq!(http.response().body, b"v");
    for cut in 1..request.len() {
        http.send(&request[..cut]);
        // The proxy has had its turn with the head's beginning alone when another client has its answer.
        assert_eq!(proxy.http().get("k").body, b"v");
        http.send(&request[cut..]);
        assert_eq!(http.response().body, b"v", "cut at {cut}");
    }
}

#[test]
fn a_half_closed_client_gets_every_answer_it_is_owed_and_then_the_end() {
    let (proxy, _redis) = start();
    let mut http = proxy.http();
    http.send(
        &[
            request_for("GET", "k"),
            request_for("GET", "none"),
            request_for("GET", "k"),
        ]
        .concat(),
    );
    http.finish_sending();
    assert_eq!(http.response().body, b"v");
    assert_eq!(http.response().status, 404);
    assert_eq!(http.response().body, b"v");
    assert!(http.bytes_until_closed().is_empty());
}

#[test]
fn connections_are_kept_or_closed_as_version_and_header_say() {
    let (proxy, _redis) = start();
    let is_kept = |request: &str| {
        let mut http = proxy.http();
        http.send(request.as_bytes());
        assert_eq!(http.response().body, b"v", "{request}");
        // On a connection that is kept a second request is answered; else there is the end.
        http.try_send_and_finish(b"GET /get?key=k HTTP/1.1\r\nHost: a\r\n\r\n");
        !http.bytes_until_closed().is_empty()
    };
    assert!(is_kept("GET /get?key=k HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(is_kept(
        "GET /get?key=k HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    ));
    assert!(!is_kept(
        "GET /get?key=k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    ));
    assert!(!is_kept(
        "GET /get?key=k HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n"
    ));
    assert!(!is_kept("GET /get?key=k HTTP/1.0\r\n\r\n"));
    assert!(is_kept(
        "GET /get?key=k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    ));
}
