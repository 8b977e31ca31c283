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
        .env("ACCESS_LOG", "log")
        .env("ACCESS_LOG_SAMPLE", 1)
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

/// What the log calls a key unless `LOG_KEYS` says otherwise (FNV-1a, 64 bits).
fn named(key: &str) -> String {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("fnv1a:{hash:016x}")
}

#[test]
fn the_access_log_has_each_way_with_its_outcome_and_no_key_by_name() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .tracking()
        .env("ACCESS_LOG", "log")
        .env("ACCESS_LOG_SAMPLE", 1)
        .start_tracking();
    redis.call(&["SET", "secret-name", "12345"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET secret-name"), Reply::bulk("12345"));
    // In one write: the path of hits in a row.
    client.send(&encode(&["GET", "secret-name"]).repeat(10));
    for _ in 0..10 {
        assert_eq!(client.reply(), Reply::bulk("12345"));
    }
    assert_eq!(client.line("GET nothing-here"), Reply::NullBulk);
    assert_eq!(client.line("SET other-name private-value"), Reply::ok());
    client.line("INCR other-name").error();
    let script = "return 'in-no-log'";
    assert_eq!(
        client.call(&["EVAL", script, "0"]),
        Reply::bulk("in-no-log")
    );
    assert_eq!(proxy.http().get("secret-name").body, b"12345");
    proxy.stop();
    let log = proxy.stderr();
    let count = |fields: &str| log.lines().filter(|line| line.contains(fields)).count();
    let (key, other) = (named("secret-name"), named("other-name"));
    let expected = [
        (
            format!("command=get key={key} way=miss status=ok bytes=5 us="),
            1,
        ),
        (
            format!("command=get key={key} way=hit status=ok bytes=5 us="),
            11,
        ),
        (
            format!(
                "key={} way=miss status=missing bytes=0 us=",
                named("nothing-here")
            ),
            1,
        ),
        (
            format!("command=set key={other} way=relay status=ok bytes=5 us="),
            1,
        ),
        (
            format!("command=incr key={other} way=relay status=error bytes="),
            1,
        ),
    ];
    for (fields, times) in expected {
        assert_eq!(count(&fields), times, "{fields}\n{log}");
    }
    for word in [
        "secret-name",
        "other-name",
        "private-value",
        "in-no-log",
        "nothing-here",
    ] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

#[test]
fn the_access_log_can_have_a_file_of_its_own_and_a_sample_is_a_sample() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("LOG_LEVEL", "error")
        .env("ACCESS_LOG", "access.log")
        .env("ACCESS_LOG_SAMPLE", 0.05)
        .env("LOG_FORMAT", "json")
        .start();
    let mut client = proxy.resp();
    for n in 0..2000 {
        assert_eq!(client.call(&["SET", "k", &n.to_string()]), Reply::ok());
    }
    proxy.stop();
    assert_eq!(proxy.stderr(), "");
    let lines = proxy.read_file("access.log");
    assert_json(&lines);
    // 100 are expected; gaps are drawn from 1 to 39, so that 51 is the least there can be.
    let count = lines.lines().count();
    assert!((51..2000).contains(&count), "{count}");
    assert!(
        lines
            .lines()
            .all(|line| line.contains(r#""way":"relay","status":"ok""#))
    );
}

#[test]
fn the_access_log_tells_of_state_upstream_and_of_replies_that_never_came() {
    let mut redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("ACCESS_LOG", "log")
        .env("ACCESS_LOG_SAMPLE", 1)
        .env("LOG_KEYS", "shown")
        .env("UPSTREAM_LOST", "error")
        .start();
    let mut client = proxy.resp();
    assert_eq!(client.line("WATCH seen"), Reply::ok());
    assert_eq!(client.line("GET seen"), Reply::NullBulk);
    assert_eq!(client.line("UNWATCH"), Reply::ok());
    assert_eq!(client.line("SET lost v"), Reply::ok());
    // Redis takes the command and says nothing, until it is gone.
    redis.freeze();
    client.send(&encode(&["SET", "lost", "v"]));
    eventually("it is under way", PATIENCE, || {
        proxy
            .resp()
            .line("NEARCACHE STATS")
            .text()
            .contains("\"requests_in_flight\":1")
    });
    redis.kill();
    client.reply().error();
    proxy.stop();
    let log = proxy.stderr();
    let has = |fields: &str| log.lines().any(|line| line.contains(fields));
    for fields in [
        "command=watch key=seen way=relay status=ok bytes=5 us=",
        "command=get key=seen way=relay status=ok bytes=5 us=",
        "command=set key=lost way=relay status=error bytes=0 us=",
    ] {
        assert!(has(fields), "{fields}\n{log}");
    }
}

#[test]
fn figures_tell_how_workers_queues_buffers_and_the_log_fare() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .with_admin()
        .env("REDIS_WORKERS", 3)
        .env("REDIS_TIMEOUT_MS", 60_000)
        .env("LOG_BURST", 1)
        .start();
    for _ in 0..5 {
        break_protocol(&proxy);
    }
    let page = |target: &str| {
        let response = proxy.admin().get_target(target);
        String::from_utf8(response.body).expect("the admin port speaks UTF-8")
    };
    let metric = |series: &str| -> f64 {
        let page = page("/metrics");
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("{series} in {page}"));
        value.parse().expect("a number")
    };
    eventually("the shell has told of itself", PATIENCE, || {
        metric("nearcache_workers_by_state{state=\"idle\"}") == 3.0
            && metric("nearcache_log_events_held_back_total") >= 1.0
            && metric("nearcache_log_lines_written_total") >= 2.0
    });
    assert_eq!(metric("nearcache_fetch_queue_length{worker=\"2\"}"), 0.0);
    assert_eq!(metric("nearcache_log_lines_dropped_total"), 0.0);
    assert_eq!(metric("nearcache_clients_paused_now"), 0.0);
    assert_eq!(metric("nearcache_admin_clients"), 1.0);
    assert!(metric("nearcache_buffer_bytes") < metric("nearcache_buffer_bytes_max"));
    let stats = page("/stats");
    assert!(
        stats.contains(r#""workers":[{"state":"idle","queued":0},"#),
        "{stats}"
    );
    assert!(
        stats.contains(r#""log":{"log_lines_waiting":0,"#),
        "{stats}"
    );
    // A worker that has asked and waits is busy; when Redis ends meanwhile it tries again, and is away.
    redis.freeze();
    let mut asks = proxy.resp();
    asks.send(&encode(&["GET", "k"]));
    eventually("a worker is busy", PATIENCE, || {
        metric("nearcache_workers_by_state{state=\"busy\"}") == 1.0
    });
    redis.kill();
    eventually("that worker does not reach Redis", PATIENCE, || {
        metric("nearcache_workers_by_state{state=\"away\"}") == 1.0
    });
}
