//! Unix sockets on both sides: clients that come by a file, a Redis that is reached by one, and what becomes of the files.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::scratch::Scratch;
use crate::support::tool::run;
use crate::support::{PATIENCE, eventually};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

fn path(scratch: &Scratch, name: &str) -> PathBuf {
    scratch.path().join(name)
}

fn cli(socket: &Path, args: &[&str]) -> String {
    let socket = socket.to_str().expect("the temporary folder has a name");
    let mut all = vec!["-s", socket];
    all.extend(args);
    run("redis-cli", &all).text().trim_end().to_owned()
}

fn curl(socket: &Path, args: &[&str]) -> String {
    let socket = socket.to_str().expect("the temporary folder has a name");
    let mut all = vec!["-s", "--unix-socket", socket];
    all.extend(args);
    run("curl", &all).text()
}

/// A redis-server that listens at a path too, for as long as the process lives: options are given for good.
fn redis_at(socket: &Path) -> RedisServer {
    let text = socket.to_str().expect("the temporary folder has a name");
    let options: Vec<&'static str> = vec!["--unixsocket", text.to_owned().leak()];
    RedisServer::start_with(options.leak())
}

#[test]
fn clients_come_by_files_and_redis_is_reached_by_one() {
    let scratch = Scratch::new("unix");
    let (upstream, resp, http) = (
        path(&scratch, "redis.sock"),
        path(&scratch, "resp.sock"),
        path(&scratch, "http.sock"),
    );
    let redis = redis_at(&upstream);
    redis.call(&["SET", "k", "v0"]);
    let url = format!("redis+unix://{}?db=0", upstream.display());
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("REDIS_URL", &url)
        .env("RESP_SOCKET", resp.display())
        .env("HTTP_SOCKET", http.display())
        .env("SOCKET_MODE", "660")
        .start_tracking();
    for socket in [&resp, &http] {
        let mode = std::fs::metadata(socket).expect("it is there").mode();
        assert_eq!(mode & 0o7777, 0o660);
    }
    // A fetch, a hit, a write of its own, a write of others: workers, links and the link that hears of changes.
    let (hits, _) = proxy.hits_and_misses_of(|| {
        assert_eq!(cli(&resp, &["GET", "k"]), "v0");
        eventually("a hit", PATIENCE, || {
            cli(&resp, &["GET", "k"]);
            proxy.counter(info::HITS) > 0
        });
    });
    assert!(hits >= 1);
    assert_eq!(cli(&resp, &["SET", "k", "v1"]), "OK");
    assert_eq!(curl(&http, &["http://localhost/get?key=k"]), "v1");
    redis.call(&["SET", "k", "v2"]);
    eventually("the change is heard of", PATIENCE, || {
        curl(&http, &["http://localhost/get?key=k"]) == "v2"
    });
    // Every connection of the proxy to Redis came by the file.
    let list = redis.call(&["CLIENT", "LIST"]).text();
    let ours: Vec<&str> = list
        .lines()
        .filter(|line| line.contains("name=nearcache:"))
        .collect();
    assert!(ours.len() >= 3, "{list}");
    for line in ours {
        let addr = format!(" addr={}:0 ", upstream.display());
        assert!(line.contains(&addr), "{line}");
    }
    // As Redis describes such a client.
    let described = cli(&resp, &["CLIENT", "INFO"]);
    let addr = format!(" addr={0}:0 laddr={0}:0 ", resp.display());
    assert!(described.contains(&addr), "{described}");
    assert!(described.contains(" flags=U "), "{described}");
    let listed = proxy.resp().line("CLIENT LIST").text();
    assert!(listed.contains("flags=N"), "TCP beside it: {listed}");
    // A browser's page gets no further by a file than by a port.
    let foreign = [
        "-w",
        "%{http_code}",
        "-o",
        "/dev/null",
        "-H",
        "Origin: http://evil.example",
    ];
    let mut args = foreign.to_vec();
    args.push("http://localhost/get?key=k");
    assert_eq!(curl(&http, &args), "403");
    drop(proxy);
    assert!(!resp.exists() && !http.exists(), "the files went with it");
}

#[test]
fn a_redis_that_comes_later_at_its_path_is_found() {
    let scratch = Scratch::new("unix-late");
    let upstream = path(&scratch, "redis.sock");
    let away = RedisServer::not_started();
    let proxy = Proxy::to(&away)
        .env("REDIS_URL", format!("unix://{}", upstream.display()))
        .lost_is_an_error()
        .start();
    proxy.await_redis("away");
    let reply = proxy.resp().line("GET k");
    let error = reply.error();
    assert!(error.contains("No such file"), "{error}");
    let redis = redis_at(&upstream);
    proxy.await_redis("up");
    assert_eq!(proxy.resp().line("SET k v"), Reply::ok());
    assert_eq!(redis.call(&["GET", "k"]), Reply::bulk("v"));
}

#[test]
fn a_file_that_was_left_is_replaced_and_a_foreign_one_is_refused() {
    let scratch = Scratch::new("unix-files");
    let redis = RedisServer::start();
    let resp = path(&scratch, "resp.sock");
    // Left by a process that was killed.
    drop(UnixListener::bind(&resp).expect("nothing is there"));
    let mut proxy = Proxy::to(&redis).env("RESP_SOCKET", resp.display()).start();
    assert_eq!(cli(&resp, &["PING"]), "PONG");
    assert_eq!(
        std::fs::metadata(&resp)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    // Whoever may only look at it may not connect; somebody who listens is not pushed aside.
    let second = refused(&resp);
    assert!(
        second.contains("somebody listens there already"),
        "{second}"
    );
    assert_eq!(cli(&resp, &["PING"]), "PONG");
    proxy.signal("KILL");
    proxy.wait_for_end();
    assert!(resp.exists(), "nobody was there to remove it");
    let again = Proxy::to(&redis).env("RESP_SOCKET", resp.display()).start();
    assert_eq!(cli(&resp, &["PING"]), "PONG");
    drop(again);
    std::fs::write(&resp, "precious").expect("it can be written");
    let foreign = refused(&resp);
    assert!(
        foreign.contains("is no socket; it is left as it is"),
        "{foreign}"
    );
    assert_eq!(std::fs::read(&resp).expect("it is there"), b"precious");
}

/// What a proxy says that cannot listen there.
fn refused(resp: &Path) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nearcache"))
        .env_clear()
        .env("RESP_SOCKET", resp)
        .env("RESP_PORT", "off")
        .env("HTTP_PORT", "off")
        .env("ADMIN_PORT", "off")
        .output()
        .expect("the binary is built with the tests");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let begin = format!("cannot listen on {} (RESP_SOCKET): ", resp.display());
    assert!(said.contains(&begin), "{said}");
    said
}
