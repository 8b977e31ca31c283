//! AUTH: a Redis with a password behind the proxy, and one beside it to compare with.

use crate::support::http::HttpClient;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::show;

const PASSWORD: &str = "the secret: å/=";

/// A Redis that wants a password, and that knows another user.
fn locked() -> RedisServer {
    let redis = RedisServer::start();
    redis.call(&[
        "ACL", "SETUSER", "alice", "on", ">wonder", "+@all", "~*", "&*",
    ]);
    redis.call(&["CONFIG", "SET", "requirepass", PASSWORD]);
    redis
}

/// A proxy in front of it that has the password, percent-encoded in its URL.
fn before(redis: &RedisServer) -> ProxyBuilder {
    let url = format!(
        "redis://:the%20secret%3A%20%C3%A5%2F%3D@127.0.0.1:{}/0",
        redis.port()
    );
    Proxy::to(redis).password_is(PASSWORD).env("REDIS_URL", url)
}

struct Both {
    proxy: Proxy,
    _redis: RedisServer,
    truth: RedisServer,
}

impl Both {
    fn start() -> Both {
        let (redis, truth) = (locked(), locked());
        Both {
            proxy: before(&redis).start(),
            _redis: redis,
            truth,
        }
    }

    /// Both are sent the same on fresh connections, and must say the same up to the end, which QUIT makes.
    #[track_caller]
    fn assert_same(&self, what: &str, calls: &[u8]) {
        let bytes = [calls, &encode_line("QUIT")].concat();
        let (mut ours, mut theirs) = (self.proxy.resp(), self.truth.client());
        let _ = ours.try_send(&bytes);
        let _ = theirs.try_send(&bytes);
        let expected = theirs.bytes_until_closed();
        let got = ours.bytes_until_closed();
        assert!(
            got == expected,
            "{what}\n  Redis says {}\n  we say     {}",
            show(&expected),
            show(&got)
        );
    }
}

#[test]
fn before_the_password_everything_is_refused_as_redis_refuses_it() {
    let both = Both::start();
    for line in [
        "GET k",
        "SET k v",
        "PING",
        "ECHO x",
        "INFO",
        "INFO nearcache",
        "SELECT 1",
        "CLIENT ID",
        "CLIENT LIST",
        "CLIENT SETNAME x",
        "CLIENT NOSUCH",
        "CLIENT REPLY OFF",
        "COMMAND",
        "CONFIG GET *",
        "EVAL return(1) 0",
        "MULTI",
        "SUBSCRIBE c",
        "NOSUCH",
        "NOSUCH with some arguments",
        "GET",
        "CLIENT SETNAME",
        "AUTH",
        "AUTH a b c",
        "AUTH wrong",
        "AUTH default wrong",
        "AUTH nobody wrong",
        "AUTH alice wrong",
        "HELLO",
        "HELLO 2",
        "HELLO 3",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 SETNAME me",
        "HELLO 3 AUTH default wrong",
        "HELLO 3 AUTH default",
        "HELLO 3 AUTH nobody wrong SETNAME me",
        "HELLO 4 AUTH default wrong",
        "RESET",
        "QUIT",
    ] {
        both.assert_same(line, &[encode_line(line), encode_line("GET k")].concat());
    }
    let long = "x".repeat(200);
    for call in [
        &[&long[..], &long][..],
        &["CLIENT", &long],
        &["a\r\nb", "c\0d"],
    ] {
        both.assert_same("long and odd names", &encode(call));
    }
}

#[test]
fn a_stranger_may_not_send_much() {
    let both = Both::start();
    let big = "x".repeat(16 * 1024 + 1);
    let fits = "x".repeat(16 * 1024);
    let many = vec!["x"; 11];
    both.assert_same("eleven arguments", &encode(&many));
    both.assert_same("ten arguments", &encode(&many[..10]));
    both.assert_same("a long argument", &encode(&["AUTH", &big]));
    both.assert_same("one that fits", &encode(&["AUTH", &fits]));
    both.assert_same("broken", b"*1000000000000\r\n");
    both.assert_same("broken", b"*1\r\n$-5\r\n");
    let welcome = [
        encode(&["AUTH", PASSWORD]),
        encode(&["ECHO", &big]),
        encode(&many),
    ]
    .concat();
    both.assert_same("behind the password", &welcome);
}

#[test]
fn with_the_password_a_client_is_as_any_other() {
    let both = Both::start();
    let open: [&[&str]; 3] = [
        &["AUTH", PASSWORD],
        &["AUTH", "default", PASSWORD],
        &["auth", "default", PASSWORD],
    ];
    for call in open {
        let pipeline = [
            encode_line("GET k"),
            encode(call),
            encode_line("SET k v"),
            encode_line("GET k"),
            encode_line("GET k"),
            // A failure changes nothing.
            encode_line("AUTH wrong"),
            encode_line("AUTH nobody x"),
            encode_line("HELLO 3 AUTH default wrong"),
            encode_line("GET none"),
            encode_line("RESET"),
            encode_line("GET k"),
        ]
        .concat();
        both.assert_same(&format!("{call:?}"), &pipeline);
    }
    // HELLO as many libraries send it first.
    let mut client = both.proxy.resp();
    let hello = client.call(&["HELLO", "3", "AUTH", "default", PASSWORD, "SETNAME", "me"]);
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("me"));
    assert_eq!(client.line("GET none"), Reply::Null);
    // The cache is shared with it.
    let (hits, misses) = both.proxy.hits_and_misses_of(|| {
        for _ in 0..5 {
            assert_eq!(client.line("GET k"), Reply::bulk("v"));
        }
    });
    assert!(hits >= 4 && misses <= 1, "{hits} hits, {misses} misses");
}

#[test]
fn a_hit_is_no_way_around_the_password() {
    let redis = locked();
    let proxy = before(&redis).start();
    let mut friend = proxy.resp();
    friend.call(&["AUTH", PASSWORD]);
    friend.line("SET k v");
    for _ in 0..3 {
        assert_eq!(friend.line("GET k"), Reply::bulk("v"));
    }
    let mut stranger = proxy.resp();
    let pipeline: Vec<u8> = (0..100).flat_map(|_| encode_line("GET k")).collect();
    stranger.send(&pipeline);
    for reply in stranger.replies(100) {
        assert_eq!(reply.error(), "NOAUTH Authentication required.");
    }
    stranger.send(b"GET k\r\n");
    assert_eq!(stranger.reply().error(), "NOAUTH Authentication required.");
}

#[test]
fn another_user_of_redis_has_that_users_rights_and_no_cache() {
    let both = Both::start();
    for server in [&both._redis, &both.truth] {
        let mut admin = server.client();
        admin.call(&["AUTH", PASSWORD]);
        admin.line("ACL SETUSER bob on >builder -@all +get +client ~b*");
        admin.line("MSET a secret b known");
    }
    for login in ["AUTH bob builder", "HELLO 2 AUTH bob wrong"] {
        let pipeline = [
            "GET b",
            login,
            "GET b",
            "GET a",
            "SET b x",
            "GET b",
            "AUTH bob wrong",
            "AUTH nobody x",
            "GET a",
            "NOSUCH",
            "CONFIG GET *",
            "RESET",
            "GET b",
        ];
        let bytes: Vec<u8> = pipeline.iter().flat_map(|line| encode_line(line)).collect();
        both.assert_same(login, &bytes);
    }
    let mut bob = both.proxy.resp();
    let hello = bob.line("HELLO 3 AUTH bob builder");
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    let (hits, misses) = both.proxy.hits_and_misses_of(|| {
        for _ in 0..5 {
            assert_eq!(bob.line("GET b"), Reply::bulk("known"));
        }
    });
    assert_eq!((hits, misses), (0, 0), "his reads are Redis's to allow");
    assert!(bob.line("CLIENT INFO").text().contains(" user=bob "));
    let mut admin = both.proxy.resp();
    admin.call(&["AUTH", PASSWORD]);
    // A hit of others is none of his.
    for _ in 0..3 {
        assert_eq!(admin.line("GET a"), Reply::bulk("secret"));
    }
    assert!(bob.line("GET a").error().starts_with("NOPERM"));
    assert_eq!(admin.line("CLIENT KILL USER bob"), Reply::Int(1));
    assert_eq!(bob.bytes_until_closed(), b"");
    // Nobody gets what he had: the next client's link is the proxy's own user again.
    let mut next = both.proxy.resp();
    next.call(&["AUTH", PASSWORD]);
    next.send(
        &[
            encode_line("MULTI"),
            encode_line("SET c 1"),
            encode_line("EXEC"),
        ]
        .concat(),
    );
    assert_eq!(
        next.replies(3)[2],
        Reply::Array(vec![Reply::ok()]),
        "with all rights"
    );
}

#[test]
fn a_redis_without_a_password_says_what_it_thinks_of_one() {
    let redis = RedisServer::start();
    let truth = RedisServer::start();
    for server in [&redis, &truth] {
        server.call(&["ACL", "SETUSER", "alice", "on", ">wonder", "+@all", "~*"]);
    }
    let both = Both {
        proxy: Proxy::start(&redis),
        _redis: redis,
        truth,
    };
    for line in [
        "AUTH secret",
        "AUTH default anything",
        "AUTH nobody secret",
        "AUTH alice wrong",
        "AUTH",
        "AUTH a b c",
        "HELLO 2 AUTH nobody secret",
        "HELLO 3 AUTH alice wrong SETNAME me",
        "HELLO 3 AUTH default",
    ] {
        let pipeline = [
            encode_line("GET none"),
            encode_line(line),
            encode_line("GET none"),
            encode_line("CLIENT GETNAME"),
        ]
        .concat();
        both.assert_same(line, &pipeline);
    }
    let mut client = both.proxy.resp();
    let hello = client.line("HELLO 3 AUTH default anything SETNAME me");
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("me"));
}

fn get(http: &mut HttpClient, authorization: &str) -> u16 {
    http.send(format!("GET /get?key=k HTTP/1.1\r\nHost: h\r\n{authorization}\r\n").as_bytes());
    let response = http.response();
    let challenges = response.headers_named("www-authenticate");
    match response.status {
        401 => {
            assert!(
                challenges.iter().any(|text| text.starts_with("Basic ")),
                "{challenges:?}"
            );
            assert!(
                challenges.iter().any(|text| text.starts_with("Bearer ")),
                "{challenges:?}"
            );
        }
        _ => assert!(challenges.is_empty(), "{challenges:?}"),
    }
    response.status
}

#[test]
fn http_wants_the_password_with_each_request() {
    let redis = locked();
    let proxy = before(&redis).start();
    let mut friend = proxy.resp();
    friend.call(&["AUTH", PASSWORD]);
    friend.line("SET k v");
    let mut http = proxy.http();
    // printf 'default:the secret: å/=' | base64, and without the user.
    let basic = "Authorization: Basic ZGVmYXVsdDp0aGUgc2VjcmV0OiDDpS89\r\n";
    let nameless = "Authorization: Basic OnRoZSBzZWNyZXQ6IMOlLz0=\r\n";
    let bearer = format!("Authorization: Bearer {PASSWORD}\r\n");
    for _ in 0..2 {
        assert_eq!(get(&mut http, ""), 401);
        assert_eq!(
            get(&mut http, "Authorization: Basic ZGVmYXVsdDp3cm9uZw==\r\n"),
            401
        );
        assert_eq!(get(&mut http, "Authorization: Bearer wrong\r\n"), 401);
        assert_eq!(get(&mut http, basic), 200);
        assert_eq!(get(&mut http, nameless), 200);
        assert_eq!(get(&mut http, &bearer), 200);
        assert_eq!(get(&mut http, "authorization: nonsense\r\n"), 401);
    }
}

#[test]
fn client_auth_none_lets_everybody_in_and_the_log_says_so() {
    let redis = locked();
    let proxy = before(&redis).env("CLIENT_AUTH", "none").start();
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    assert_eq!(client.line("RESET"), Reply::Simple("RESET".to_string()));
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(client.call(&["AUTH", PASSWORD]), Reply::ok());
    assert_eq!(
        client.line("AUTH wrong").error(),
        "WRONGPASS invalid username-password pair or user is disabled."
    );
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(get(&mut proxy.http(), ""), 200);
    assert!(
        proxy.stderr().contains("CLIENT_AUTH=none"),
        "{}",
        proxy.stderr()
    );
    assert!(!proxy.stderr().contains(PASSWORD));
}

#[test]
fn while_redis_is_away_the_password_is_still_asked_for_and_known() {
    let mut redis = locked();
    let proxy = before(&redis).start();
    redis.kill();
    let mut client: RespClient = proxy.resp();
    assert_eq!(
        client.line("GET k").error(),
        "NOAUTH Authentication required."
    );
    assert_eq!(client.call(&["AUTH", PASSWORD]), Reply::ok());
    proxy.await_redis("away");
    let mut guesser = proxy.resp();
    guesser.send(&encode_line("AUTH wrong"));
    assert_eq!(guesser.bytes_until_closed(), b"", "nobody can say");
    assert_eq!(get(&mut proxy.http(), ""), 401);
}

#[test]
fn a_server_that_repeats_the_password_does_not_get_it_into_the_log_or_to_a_client() {
    let redis = RedisServer::start_with(&["--rename-command", "AUTH", ""]);
    let proxy = before(&redis).start();
    proxy.await_redis("away");
    let basic = "Authorization: Basic ZGVmYXVsdDp0aGUgc2VjcmV0OiDDpS89\r\n";
    let mut http = proxy.http();
    let head = format!("GET /get?key=k HTTP/1.1\r\nHost: localhost\r\n{basic}\r\n");
    http.send(head.as_bytes());
    let answer = http.response();
    assert_eq!(answer.status, 503);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    for text in [body, proxy.stderr()] {
        assert!(text.contains("unknown command"), "{text}");
        assert!(
            !text.contains(PASSWORD) && !text.contains("secret"),
            "{text}"
        );
    }
}

#[test]
fn a_hello_that_fails_after_its_login_gives_nobody_that_user() {
    let redis = locked();
    let proxy = before(&redis).start();
    for rest in [["SETNAME", "a b", "", ""], ["SETNAME", "x", "AUTH", "bob"]] {
        let mut call = vec!["HELLO", "2", "AUTH", "alice", "wonder"];
        call.extend(rest.iter().filter(|arg| !arg.is_empty()));
        if rest.contains(&"AUTH") {
            call.push("wrong");
        }
        let mut failing = proxy.resp();
        assert!(matches!(failing.call(&call), Reply::Error(_)), "{call:?}");
        assert!(failing.line("GET k").error().starts_with("NOAUTH"));
        let mut other = proxy.resp();
        assert_eq!(other.call(&["AUTH", PASSWORD]), Reply::ok());
        assert_eq!(other.line("WATCH k"), Reply::ok());
        assert_eq!(other.line("ACL WHOAMI"), Reply::bulk("default"), "{call:?}");
    }
}

#[test]
fn nobody_is_given_a_connection_by_what_others_say_of_him() {
    let redis = locked();
    let proxy = before(&redis).start();
    let mut stranger = proxy.resp();
    assert!(stranger.line("GET k").error().starts_with("NOAUTH"));
    let mut other = proxy.resp();
    assert_eq!(other.call(&["AUTH", PASSWORD]), Reply::ok());
    let Reply::Int(number) = other.line("CLIENT ID") else {
        panic!("an id is a number");
    };
    let strangers = number - 1;
    let list = other.line("CLIENT LIST").text();
    assert!(list.starts_with(&format!("id={strangers} ")), "{list}");
    let redirect = format!("CLIENT TRACKING ON REDIRECT {strangers}");
    let said = other.line(&redirect);
    assert!(
        said.error().ends_with("redirect to does not exist"),
        "{said:?}"
    );
    assert!(stranger.line("HELLO 3").error().starts_with("NOAUTH"));
}
