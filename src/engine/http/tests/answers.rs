//! What the answer to a request is.
#![forbid(unsafe_code)]

use super::super::{Facts, bulk_in, status_of};
use super::driver::{End, Held, Step, send, wait_ms};
use super::{Scene, get, request};
use crate::fetch::FetchError;
use crate::hash::KeyHasher;

#[test]
fn a_hit_to_the_byte() {
    let played = Scene::new().play(&[wait_ms(2500), send(get("k"))]);
    let received = String::from_utf8(played.driver.received).expect("text");
    let (before, behind) = received.split_once("ETag: \"").expect("an entity tag");
    let (tag, behind) = behind.split_once('"').expect("its end");
    assert!(tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        [before, behind],
        [
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: 1\r\nDate: Sun, 06 Nov 1994 08:49:39 GMT\r\n\
             Cache-Control: no-store\r\n",
            "\r\nCache-Status: nearcache; hit; ttl=27\r\nAge: 2\r\n\r\nv"
        ]
    );
}

#[test]
fn a_miss_is_fetched_and_the_next_read_is_a_hit_with_its_age() {
    Scene::new().check(
        &[
            send(get("cold")),
            Step::Answer,
            wait_ms(3100),
            send(get("cold")),
            wait_ms(27_000),
            send(get("cold")),
            Step::Answer,
        ],
        &[
            "200 [fwd=uri-miss; stored] w",
            "200 [hit; ttl=26] age=3 w",
            "200 [fwd=uri-miss; stored] w",
        ],
        End::Open,
    );
}

#[test]
fn readers_of_one_key_share_a_fetch() {
    let scene = Scene::new();
    let steps = [send(get("cold").repeat(3)), Step::Answer];
    let expected = [
        "200 [fwd=uri-miss; stored] w",
        "200 [fwd=uri-miss; collapsed] w",
        "200 [fwd=uri-miss; collapsed] w",
    ];
    scene.check(&steps, &expected, End::Open);
    assert_eq!(scene.play(&steps).driver.asked, [b"cold"]);
}

#[test]
fn no_cache_forces_a_fetch_which_later_readers_may_join() {
    let scene = Scene::new();
    let forced = request("GET", "/get?key=k", "Cache-Control: no-cache\r\n");
    let steps = [
        send([get("k"), forced.clone(), get("k"), forced].concat()),
        Step::Answer,
        send(get("k")),
    ];
    // The one that joins the first fetch is still answered by it; what is kept comes from the second.
    scene.check(
        &steps,
        &[
            "200 [hit; ttl=30] age=0 v",
            "200 [fwd=request] v",
            "200 [fwd=uri-miss; collapsed] v",
            "200 [fwd=request] v",
            "200 [hit; ttl=30] age=0 v",
        ],
        End::Open,
    );
    assert_eq!(scene.play(&steps).driver.asked, [b"k", b"k"]);
}

#[test]
fn a_value_too_large_to_keep_is_passed_through() {
    let huge = "x".repeat(65);
    Scene::new().warm(&[b"huge"]).check(
        &[
            send([get("huge"), request("HEAD", "/get?key=huge", "")].concat()),
            Step::Answer,
        ],
        &[&format!("200 [fwd=bypass] {huge}"), "head 200 [fwd=bypass]"],
        End::Open,
    );
    Scene::new().check(
        &[send(get("huge")), Step::Answer],
        &[&format!("200 [fwd=uri-miss] {huge}")],
        End::Open,
    );
}

#[test]
fn a_missing_key_is_404_and_may_be_known_to_be_missing() {
    Scene::new().check(
        &[
            send(get("none")),
            Step::Answer,
            send(get("none")),
            Step::Answer,
        ],
        &["404 [fwd=uri-miss] no such key"; 2],
        End::Open,
    );
    Scene::new()
        .with(|config| config.cache_negative_ttl = std::time::Duration::from_secs(4))
        .check(
            &[
                send(request("HEAD", "/get?key=none", "")),
                Step::Answer,
                wait_ms(1100),
                send(get("none")),
            ],
            &[
                // Up to a tenth of the time is taken off at random.
                "head 404 [fwd=uri-miss; stored]",
                "404 [hit; ttl=2] age=1 no such key",
            ],
            End::Open,
        );
}

#[test]
fn errors_of_redis_have_their_status_and_keep_the_connection() {
    Scene::new().check(
        &[
            send(["hash", "busy", "odd", "k"].map(get).concat()),
            send(request("HEAD", "/get?key=hash", "")),
            Step::Answer,
        ],
        &[
            "409 [fwd=uri-miss] WRONGTYPE Operation against a key",
            "503 [fwd=uri-miss] BUSY Redis is busy",
            "502 [fwd=uri-miss] ERR odd",
            "200 [hit; ttl=30] age=0 v",
            "head 409 [fwd=uri-miss; collapsed]",
        ],
        End::Open,
    );
}

#[test]
fn errors_of_redis_to_a_read_that_is_passed_through_have_the_same_status() {
    let mut scene = Scene::new().with(|config| config.cache_max_key_bytes = 1);
    for (key, text) in [
        (&b"loading"[..], "LOADING Redis is loading"),
        (b"down", "MASTERDOWN Link with MASTER is down"),
    ] {
        scene.redis.push((key, Held::Error(text)));
    }
    scene.check(
        &[
            send(
                ["hash", "busy", "loading", "down", "odd", "none", "cold"]
                    .map(get)
                    .concat(),
            ),
            Step::Answer,
        ],
        &[
            "409 [fwd=bypass] WRONGTYPE Operation against a key",
            "503 [fwd=bypass] BUSY Redis is busy",
            "503 [fwd=bypass] LOADING Redis is loading",
            "503 [fwd=bypass] MASTERDOWN Link with MASTER is down",
            "502 [fwd=bypass] ERR odd",
            "404 [fwd=bypass] no such key",
            "200 [fwd=bypass] w",
        ],
        End::Open,
    );
}

#[test]
fn a_redis_that_is_silent_or_away_is_504_or_503() {
    // While it answers PINGs it has twenty times that.
    let patience = std::time::Duration::from_millis(150);
    Scene::new()
        .with(|config| config.redis_timeout = patience)
        .check(
            &[send([get("cold"), get("k")].concat()), wait_ms(3100)],
            &[
                "504 [fwd=uri-miss] Redis did not answer in time",
                "200 [hit; ttl=30] age=0 v",
            ],
            End::Open,
        );
    Scene::new().check(
        &[
            Step::Lose,
            send([get("cold"), request("HEAD", "/get?key=cold", ""), get("k")].concat()),
        ],
        &[
            "503 [fwd=uri-miss] Redis is not reachable: connection refused",
            "head 503 [fwd=uri-miss]",
            "200 [hit; ttl=30] age=0 v",
        ],
        End::Open,
    );
}

#[test]
fn too_many_requests_at_once_are_503_after_their_wait() {
    Scene::new()
        .with(|config| {
            config.max_concurrent_requests = 1;
            config.redis_timeout = std::time::Duration::from_secs(100);
        })
        .check(
            &[
                send([get("cold"), get("text"), get("k")].concat()),
                wait_ms(5100),
                Step::Answer,
            ],
            &[
                "200 [fwd=uri-miss; stored] w",
                "503 [fwd=uri-miss] too many requests at the same time",
                "200 [hit; ttl=24] age=5 v",
            ],
            End::Open,
        );
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    // Redis answers the last question first, and hits, refusals and misses stand among each other.
    Scene::new().check(
        &[
            send(
                [
                    get("cold"),
                    get("k"),
                    request("GET", "/nowhere", ""),
                    get("text"),
                    request("HEAD", "/get?key=k", ""),
                    request("POST", "/get?key=k", "Content-Length: 3\r\n") + "abc",
                    get("hash"),
                    request("GET", "/get", ""),
                    get("k"),
                ]
                .concat(),
            ),
            Step::Answer,
        ],
        &[
            "200 [fwd=uri-miss; stored] w",
            "200 [hit; ttl=30] age=0 v",
            "404",
            "200 [fwd=uri-miss; stored] gr\\xc3\\xbcn",
            "head 200 [hit; ttl=30] age=0",
            "405",
            "409 [fwd=uri-miss] WRONGTYPE Operation against a key",
            "400",
            "200 [hit; ttl=30] age=0 v",
        ],
        End::Open,
    );
}

#[test]
fn head_has_the_same_head_as_get() {
    let pair = |key: &str| [get(key), request("HEAD", &format!("/get?key={key}"), "")].concat();
    for key in ["k", "cold", "none", "hash", "octets"] {
        let played = Scene::new().play(&[send(pair(key)), Step::Answer]);
        let answers = played.answers(&["", "head "]);
        let [get, mut head] = <[_; 2]>::try_from(answers).expect("two answers");
        assert!(head.body.is_empty() && !get.body.is_empty());
        for (name, value) in &mut head.fields {
            // They share one fetch, which is all that may tell them apart.
            if value.ends_with("; collapsed") {
                *value = get.field(name).expect("the same fields").to_owned();
            }
        }
        assert_eq!(
            (head.status, head.fields),
            (get.status, get.fields),
            "{key}"
        );
    }
}

#[test]
fn a_condition_that_names_the_value_is_answered_with_304_wherever_the_value_comes_from() {
    let scene = Scene::new().warm(&[b"huge"]);
    let tag_of = |key: &str| {
        let played = scene.play(&[send(get(key)), Step::Answer]);
        let answer = played.answers(&[]).remove(0);
        answer.field("ETag").expect("an entity tag").to_owned()
    };
    let asking = |key: &str, condition: &str| {
        request(
            "GET",
            &format!("/get?key={key}"),
            &format!("If-None-Match: {condition}\r\n"),
        )
    };
    for (key, way) in [
        ("k", "[hit; ttl=30] age=0"),
        ("cold", "[fwd=uri-miss; stored]"),
        ("huge", "[fwd=bypass]"),
    ] {
        let tag = tag_of(key);
        let modified = match key {
            "huge" => format!("200 {way} {}", "x".repeat(65)),
            "cold" => "200 [fwd=uri-miss; collapsed] w".to_owned(),
            _ => format!("200 {way} v"),
        };
        let not_modified = format!("304 {way}");
        let again = not_modified.replace("stored", "collapsed");
        let head = format!("head {again}");
        scene.check(
            &[
                send(asking(key, &tag)),
                send(asking(key, &format!("\"x\", W/{tag}"))),
                send(asking(key, "*")),
                send(asking(key, "\"0123456789abcdef\"")),
                send(request(
                    "HEAD",
                    &format!("/get?key={key}"),
                    &format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"),
                )),
                Step::Answer,
            ],
            &[&not_modified, &again, &again, &modified, &head],
            End::Open,
        );
    }
    // No value, no condition that could hold.
    scene.check(
        &[send(asking("none", "*")), Step::Answer],
        &["404 [fwd=uri-miss] no such key"],
        End::Open,
    );
}

#[test]
fn a_304_names_the_value_it_stands_for_and_has_no_content() {
    let condition = request("GET", "/get?key=k", "If-None-Match: *\r\n");
    let played = Scene::new().play(&[send(condition)]);
    let answer = played.answers(&[]).remove(0);
    assert_eq!(answer.status, 304);
    let names: Vec<&str> = answer
        .fields
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "X-Content-Type-Options",
            "Date",
            "Cache-Control",
            "ETag",
            "Cache-Status",
            "Age"
        ]
    );
}

#[test]
fn text_and_octets_are_told_apart_on_misses_and_hits() {
    for (key, kind) in [
        ("text", "text/plain; charset=utf-8"),
        ("octets", "application/octet-stream"),
    ] {
        let played = Scene::new().play(&[send(get(key)), Step::Answer, send(get(key))]);
        let answers = played.answers(&[]);
        let kinds: Vec<_> = answers.iter().map(|a| a.field("Content-Type")).collect();
        assert_eq!(kinds, [Some(kind); 2], "{key}");
        assert_eq!(
            answers[0].field("ETag"),
            answers[1].field("ETag"),
            "the same value has the same tag"
        );
    }
}

#[test]
fn what_was_found_out_about_a_value_is_remembered_with_its_entry() {
    let mut driver = Scene::new().driver();
    let tag = |engine: &crate::engine::Engine, key: &[u8]| {
        let hash = engine.hasher.hash(key);
        let stamp = engine.cache.stamp(0, key, hash, engine.now);
        stamp.expect("an entry").tag
    };
    driver.play(&send(get("text")));
    driver.play(&Step::Answer);
    let found = tag(&driver.engine, b"text");
    assert_eq!(Facts::from_tag(found).map(|facts| facts.utf8), Some(true));

    // An entry that came by RESP is looked at by the first HTTP read, and what it then remembers is believed.
    let hash = driver.engine.hasher.hash(b"text");
    driver.engine.cache.set_tag(0, b"text", hash, 0);
    driver.play(&send(get("text")));
    assert_eq!(tag(&driver.engine, b"text"), found);
    let claimed = Facts {
        utf8: false,
        etag: 0xabc0,
    };
    driver
        .engine
        .cache
        .set_tag(0, b"text", hash, claimed.to_tag());
    driver.received.clear();
    driver.play(&send(get("text")));
    let received = String::from_utf8_lossy(&driver.received).into_owned();
    assert!(received.contains("application/octet-stream"), "{received}");
    assert!(
        received.contains("ETag: \"000000000000abc0\""),
        "{received}"
    );
}

#[test]
fn facts_survive_their_tag() {
    let hasher = KeyHasher::new([1, 2, 3, 4]);
    assert_eq!(Facts::from_tag(0), None);
    for (value, utf8) in [
        (&b""[..], true),
        (b"a", true),
        ("\u{1f600}".as_bytes(), true),
        (b"\xf0\x9f", false),
    ] {
        let facts = Facts::of(value, &hasher);
        assert_eq!(facts.utf8, utf8);
        assert_eq!(Facts::from_tag(facts.to_tag()), Some(facts));
    }
}

#[test]
fn cache_control_is_what_is_configured() {
    for (configured, expected) in [("max-age=5", Some("max-age=5")), ("", None)] {
        let scene = Scene::new().with(|config| config.http_cache_control = configured.to_owned());
        let played = scene.play(&[send([get("k"), request("GET", "/get", "")].concat())]);
        let answers = played.answers(&[]);
        assert_eq!(answers[0].field("Cache-Control"), expected);
        assert_eq!(answers[1].field("Cache-Control"), Some("no-store"));
    }
}

#[test]
fn pages_of_other_origins_are_refused_unless_allowed() {
    let from = |origin: &str| {
        request(
            "GET",
            "/get?key=k",
            &format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\n"),
        )
    };
    let image = request("GET", "/get?key=k", "Sec-Fetch-Site: cross-site\r\n");
    let requests = [
        from("https://evil.example"),
        from("https://app.example"),
        from("null"),
        image,
        request(
            "GET",
            "/get?key=k",
            "Origin: http://h\r\nSec-Fetch-Site: same-origin\r\n",
        ),
        get("k"),
    ]
    .concat();
    const SERVED: &str = "200 [hit; ttl=30] age=0 v";
    let check = |origins: &[&str], expected: [&str; 6], readers: [Option<&str>; 6]| {
        let scene = Scene::new().with(|config| {
            config.http_allowed_origins = origins.iter().map(ToString::to_string).collect();
        });
        let steps = [send(&requests)];
        scene.check(&steps, &expected, End::Open);
        let played = scene.play(&steps);
        let answers = played.answers(&[]);
        let readable: Vec<_> = answers
            .iter()
            .map(|answer| answer.field("Access-Control-Allow-Origin"))
            .collect();
        assert_eq!(readable, readers);
        assert!(played.driver.asked.is_empty());
    };
    check(&[], ["403", "403", "403", "403", SERVED, SERVED], [None; 6]);
    let app = "https://app.example";
    check(
        &["https://other.example", app],
        ["403", SERVED, "403", "403", SERVED, SERVED],
        [None, Some(app), None, None, None, None],
    );
    let any = Some("*");
    check(&["*"], [SERVED; 6], [any, any, any, None, None, None]);
}

#[test]
fn only_listed_hosts_are_answered() {
    let to = |host: &str| format!("GET /get?key=k HTTP/1.1\r\nHost: {host}\r\n\r\n");
    Scene::new()
        .with(|config| {
            config.http_allowed_hosts = vec!["cache.example".into(), "localhost:6000".into()];
        })
        .check(
            &[
                send(
                    ["cache.example:81", "localhost:6000", "localhost", "h"]
                        .map(to)
                        .concat(),
                ),
                Step::Answer,
            ],
            &[
                "200 [fwd=uri-miss; stored] v",
                "200 [fwd=uri-miss; collapsed] v",
                "403",
                "403",
            ],
            End::Open,
        );
}

#[test]
fn a_bulk_reply_is_a_value_nil_or_an_error() {
    assert_eq!(bulk_in(b"$3\r\na\r\n\r\n"), Some(Some(&b"a\r\n"[..])));
    assert_eq!(bulk_in(b"$0\r\n\r\n"), Some(Some(&b""[..])));
    assert_eq!(bulk_in(b"$-1\r\n"), Some(None));
    assert_eq!(bulk_in(b"-WRONGTYPE x\r\n"), None);
}

#[test]
fn each_failure_has_its_status() {
    assert_eq!(status_of(&FetchError::TimedOut), 504);
    assert_eq!(status_of(&FetchError::Unreachable(String::new())), 503);
    assert_eq!(
        status_of(&FetchError::Upstream("WRONGTYPE x".to_owned())),
        409
    );
    assert_eq!(
        status_of(&FetchError::Upstream("LOADING x".to_owned())),
        503
    );
    assert_eq!(status_of(&FetchError::Upstream("OOM x".to_owned())), 502);
}
