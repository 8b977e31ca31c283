//! TLS for clients: both protocols, both versions, any size and any pace; who is refused, and in which words; another
//! certificate while running.

use crate::support::ports::free_port;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode};
use crate::support::tls::{Authority, Files, Flaw, TlsClient, says, tcp};
use crate::support::tool::{run, run_whatever};
use crate::support::{PATIENCE, eventually, show};
use rustls::HandshakeKind;
use rustls::version::TLS12;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A proxy that speaks TLS too, and who has signed its certificate.
struct Secure {
    proxy: Proxy,
    resp: u16,
    http: u16,
}

/// A proxy with ports for TLS, to be configured further.
fn secured(redis: &RedisServer, files: &Files) -> (ProxyBuilder, u16, u16) {
    let (resp, http) = (free_port(), free_port());
    let builder = Proxy::to(redis)
        .env("TLS_RESP_PORT", resp)
        .env("TLS_HTTP_PORT", http)
        .env("TLS_CERT_FILE", &files.cert)
        .env("TLS_KEY_FILE", &files.key);
    (builder, resp, http)
}

impl Secure {
    #[track_caller]
    fn start(redis: &RedisServer, authority: &Authority) -> Secure {
        let files = authority.issue("proxy", &["localhost", "127.0.0.1"], Flaw::None);
        let (builder, resp, http) = secured(redis, &files);
        let proxy = builder.start();
        Secure { proxy, resp, http }
    }
}

fn large(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn bulk(value: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", value.len()).into_bytes();
    reply.extend_from_slice(value);
    reply.extend_from_slice(b"\r\n");
    reply
}

#[test]
fn the_usual_tools_speak_tls_in_both_versions_and_protocols() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let (ca, port) = (authority.ca(), secure.resp.to_string());
    let cli = ["--tls", "--cacert", &ca, "-h", "127.0.0.1", "-p", &port];
    assert_eq!(
        run("redis-cli", &[&cli[..], &["SET", "k", "v"]].concat()).text(),
        "OK\n"
    );
    assert_eq!(
        run("redis-cli", &[&cli[..], &["GET", "k"]].concat()).text(),
        "v\n"
    );
    let url = format!("https://localhost:{}/get?key=k", secure.http);
    for version in [&["--tls-max", "1.2"], &["--tlsv1.3", "-s"]] {
        let args = [
            &["-sS", "--cacert", &ca, "--http1.1"],
            &version[..],
            &[&url],
        ]
        .concat();
        assert_eq!(run("curl", &args).text(), "v");
    }
    let server = format!("localhost:{}", secure.resp);
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [
            "s_client",
            "-connect",
            &server,
            "-CAfile",
            &ca,
            "-verify_return_error",
            "-quiet",
            version,
        ];
        let said = run_whatever("openssl", &args, b"PING\r\nQUIT\r\n".to_vec()).text();
        assert!(said.starts_with("+PONG\r\n"), "{version}: {said}");
    }
    let info = secure.proxy.info();
    assert_eq!(info["nearcache_tls_handshakes"], "6");
    assert_eq!(info["nearcache_tls_failed"], "0");
    eventually("they have left", PATIENCE, || {
        secure.proxy.counter("nearcache_tls_clients") == 0
    });
    let _client = TlsClient::connect(secure.resp, &authority.client(None));
    eventually("one is there", PATIENCE, || {
        secure.proxy.counter("nearcache_tls_clients") == 1
    });
    says(
        &secure.proxy,
        &format!("port=tls_resp address=127.0.0.1:{}", secure.resp),
    );
}

#[test]
fn pipelines_and_values_larger_than_a_record_pass_both_ways() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let mut client = TlsClient::connect(secure.resp, &authority.client(None));
    let value = large(9_000_000);
    client.send(&encode(&[&b"SET"[..], b"large", &value]));
    client.expect(b"+OK\r\n");
    // Too large to keep; it comes through a link of its own, three times in a row.
    client.send(&encode(&["GET", "large"]).repeat(3));
    let reply = bulk(&value);
    for _ in 0..3 {
        client.expect(&reply);
    }
    // Hits, of a size that fills the outbox again and again before the first of them is read.
    let kept = large(500_000);
    client.send(&encode(&[&b"SET"[..], b"kept", &kept]));
    client.expect(b"+OK\r\n");
    let reply = bulk(&kept);
    client.send(&encode(&["GET", "kept"]));
    client.expect(&reply);
    client.send(&encode(&["GET", "kept"]).repeat(80));
    for _ in 0..80 {
        client.expect(&reply);
    }
    // Many small ones: the requests are several records, and so are the replies.
    client.call("SET small v", "+OK\r\n");
    for _ in 0..3 {
        client.send(&encode(&["GET", "small"]).repeat(20_000));
        client.expect(&b"$1\r\nv\r\n".repeat(20_000));
    }
    // The first pipeline joins its own fetch.
    assert!(secure.proxy.counter("nearcache_hits") >= 40_000);
    drop(client);

    let mut http = TlsClient::connect(secure.http, &authority.client(None));
    http.send(&b"GET /get?key=kept HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5));
    let mut got = Vec::new();
    for _ in 0..5 {
        let head = head(&mut http);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\nContent-Length: 500000\r\n"), "{head}");
        http.expect(&kept);
        got.push(head);
    }
    assert!(got[4].contains("nearcache; hit"), "{}", got[4]);
}

fn head(http: &mut TlsClient) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let (connection, socket) = http.parts();
        let read = rustls::Stream::new(connection, socket).read(&mut byte);
        assert!(matches!(read, Ok(1)), "{read:?} after {}", show(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("it is text")
}

#[test]
fn a_handshake_and_requests_may_come_a_byte_at_a_time() {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let name = "localhost".try_into().expect("it is a name");
    let mut connection =
        rustls::ClientConnection::new(authority.client(None), name).expect("it can begin");
    let mut socket = tcp(secure.resp);
    let drip = |connection: &mut rustls::ClientConnection, socket: &mut std::net::TcpStream| {
        let mut bytes = Vec::new();
        while connection.wants_write() {
            connection
                .write_tls(&mut bytes)
                .expect("a Vec takes everything");
        }
        for byte in bytes {
            socket.write_all(&[byte]).expect("it takes bytes");
        }
    };
    while connection.is_handshaking() {
        drip(&mut connection, &mut socket);
        if connection.is_handshaking() {
            connection.read_tls(&mut socket).expect("it answers");
            connection.process_new_packets().expect("it is TLS");
        }
    }
    drip(&mut connection, &mut socket);
    for _ in 0..3 {
        connection
            .writer()
            .write_all(&encode(&["GET", "k"]))
            .expect("it takes bytes");
        drip(&mut connection, &mut socket);
        let mut got = [0; 7];
        let read = rustls::Stream::new(&mut connection, &mut socket).read_exact(&mut got);
        assert!(read.is_ok() && &got == b"$1\r\nv\r\n", "{read:?}");
    }
}

#[test]
fn both_ends_say_when_they_have_said_all() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let config = authority.client(None);
    let value = large(900_000);
    let mut client = TlsClient::connect(secure.resp, &config);
    client.send(&encode(&[&b"SET"[..], b"k", &value]));
    client.expect(b"+OK\r\n");
    client.send(&encode(&["GET", "k"]));
    client.expect(&bulk(&value));
    // Half-closed behind its requests, it is still owed the replies.
    client.send(&encode(&["GET", "k"]).repeat(5));
    client.close_notify();
    let (got, announced) = client.until_closed();
    assert!(got == bulk(&value).repeat(5), "{} bytes", got.len());
    assert!(announced, "close_notify comes behind the replies");
    let mut client = TlsClient::connect(secure.resp, &config);
    client.send(b"PING\r\nQUIT\r\n");
    let (got, announced) = client.until_closed();
    assert_eq!(show(&got), show(b"+PONG\r\n+OK\r\n"));
    assert!(announced);
}

#[test]
fn a_drain_answers_what_is_owed_and_says_goodbye() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let mut secure = Secure::start(&redis, &authority);
    let config = authority.client(None);
    let mut idle = TlsClient::connect(secure.resp, &config);
    idle.call("SET k v", "+OK\r\n");
    let mut http = TlsClient::connect(secure.http, &config);
    let _never_began = tcp(secure.resp);
    secure.proxy.signal("TERM");
    eventually("it drains", PATIENCE, || {
        secure.proxy.stderr().contains("asked to end")
    });
    http.send(b"GET /get?key=k HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (got, announced) = http.until_closed();
    let text = String::from_utf8_lossy(&got);
    assert!(
        text.contains("Connection: close") && text.ends_with("\r\n\r\nv"),
        "{text}"
    );
    assert!(announced, "{text}");
    let (got, announced) = idle.until_closed();
    assert_eq!(got, b"");
    assert!(announced);
    let status = secure.proxy.wait_for_end();
    secure.proxy.assert_clean(status);
}

#[test]
fn many_shake_hands_at_once_and_all_are_served() {
    const THREADS: usize = 8;
    const EACH: usize = 12;
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let config = authority.client(None);
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // All of a thread's stay until the last has come.
                let config = config.clone();
                for mut client in (0..EACH)
                    .map(|_| TlsClient::connect(secure.resp, &config))
                    .collect::<Vec<_>>()
                {
                    served.fetch_add(usize::from(client.is_served()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), THREADS * EACH);
    assert_eq!(
        secure.proxy.counter("nearcache_tls_handshakes"),
        (THREADS * EACH) as u64
    );
}

#[test]
fn handshakes_are_bounded_in_time() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let files = authority.issue("proxy", &["localhost"], Flaw::None);
    let (builder, resp, http) = secured(&redis, &files);
    let proxy = builder.env("TLS_HANDSHAKE_TIMEOUT_SECS", "300ms").start();
    for (port, first) in [
        (resp, &b""[..]),
        (http, &b""[..]),
        (resp, &b"\x16\x03\x01\x02\x00\x01\x00"[..]),
    ] {
        let mut stalled = tcp(port);
        stalled.write_all(first).expect("it takes bytes");
        let mut got = Vec::new();
        stalled
            .read_to_end(&mut got)
            .expect("it is closed, and not reset");
        assert_eq!(got, b"");
    }
    assert_eq!(proxy.counter("nearcache_tls_failed_timed_out"), 3);
    assert_eq!(proxy.counter("nearcache_tls_clients"), 0);
    says(
        &proxy,
        "did not begin a handshake in time (TLS_HANDSHAKE_TIMEOUT_SECS)",
    );
}

#[test]
fn handshakes_above_the_limit_wait_until_one_is_over() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let files = authority.issue("proxy", &["localhost"], Flaw::None);
    let (builder, resp, _) = secured(&redis, &files);
    let proxy = builder
        .env("TLS_HANDSHAKES_MAX", 1)
        .env("TLS_HANDSHAKE_TIMEOUT_SECS", 600)
        .start();
    let stalled = tcp(resp);
    eventually("it is accepted", PATIENCE, || {
        proxy.counter("nearcache_tls_clients") == 1
    });
    thread::scope(|scope| {
        let config = authority.client(None);
        let waiting = scope.spawn(move || TlsClient::connect(resp, &config).is_served());
        // Whoever does without TLS does not wait.
        assert_eq!(proxy.resp().line("PING"), Reply::Simple("PONG".to_owned()));
        assert_eq!(proxy.counter("nearcache_tls_handshakes_held"), 1);
        assert_eq!(proxy.counter("nearcache_tls_handshakes"), 0);
        drop(stalled);
        assert!(waiting.join().expect("it does not panic"));
    });
    assert_eq!(proxy.counter("nearcache_tls_handshakes"), 1);
    assert_eq!(proxy.counter("nearcache_tls_failed_gone"), 1);
}

#[test]
fn who_does_not_speak_tls_is_told_so_in_its_own_protocol() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let said = |port: u16, bytes: &[u8]| {
        let mut plain = tcp(port);
        plain.write_all(bytes).expect("it takes bytes");
        let mut got = String::new();
        plain
            .read_to_string(&mut got)
            .expect("it is closed, and not reset");
        got
    };
    let error = "-ERR nearcache: this port speaks TLS: use rediss:// or redis-cli --tls\r\n";
    assert_eq!(said(secure.resp, b"*1\r\n$4\r\nPING\r\n"), error);
    assert_eq!(said(secure.resp, &b"PING\r\n".repeat(3)), error);
    let answer = said(secure.http, b"GET /get?key=k HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert_eq!(secure.proxy.counter("nearcache_tls_failed_not_tls"), 3);
    assert_eq!(secure.proxy.counter("nearcache_tls_failed"), 3);
    says(
        &secure.proxy,
        "does not speak TLS on a port for TLS (redis-cli --tls, rediss://, https://)",
    );
    says(
        &secure.proxy,
        "speaks plain HTTP on a port for TLS (https://)",
    );
    assert_eq!(secure.proxy.stderr().matches("reason=not_tls").count(), 3);
}

#[test]
fn who_shares_no_version_or_does_not_trust_us_is_named_in_the_log() {
    let redis = RedisServer::start();
    let (authority, other) = (
        Authority::new("the test's CA"),
        Authority::new("another CA"),
    );
    let files = authority.issue("proxy", &["localhost"], Flaw::None);
    let (builder, resp, http) = secured(&redis, &files);
    let proxy = builder.env("TLS_MIN_VERSION", "1.3").start();
    let server = format!("localhost:{resp}");
    let old = ["s_client", "-connect", &server, "-tls1_2"];
    assert!(!run_whatever("openssl", &old, Vec::new()).status.success());
    assert!(TlsClient::try_connect(resp, &other.client(None)).is_err());
    let mut wants_h2 = (*authority.client(None)).clone();
    wants_h2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(TlsClient::try_connect(http, &Arc::new(wants_h2)).is_err());
    eventually("all three are counted", PATIENCE, || {
        proxy.counter("nearcache_tls_failed_nothing_shared") == 2
            && proxy.counter("nearcache_tls_failed_distrusted") == 1
    });
    says(
        &proxy,
        "shares no version of TLS (1.2 and 1.3, see TLS_MIN_VERSION)",
    );
    says(
        &proxy,
        "refuses the certificate of this proxy: it does not know who has signed it",
    );
    assert!(TlsClient::connect(resp, &authority.client(None)).is_served());
}

#[test]
fn clients_must_show_the_certificate_that_is_asked_for() {
    let redis = RedisServer::start();
    let (authority, other) = (
        Authority::new("the test's CA"),
        Authority::new("another CA"),
    );
    let files = authority.issue("proxy", &["localhost"], Flaw::None);
    let good = authority.issue("client", &["client"], Flaw::None);
    let expired = authority.issue("expired", &["client"], Flaw::Expired);
    let foreign = other.issue("foreign", &["client"], Flaw::None);
    let is_served = |port: u16, identity: Option<&Files>| {
        TlsClient::try_connect(port, &authority.client(identity))
            .is_ok_and(|mut client| client.is_served())
    };
    for (mode, without) in [("required", false), ("optional", true)] {
        let (builder, resp, _) = secured(&redis, &files);
        let proxy = builder
            .env("TLS_CLIENT_CA_FILE", authority.ca())
            .env("TLS_CLIENT_CERTS", mode)
            .start();
        assert!(is_served(resp, Some(&good)), "{mode}");
        assert!(!is_served(resp, Some(&foreign)), "{mode}");
        assert!(!is_served(resp, Some(&expired)), "{mode}");
        assert_eq!(is_served(resp, None), without, "{mode}");
        let refused = 2 + u64::from(!without);
        assert_eq!(
            proxy.counter("nearcache_tls_failed_client_certificate"),
            refused
        );
        says(
            &proxy,
            "showed a certificate that is not signed by TLS_CLIENT_CA_FILE",
        );
    }
}

#[test]
fn certificates_are_read_again_and_nobody_is_dropped() {
    let redis = RedisServer::start();
    let (before, after) = (
        Authority::new("the CA before"),
        Authority::new("the CA after"),
    );
    let old = before.issue("proxy", &["localhost"], Flaw::None);
    let new = after.issue("proxy", &["localhost"], Flaw::None);
    let (builder, resp, _) = secured(&redis, &old);
    let mut proxy = builder.start();
    let reload = |outcome: &str| {
        let before = proxy.stderr().len();
        proxy.signal("HUP");
        eventually(outcome, PATIENCE, || {
            proxy.stderr()[before..].contains(outcome)
        });
    };
    let mut stays = TlsClient::connect(resp, &before.client(None));
    stays.call("SET k v", "+OK\r\n");

    // Only one of the two has been replaced yet.
    std::fs::copy(&new.cert, &old.cert).expect("ours can be copied");
    reload("reload refused, nothing changes problem=\"TLS_KEY_FILE=");
    says(&proxy, "it is not the key of TLS_CERT_FILE");
    stays.call("GET k", "$1\r\nv\r\n");
    assert!(TlsClient::connect(resp, &before.client(None)).is_served());

    std::fs::copy(&new.key, &old.key).expect("ours can be copied");
    reload("reloaded changed=0 need_restart=0");
    stays.call("GET k", "$1\r\nv\r\n");
    assert!(TlsClient::connect(resp, &after.client(None)).is_served());
    assert!(TlsClient::try_connect(resp, &before.client(None)).is_err());

    std::fs::write(&old.cert, "no certificate").expect("ours can be written");
    reload("reload refused, nothing changes problem=\"TLS_CERT_FILE=");
    assert!(TlsClient::connect(resp, &after.client(None)).is_served());
    stays.call("GET k", "$1\r\nv\r\n");
    proxy.stop();
}

#[test]
fn who_comes_back_resumes_until_the_certificates_are_read_again() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let mut secure = Secure::start(&redis, &authority);
    let newest = authority.client(None);
    let older = authority.client_of(None, &[&TLS12]);
    let kind_of = |config| {
        let mut client = TlsClient::connect(secure.resp, config);
        // The ticket for the next time comes behind the handshake.
        assert!(client.is_served());
        client.parts().0.handshake_kind()
    };
    for config in [&newest, &older] {
        assert_eq!(kind_of(config), Some(HandshakeKind::Full));
        assert_eq!(kind_of(config), Some(HandshakeKind::Resumed));
        assert_eq!(kind_of(config), Some(HandshakeKind::Resumed));
    }
    secure.proxy.signal("HUP");
    says(&secure.proxy, "reloaded changed=0");
    for config in [&newest, &older] {
        assert_eq!(kind_of(config), Some(HandshakeKind::Full));
    }
    secure.proxy.stop();
}

#[test]
fn a_client_that_reads_late_misses_nothing() {
    let redis = RedisServer::start();
    let authority = Authority::new("the test's CA");
    let secure = Secure::start(&redis, &authority);
    let mut client = TlsClient::connect(secure.resp, &authority.client(None));
    let value = large(1_000_000);
    client.send(&encode(&[&b"SET"[..], b"k", &value]));
    client.expect(b"+OK\r\n");
    client.send(&encode(&["GET", "k"]));
    client.expect(&bulk(&value));
    // More than the kernel and the outbox hold: the proxy stops, and goes on when it is read from.
    client.send(&encode(&["GET", "k"]).repeat(60));
    eventually("it has begun", PATIENCE, || {
        secure.proxy.counter("nearcache_hits") > 1
    });
    assert_eq!(
        secure.proxy.resp().line("PING"),
        Reply::Simple("PONG".to_owned())
    );
    let reply = bulk(&value);
    for _ in 0..60 {
        client.expect(&reply);
    }
    client.call("PING", "+PONG\r\n");
}

#[test]
fn files_of_no_use_are_named_before_anything_starts() {
    let authority = Authority::new("the test's CA");
    let good = authority.issue("good", &["localhost"], Flaw::None);
    let other = authority.issue("other", &["localhost"], Flaw::None);
    let encrypted = authority.file("encrypted.key");
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&encrypted, text).expect("ours can be written");
    let check = |env: &[(&str, &str)], expected: &str| {
        let outcome = std::process::Command::new(env!("CARGO_BIN_EXE_nearcache"))
            .arg("--check")
            .env_clear()
            .envs(env.iter().copied())
            .output()
            .expect("the binary is built with the tests");
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
        assert_eq!(
            outcome.status.code(),
            Some(if expected.is_empty() { 0 } else { 2 }),
            "{said}"
        );
    };
    let (port, cert, key) = ("TLS_RESP_PORT", "TLS_CERT_FILE", "TLS_KEY_FILE");
    check(&[(port, "6381"), (cert, &good.cert), (key, &good.key)], "");
    check(
        &[(port, "6381")],
        "a port for TLS needs a certificate: set TLS_CERT_FILE and TLS_KEY_FILE",
    );
    check(
        &[(cert, &good.cert)],
        "TLS_CERT_FILE needs TLS_KEY_FILE beside it",
    );
    check(
        &[(key, &good.key)],
        "TLS_KEY_FILE needs TLS_CERT_FILE beside it",
    );
    check(
        &[(port, "6380")],
        "RESP_PORT and TLS_RESP_PORT are both 6380; give each its own",
    );
    check(
        &[(cert, &good.cert), (key, &other.key)],
        "it is not the key of TLS_CERT_FILE",
    );
    check(
        &[(cert, "/nowhere.pem"), (key, &good.key)],
        "TLS_CERT_FILE=/nowhere.pem: No such file",
    );
    check(
        &[(cert, &good.key), (key, &good.key)],
        "there is no certificate in it (want PEM)",
    );
    check(
        &[(cert, &good.cert), (key, &good.cert)],
        "there is no private key in it (want PEM)",
    );
    check(
        &[(cert, &good.cert), (key, &encrypted)],
        "its key is encrypted",
    );
    let ca = ("TLS_CLIENT_CA_FILE", good.key.as_str());
    check(
        &[(cert, &good.cert), (key, &good.key), ca],
        "TLS_CLIENT_CA_FILE=",
    );
}
