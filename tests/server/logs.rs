//! What the real binary logs: form, level, floods, the access log.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode};
use crate::support::tool::run_whatever;
use crate::support::{PATIENCE, eventually};

/// A client that is closed for breaking its protocol, which is a line of the log.
fn break_protocol(proxy: &Proxy) {
    let mut bad = proxy.resp();
    bad.send(b"*x\r\n");
    bad.bytes_until_closed();
}

/// Whether each line is a JSON object with what every line has, as Python sees it, which reads JSON strictly.
#[track_caller]
fn assert_json(lines: &str) {
    let check = "import json, sys\n\
                 for line in open(sys.argv[1], encoding='utf-8', newline='\\n'):\n\
                 \x20   event = json.loads(line)\n\
                 \x20   assert {'time', 'level', 'message'} <= event.keys(), line\n\
                 \x20   assert event['level'] in ('ERROR', 'WARN', 'INFO', 'DEBUG'), line\n";
    let directory = crate::support::scratch::Scratch::new("json-lines");
    let path = directory.path().join("lines");
    std::fs::write(&path, lines).expect("our own directory can be written");
    let path = path.to_str().expect("our own path is UTF-8");
    let outcome = run_whatever("python3", &["-c", check, path], Vec::new());
    assert!(outcome.status.success(), "{}\n{lines}", outcome.stderr);
}

#[test]
fn json_lines_are_json_whatever_peers_say() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("LOG_FORMAT", "json")
        .env("LOG_LEVEL", "debug")
        .start();
    break_protocol(&proxy);
    let mut client = proxy.resp();
    client.call(&["NEARCACHE", "CONFIG", "SET", "BYPASS_PREFIXES", "\"\\<é"]);
    proxy.stop();
    let log = proxy.stderr();
    assert_json(&log);
    assert!(
        log.contains(r#""level":"WARN","message":"close","client":"#),
        "{log}"
    );
    assert!(log.contains(r#""reason":"protocol_error""#), "{log}");
    assert!(log.contains(r#""value":"\"\\<é""#), "{log}");
}

#[test]
fn a_flood_of_one_kind_ends_in_a_number_and_hides_no_other() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("LOG_BURST", 5)
        .env("REQUEST_BYTES_MAX", "32KiB")
        .start();
    for _ in 0..50 {
        break_protocol(&proxy);
    }
    let mut large = proxy.resp();
    large.send(&encode(&["SUBSCRIBE", &"x".repeat(33 * 1024)]));
    large.bytes_until_closed();
    proxy.stop();
    let log = proxy.stderr();
    let written = log.matches(" WARN close client=").count();
    let counted: usize = log
        .lines()
        .filter_map(|line| line.split_once(" WARN close ... ")?.1.split_once(" more"))
        .map(|(count, _)| count.parse::<usize>().expect("a number"))
        .sum();
    assert_eq!(written + counted, 51, "{log}");
    assert_eq!(log.matches("reason=request_too_large").count(), 1, "{log}");
    // The window may have been over in between, on a machine that is busy.
    assert!(counted >= 40 || written > 6, "{log}");
    assert_eq!(
        log.matches("reason=protocol_error").count() + counted,
        50,
        "{log}"
    );
}

#[test]
fn an_event_is_as_loud_as_its_level_and_the_level_follows_sighup() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).config_file("LOG_LEVEL=error\n").start();
    break_protocol(&proxy);
    assert_eq!(proxy.resp().line("PING"), Reply::Simple("PONG".to_string()));
    assert_eq!(proxy.stderr(), "");
    proxy.set_config_file(Some("LOG_LEVEL=debug\n"));
    proxy.signal("HUP");
    eventually("the reload is logged", PATIENCE, || {
        proxy.stderr().contains("INFO reloaded changed=1")
    });
    break_protocol(&proxy);
    eventually("and so is what happens", PATIENCE, || {
        proxy.stderr().contains("WARN close client=")
            && proxy.stderr().contains("reason=protocol_error")
    });
}
