//! TLS to Redis: the workers, the links and the invalidation link over it; which certificates are refused, in which words.

use crate::support::ports::free_port;
use crate::support::proxy::{Proxy, ProxyBuilder, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::tls::{Authority, Files, Flaw, says};
use crate::support::{PATIENCE, eventually};
use crate::upstream_check::{check, says as said};

/// A Redis that speaks TLS beside the plain port that the test uses itself.
struct SecureRedis {
    redis: RedisServer,
    port: u16,
}

impl SecureRedis {
    fn start(authority: &Authority, files: &Files, client_certs: &str) -> SecureRedis {
        let port = free_port();
        let options = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &files.cert,
            "--tls-key-file",
            &files.key,
            "--tls-ca-cert-file",
            &authority.ca(),
            "--tls-auth-clients",
            client_certs,
        ]
        .map(ToString::to_string);
        let redis = RedisServer::start_with_strings(&options);
        SecureRedis { redis, port }
    }

    /// A proxy that reaches it by this name.
    fn proxy(&self, host: &str) -> ProxyBuilder {
        Proxy::to(&self.redis)
            .lost_is_an_error()
            .env("REDIS_URL", format!("rediss://{host}:{}/0", self.port))
    }
}

/// Waits until Redis is not reached, for this reason.
#[track_caller]
fn refuses(proxy: &Proxy, words: &str) {
    proxy.await_redis("away");
    says(proxy, words);
    let mut client = proxy.resp();
    let reply = client.line("GET k");
    let error = reply.error();
    assert!(error.starts_with("ERR nearcache: "), "{error}");
}

#[test]
fn everything_works_over_tls_as_it_does_without() {
    let authority = Authority::new("a private CA");
    let files = authority.issue("redis", &["localhost", "127.0.0.1"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "no");
    for host in ["localhost", "127.0.0.1"] {
        let proxy = secure
            .proxy(host)
            .env("REDIS_TLS_CA_FILE", authority.ca())
            .tracking()
            .start_tracking();
        let redis = &secure.redis;
        redis.call(&["FLUSHALL"]);
        let mut client = proxy.resp();
        // Workers, and the invalidation link.
        redis.call(&["SET", "k", "v"]);
        assert_eq!(client.line("GET k"), Reply::bulk("v"));
        let (hits, _) = proxy.hits_and_misses_of(|| {
            for _ in 0..5 {
                assert_eq!(client.line("GET k"), Reply::bulk("v"));
            }
        });
        assert_eq!(hits, 5);
        redis.call(&["SET", "k", "w"]);
        eventually("what others change is seen", PATIENCE, || {
            client.line("GET k") == Reply::bulk("w")
        });
        // Shared links, with large values up and down, and a link of its own.
        let value: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(client.call(&[&b"SET"[..], b"large", &value]), Reply::ok());
        client.send(&encode(&["GET", "large"]).repeat(2));
        for _ in 0..2 {
            assert!(client.reply() == Reply::Bulk(value.clone()));
        }
        client.send(&encode_line("INCR n").repeat(5000));
        for n in 1..=5000 {
            assert_eq!(client.reply(), Reply::Int(n));
        }
        assert_eq!(client.line("MULTI"), Reply::ok());
        client.send(
            &[
                encode_line("SET k x"),
                encode_line("GET k"),
                encode_line("EXEC"),
            ]
            .concat(),
        );
        let expected = Reply::Array(vec![Reply::ok(), Reply::bulk("x")]);
        assert_eq!(client.replies(3)[2], expected);
        assert_eq!(client.line("GET k"), Reply::bulk("x"));
        let mut blocked = proxy.resp();
        blocked.send(&encode_line("BLPOP list 0"));
        eventually("it blocks", PATIENCE, || {
            redis.call(&["CLIENT", "LIST"]).text().contains("cmd=blpop")
        });
        assert_eq!(client.line("RPUSH list a"), Reply::Int(1));
        assert_eq!(
            blocked.reply(),
            Reply::Array(vec![Reply::bulk("list"), Reply::bulk("a")])
        );
        says(&proxy, &format!("rediss://{host}:{}/0", secure.port));
    }
}

#[test]
fn a_user_and_a_password_are_said_inside_tls() {
    let authority = Authority::new("a private CA");
    let files = authority.issue("redis", &["localhost"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "no");
    secure.redis.call(&["SET", "k", "v"]);
    secure.redis.call(&[
        "ACL", "SETUSER", "app", "on", ">sesame", "+@all", "~*", "&*",
    ]);
    secure.redis.call(&["ACL", "SETUSER", "default", "off"]);
    let url = |password: &str| format!("rediss://app:{password}@localhost:{}/0", secure.port);
    let proxy = secure
        .proxy("localhost")
        .env("REDIS_TLS_CA_FILE", authority.ca())
        .env("REDIS_URL", url("sesame"))
        .env("CLIENT_AUTH", "none")
        .start();
    assert_eq!(proxy.resp().line("GET k"), Reply::bulk("v"));
    let proxy = secure
        .proxy("localhost")
        .env("REDIS_TLS_CA_FILE", authority.ca())
        .env("REDIS_URL", url("wrong"))
        .env("CLIENT_AUTH", "none")
        .start();
    proxy.await_redis("away");
    says(&proxy, "WRONGPASS");
    assert!(proxy.resp().line("GET k").error().contains("WRONGPASS"));
}

#[test]
fn certificates_that_prove_nothing_are_refused_in_clear_words() {
    let (authority, other) = (Authority::new("a private CA"), Authority::new("another CA"));
    let cases = [
        (
            Flaw::None,
            "redis.example",
            "its certificate is not for localhost but for",
        ),
        (Flaw::Expired, "localhost", "its certificate has expired "),
        (
            Flaw::SelfSigned,
            "localhost",
            "its certificate is signed by nobody who is trusted here",
        ),
    ];
    for (flaw, name, words) in cases {
        let files = authority.issue("redis", &[name], flaw);
        let secure = SecureRedis::start(&authority, &files, "no");
        let proxy = secure
            .proxy("localhost")
            .env("REDIS_TLS_CA_FILE", authority.ca())
            .start();
        refuses(&proxy, words);
    }
    let files = authority.issue("redis", &["localhost"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "no");
    // This machine does not know the test's CA, and another file does not name it.
    refuses(
        &secure.proxy("localhost").start(),
        "REDIS_TLS_CA_FILE can name",
    );
    let proxy = secure
        .proxy("localhost")
        .env("REDIS_TLS_CA_FILE", other.ca())
        .start();
    refuses(&proxy, "signed by nobody who is trusted here");
    let proxy = secure
        .proxy("127.0.0.1")
        .env("REDIS_TLS_CA_FILE", authority.ca())
        .start();
    refuses(&proxy, "its certificate is not for 127.0.0.1 but for");
}

#[test]
fn the_name_to_be_proved_may_be_another_than_the_hosts() {
    let authority = Authority::new("a private CA");
    let files = authority.issue("redis", &["redis.example"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "no");
    let proxy = secure
        .proxy("127.0.0.1")
        .env("REDIS_TLS_CA_FILE", authority.ca())
        .env("REDIS_TLS_SERVER_NAME", "redis.example")
        .start();
    secure.redis.call(&["SET", "k", "v"]);
    assert_eq!(proxy.resp().line("GET k"), Reply::bulk("v"));
}

#[test]
fn a_client_certificate_is_shown_to_a_redis_that_asks_for_one() {
    let (authority, other) = (Authority::new("a private CA"), Authority::new("another CA"));
    let files = authority.issue("redis", &["localhost"], Flaw::None);
    let own = authority.issue("proxy", &["proxy"], Flaw::None);
    let foreign = other.issue("proxy", &["proxy"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "yes");
    secure.redis.call(&["SET", "k", "v"]);
    let proxy = |files: Option<&Files>| {
        let proxy = secure
            .proxy("localhost")
            .env("REDIS_TLS_CA_FILE", authority.ca());
        match files {
            None => proxy,
            Some(files) => proxy
                .env("REDIS_TLS_CERT_FILE", &files.cert)
                .env("REDIS_TLS_KEY_FILE", &files.key),
        }
        .start()
    };
    assert_eq!(proxy(Some(&own)).resp().line("GET k"), Reply::bulk("v"));
    for files in [None, Some(&foreign)] {
        let proxy = proxy(files);
        proxy.await_redis("away");
        says(&proxy, "it refuses the certificate of this proxy");
        says(&proxy, "REDIS_TLS_CERT_FILE");
    }
}

#[test]
fn who_does_not_speak_tls_is_not_taken_for_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env(
            "REDIS_URL",
            format!("rediss://localhost:{}/0", redis.port()),
        )
        .env("REDIS_TLS_CA_FILE", Authority::new("a private CA").ca())
        .env("REDIS_CONNECT_TIMEOUT_MS", 300)
        .start();
    proxy.await_redis("away");
    assert!(!proxy.stderr().contains("is reached"), "{}", proxy.stderr());
}

#[test]
fn a_ca_that_is_read_again_lets_redis_in() {
    let (authority, other) = (Authority::new("a private CA"), Authority::new("another CA"));
    let files = authority.issue("redis", &["localhost"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "no");
    secure.redis.call(&["SET", "k", "v"]);
    let file = other.file("trusted.pem");
    std::fs::copy(other.ca(), &file).expect("ours can be copied");
    let proxy = secure
        .proxy("localhost")
        .env("REDIS_TLS_CA_FILE", &file)
        .start();
    refuses(&proxy, "signed by nobody who is trusted here");
    std::fs::copy(authority.ca(), &file).expect("ours can be copied");
    proxy.signal("HUP");
    proxy.await_redis("up");
    let mut client = proxy.resp();
    eventually("the workers trust it too", PATIENCE, || {
        client.line("GET k") == Reply::bulk("v")
    });
    assert_eq!(proxy.counter(info::UPSTREAM_LOST), 0);
}

#[test]
fn check_upstream_says_what_tls_is_like() {
    let (authority, other) = (Authority::new("a private CA"), Authority::new("another CA"));
    let files = authority.issue("redis", &["localhost"], Flaw::None);
    let own = authority.issue("proxy", &["proxy"], Flaw::None);
    let secure = SecureRedis::start(&authority, &files, "yes");
    let url = format!("rediss://localhost:{}/0", secure.port);
    let trusted = authority.ca();
    let identity = [
        ("REDIS_TLS_CA_FILE", trusted.as_str()),
        ("REDIS_TLS_CERT_FILE", &own.cert),
        ("REDIS_TLS_KEY_FILE", &own.key),
    ];
    let well = check(&url, &identity);
    said(&well, 0, &["over TLS 1.3, connected in", "All is well"]);
    let nobody = check(&url, &identity[..1]);
    said(
        &nobody,
        2,
        &[
            "It cannot be used: ",
            "it refuses the certificate of this proxy",
        ],
    );
    let stranger = other.ca();
    let unknown = check(&url, &[("REDIS_TLS_CA_FILE", &stranger)]);
    said(
        &unknown,
        2,
        &[
            "It cannot be used: ",
            "signed by nobody who is trusted here",
        ],
    );
    let missing = check(&url, &[("REDIS_TLS_CA_FILE", "/nowhere.pem")]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        missing.stderr.contains("REDIS_TLS_CA_FILE"),
        "{}",
        missing.stderr
    );
}
