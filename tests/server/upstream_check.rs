//! `nearcache check-upstream`: what it says of a real Redis, in which words, and the exit code that scripts go by.

use crate::support::ports::free_port;
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::tool::Outcome;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// Runs it against this URL, with these keys besides.
pub fn check(url: &str, env: &[(&str, &str)]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_nearcache"))
        .arg("check-upstream")
        .env_clear()
        .env("REDIS_URL", url)
        .envs(env.iter().copied())
        .output()
        .expect("the binary is built with the tests");
    Outcome {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn url(redis: &RedisServer) -> String {
    format!("redis://127.0.0.1:{}/0", redis.port())
}

/// It exits with this code and says each of these.
#[track_caller]
pub fn says(outcome: &Outcome, code: i32, words: &[&str]) {
    let text = outcome.text();
    assert_eq!(outcome.stderr, "", "{text}");
    for words in words {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert_eq!(outcome.status.code(), Some(code), "{text}");
}

/// What stands behind a label.
#[track_caller]
fn line(outcome: &Outcome, label: &str) -> String {
    let text = outcome.text();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label}:\n{text}"))
        .trim_start()
        .to_owned()
}

#[test]
fn a_redis_where_all_is_well_is_described_and_left_as_it_was() {
    let redis = RedisServer::start_with(&[
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lfu",
        "--client-output-buffer-limit",
        "normal",
        "921600",
        "0",
        "0",
    ]);
    redis.call(&["SET", "k", "v"]);
    let mut tracker = redis.client();
    assert!(matches!(tracker.line("HELLO 3"), Reply::Map(_)));
    assert_eq!(tracker.line("CLIENT TRACKING ON BCAST"), Reply::ok());
    let outcome = check(&url(&redis), &[]);
    says(
        &outcome,
        0,
        &[
            "20 PINGs took",
            "master, with 0 replicas",
            "allowed: Redis tells of every change",
            "user default has all that nearcache itself needs",
            "ACL SETUSER default +ping +hello +client|setname +client|id +info +command +select +get +pttl +client|tracking\n",
            "maxmemory 100.0 MiB, policy allkeys-lfu",
            "1 of them track",
            "normal: 900KiB; pubsub: 32MiB, or 8MiB for 60 s",
            "advice          allkeys-lfu takes keys",
            "raise the limit of normal clients above 1MiB",
            "\nAll is well: changes are pushed, and a hit is never more than 3 s behind.\n",
        ],
    );
    assert_eq!(line(&outcome, "RESP3"), "yes");
    let server = redis.call(&["INFO", "server"]).text();
    let run_id = server.lines().find_map(|line| line.strip_prefix("run_id:"));
    let version = server
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    assert_eq!(
        line(&outcome, "server"),
        format!(
            "Redis {}, standalone, run id {}",
            version.expect("INFO has it"),
            run_id.expect("INFO has it")
        )
    );
    assert!(line(&outcome, "writes").starts_with("0 in the last second, "));
    assert_eq!(redis.call(&["DBSIZE"]), Reply::Int(1));
    let with_touch = check(&url(&redis), &[("UPSTREAM_TOUCH_SECS", "20")]);
    says(&with_touch, 0, &["+pttl +touch +client|tracking"]);
    assert!(!with_touch.text().contains("allkeys-lfu takes"));
    // What is not asked for need not be there.
    let ttl = check(&url(&redis), &[("COHERENCE", "ttl")]);
    says(
        &ttl,
        0,
        &["not asked for: COHERENCE=ttl", "keeps an entry 60 s"],
    );
    assert!(!ttl.text().contains("+client|tracking"), "{}", ttl.text());
}

#[test]
fn a_password_that_is_wrong_or_lacks_is_said_and_not_shown() {
    let redis = RedisServer::start();
    redis.call(&["CONFIG", "SET", "requirepass", "right"]);
    let outcome = check(
        &format!("redis://:sesame@127.0.0.1:{}/0", redis.port()),
        &[],
    );
    says(
        &outcome,
        2,
        &[
            &format!("redis://:***@127.0.0.1:{}/0\n", redis.port()),
            "It cannot be used: it refuses the user or password of REDIS_URL: WRONGPASS",
        ],
    );
    assert!(!outcome.text().contains("sesame"), "{}", outcome.text());
    says(
        &check(&url(&redis), &[]),
        2,
        &["It cannot be used: it asks for a password, and REDIS_URL has none.\n"],
    );
    let right = check(&format!("redis://:right@127.0.0.1:{}/0", redis.port()), &[]);
    says(&right, 0, &["All is well"]);
    let database = check(
        &format!("redis://:right@127.0.0.1:{}/99", redis.port()),
        &[],
    );
    says(
        &database,
        2,
        &["database 99 of REDIS_URL is refused: ERR DB index"],
    );
}

#[test]
fn a_user_without_rights_learns_the_line_that_grants_them() {
    let redis = RedisServer::start();
    let url = format!("redis://app:pw@127.0.0.1:{}/0", redis.port());
    redis.call(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~app:*",
        "&*",
        "+@all",
        "-client|tracking",
    ]);
    let outcome = check(&url, &[]);
    says(
        &outcome,
        1,
        &[
            "not allowed: the user may not call CLIENT TRACKING",
            "user app lacks +client|tracking\n",
            "it may not read every key",
            "It works, but: COHERENCE=tracking falls back to its bound, entries live 3 s at most",
        ],
    );
    // A user who may nothing at all, until the line that is printed has been typed.
    redis.call(&["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*"]);
    let outcome = check(&url, &[]);
    says(&outcome, 1, &["user app lacks +ping +client|setname"]);
    let text = outcome.text();
    let needs = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("it needs: "))
        .expect("the line stands there");
    assert_eq!(redis.client().line(needs), Reply::ok(), "{needs}");
    let outcome = check(&url, &[]);
    says(
        &outcome,
        0,
        &[
            "user app has all",
            "output buffers  not known",
            "All is well",
        ],
    );
}

#[test]
fn a_server_that_tells_little_is_described_as_far_as_it_does() {
    let redis = RedisServer::start_with(&["--rename-command", "CONFIG", ""]);
    let outcome = check(&url(&redis), &[]);
    says(&outcome, 0, &["output buffers  not known", "All is well"]);
    redis.call(&[
        "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info",
    ]);
    let url = format!("redis://app:pw@127.0.0.1:{}/0", redis.port());
    says(
        &check(&url, &[]),
        1,
        &[
            "standalone, run id not known",
            "role            master",
            "memory          not known",
            "writes          not known",
            "clients         not known",
            "allowed: Redis tells of every change",
            "It works, but: the user lacks +info.",
        ],
    );
}

#[test]
fn without_resp3_or_tracking_it_says_what_the_proxy_falls_back_to() {
    let redis = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let outcome = check(&url(&redis), &[("STALENESS_BOUND_MS", "1500")]);
    says(
        &outcome,
        1,
        &[
            "no, HELLO 3 was answered with: ERR unknown command",
            "not to be had: it needs RESP3",
            "falls back to its bound, entries live 1.5 s at most (COHERENCE=ttl would let them live 60 s",
        ],
    );
    says(
        &check(&url(&redis), &[("COHERENCE", "ttl")]),
        0,
        &["All is well"],
    );
    let redis = RedisServer::start_with(&["--rename-command", "CLIENT", ""]);
    says(
        &check(&url(&redis), &[]),
        1,
        &["not to be had, CLIENT TRACKING was answered with: ERR unknown command"],
    );
}

#[test]
fn a_replica_without_its_master_is_degraded() {
    let redis = RedisServer::start();
    let nobody = free_port().to_string();
    redis.call(&["REPLICAOF", "127.0.0.1", &nobody]);
    says(
        &check(&url(&redis), &[]),
        1,
        &[
            "replica of 127.0.0.1: writes",
            "a replica without its master",
        ],
    );
}

#[test]
fn what_cannot_be_reached_or_is_no_redis_ends_with_2() {
    let port = free_port();
    let outcome = check(&format!("redis://127.0.0.1:{port}"), &[]);
    let refused = format!("It cannot be used: 127.0.0.1:{port}: Connection refused");
    says(&outcome, 2, &[&refused]);
    // One that greets as a mail server does, and with a sequence that would clear a terminal.
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("it is bound").port();
    let server = std::thread::spawn(move || {
        for greeting in [&b"220 mail\r\n"[..], b"-ERR \x1b[2J\r\n"] {
            let (mut stream, _) = other.accept().expect("it is called twice");
            stream.write_all(greeting).expect("it is connected");
            let _ = stream.read(&mut [0; 1024]);
        }
        // And one that takes connections and is silent.
        other
    });
    let url = format!("redis://127.0.0.1:{port}");
    says(&check(&url, &[]), 2, &["does not speak Redis's protocol"]);
    says(
        &check(&url, &[]),
        2,
        &["answers PING with an error: ERR \\u{1b}[2J"],
    );
    let _silent = server.join().expect("it has answered twice");
    says(
        &check(&url, &[("REDIS_TIMEOUT_MS", "50")]),
        2,
        &["no answer within 50 ms"],
    );
}
