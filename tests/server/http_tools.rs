//! HTTP clients as they are: curl, and Python's `http.client`.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::tool::{run, run_whatever, run_with_input};

/// A proxy before a Redis that holds `k` = `v`.
fn start() -> (Proxy, RedisServer) {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    (Proxy::start(&redis), redis)
}

#[test]
fn curl_gets_what_it_asks_for_with_each_of_its_flags() {
    let (proxy, redis) = start();
    let binary: Vec<u8> = (0..=255).collect();
    redis.call(&[b"SET".as_slice(), b"binary", &binary]);
    let base = format!("http://127.0.0.1:{}", proxy.http_port);
    let url = format!("{base}/get?key=k");
    let curl = |args: &[&str]| run("curl", &[&["-sS"], args].concat());
    assert_eq!(curl(&[&url]).text(), "v");
    assert_eq!(curl(&[&format!("{base}/get?key=binary")]).stdout, binary);
    let head = curl(&["-I", &url]).text();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(
        head.to_ascii_lowercase().contains("content-length: 1\r\n"),
        "{head}"
    );
    let old = curl(&["-i", "--http1.0", &url]).text();
    assert!(
        old.starts_with("HTTP/1.") && old.ends_with("\r\n\r\nv"),
        "{old}"
    );
    assert_eq!(
        curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--data",
            "x=y",
            &url
        ])
        .text(),
        "405"
    );
    assert_eq!(
        curl(&["-G", "--data-urlencode", "key=k", &format!("{base}/get")]).text(),
        "v"
    );
    // Two URLs: the second goes over the kept connection.
    let two = curl(&["-w", "<%{num_connects}>", &url, &url]).text();
    assert_eq!(two, "v<1>v<0>");
}

#[test]
fn curl_sends_bodies_in_each_way_and_waits_to_be_told() {
    let (proxy, redis) = start();
    let url = format!("http://127.0.0.1:{}/get?key=k", proxy.http_port);
    let status = ["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    let body = "x".repeat(60_000);
    let sized = ["--data-binary", "@-", &url];
    let chunked = [
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        "@-",
        &url,
    ];
    // It would wait for a minute before it sends what it was not told to.
    let told = [
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "60",
        "-m",
        "30",
        "--data-binary",
        "@-",
        &url,
    ];
    for args in [&sized[..], &chunked, &told] {
        let args = [&status[..], args].concat();
        let outcome = run_with_input("curl", &args, body.clone().into_bytes());
        assert_eq!(outcome.text(), "405", "{args:?}");
    }
    // A body beyond the bound is refused, and curl learns why although it has not sent it all.
    let args = [&["-sS", "-i", "-m", "30"][..], &sized].concat();
    let outcome = run_whatever("curl", &args, vec![b'x'; 4 << 20]);
    assert!(
        outcome.text().contains("HTTP/1.1 413 "),
        "{}{}",
        outcome.text(),
        outcome.stderr
    );
    assert_eq!(redis.calls_of("get"), 0);
}

#[test]
fn curl_revalidates_what_it_has() {
    let (proxy, redis) = start();
    let url = format!("http://127.0.0.1:{}/get?key=k", proxy.http_port);
    let directory = crate::support::scratch::Scratch::new("etag");
    let file = directory.path().join("tag").display().to_string();
    assert_eq!(
        run("curl", &["-sS", "--etag-save", &file, &url]).text(),
        "v"
    );
    let again = |file: &str| {
        let args = ["-sS", "--etag-compare", file, "-w", "<%{http_code}>", &url];
        run("curl", &args).text()
    };
    assert_eq!(again(&file), "<304>");
    redis.call(&["SET", "k", "w"]);
    let fresh = run("curl", &["-sS", "-H", "Cache-Control: no-cache", &url]);
    assert_eq!(fresh.text(), "w");
    assert_eq!(again(&file), "w<200>");
}

#[test]
fn clients_of_other_protocols_are_told_so_and_redis_never_hears_of_them() {
    let (proxy, redis) = start();
    let port = proxy.http_port.to_string();
    let cli = run_whatever("redis-cli", &["-p", &port, "GET", "k"], Vec::new());
    assert!(
        format!("{}{}", cli.text(), cli.stderr).contains("got \"H\" as reply type byte"),
        "{}{}",
        cli.text(),
        cli.stderr
    );
    let url = format!("127.0.0.1:{port}/get?key=k");
    let tls = run_whatever("curl", &["-sSk", &format!("https://{url}")], Vec::new());
    assert_eq!(tls.status.code(), Some(35), "{}", tls.stderr);
    let http2 = ["-sS", "--http2-prior-knowledge", &format!("http://{url}")];
    let http2 = run_whatever("curl", &http2, Vec::new());
    assert!(!http2.status.success() && http2.stdout != b"v");
    // An offer to change to HTTP/2 need not be taken.
    let upgrade = ["-sS", "--http2", &format!("http://{url}")];
    assert_eq!(redis.calls_of("get"), 0);
    assert_eq!(run("curl", &upgrade).text(), "v");
}

/// Python's own client is stricter than curl about where an answer ends: it reads exactly what was announced, and would
/// take anything left over for the next answer.
const PYTHON: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)

def ask(method, target, status, expected=None, **more):
    connection.request(method, target, **more)
    answer = connection.getresponse()
    got = answer.read()
    assert answer.status == status, (method, target, answer.status, got)
    assert expected is None or got == expected, (method, target, got)
    assert not answer.will_close, (method, target)
    return answer

socket = None
for round in range(50):
    ask("GET", "/get?key=k", 200, b"v")
    socket = socket or connection.sock
    assert connection.sock is socket, "one connection serves them all"
    assert ask("HEAD", "/get?key=k", 200, b"").getheader("Content-Length") == "1"
    ask("GET", "/get?key=none", 404, b"no such key\n")
    ask("GET", "/get", 400)
    ask("POST", "/get?key=k", 405, body=b"x" * 5000)
    ask("PUT", "/get?key=k", 405, body=iter([b"chunk", b"by", b"chunk"]), encode_chunked=True)
    binary = ask("GET", "/get?key=binary", 200, bytes(range(256)))
    assert binary.getheader("Content-Type") == "application/octet-stream"
    tag = ask("GET", "/get?key=long", 200, b"y" * 100000).getheader("ETag")
    ask("GET", "/get?key=long", 304, b"", headers={"If-None-Match": tag})
    ask("GET", "/get?key=k", 200, b"v", headers={"Cache-Control": "no-cache"})
print("as it should be")
"#;

#[test]
fn pythons_client_keeps_one_connection_through_every_kind_of_answer() {
    let (proxy, redis) = start();
    let binary: Vec<u8> = (0..=255).collect();
    redis.call(&[b"SET".as_slice(), b"binary", &binary]);
    redis.call(&["SET", "long", &"y".repeat(100_000)]);
    let outcome = run("python3", &["-c", PYTHON, &proxy.http_port.to_string()]);
    assert_eq!(outcome.text(), "as it should be\n");
}
