//! SIGHUP: the configuration is read again, and nobody is disconnected.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::tls::Authority;
use crate::support::{PATIENCE, eventually};

/// Puts these lines in the file, asks for a reload, and waits until the log has another line that ends it with `outcome`.
/// What was logged since.
#[track_caller]
fn reload(proxy: &Proxy, lines: Option<&str>, outcome: &str) -> String {
    let before = proxy.stderr().len();
    proxy.set_config_file(lines);
    proxy.signal("HUP");
    let since = || proxy.stderr()[before..].to_owned();
    eventually(outcome, PATIENCE, || since().contains(outcome));
    since()
}

#[test]
fn sighup_changes_prefixes_and_what_may_not_be_kept_any_more_goes() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .config_file("BYPASS_PREFIXES=lock:\n")
        .start_tracking();
    redis.call(&["MSET", "user:1", "u", "lock:1", "l"]);
    let mut client = proxy.resp();
    let mut asked_for = |key: &str, value: &str| {
        let before = redis.calls_of("get");
        for _ in 0..4 {
            assert_eq!(client.call(&["GET", key]), Reply::bulk(value));
        }
        redis.calls_of("get") - before
    };
    assert_eq!(asked_for("user:1", "u"), 1);
    assert_eq!(asked_for("lock:1", "l"), 4);
    assert_eq!(proxy.counter(info::ENTRIES), 1);

    let log = reload(
        &proxy,
        Some("BYPASS_PREFIXES=user:\nREDIS_WORKERS=3\n"),
        "reloaded changed=1 need_restart=1",
    );
    for line in [
        " INFO reload setting=BYPASS_PREFIXES old=lock: new=user:\n",
        " WARN reload: this needs a restart setting=REDIS_WORKERS old=2 new=3\n",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    assert_eq!(
        proxy.counter(info::ENTRIES),
        0,
        "it may not be kept any more"
    );
    assert_eq!(asked_for("user:1", "u"), 4);
    assert_eq!(asked_for("lock:1", "l"), 1);
    redis.call(&["SET", "lock:1", "m"]);
    eventually("what is kept now is tracked as before", PATIENCE, || {
        proxy.resp().call(&["GET", "lock:1"]) == Reply::bulk("m")
    });

    let log = reload(
        &proxy,
        Some("BYPASS_PREFIXES=user:\n"),
        "reloaded changed=0 need_restart=0",
    );
    assert!(!log.contains("setting="), "{log}");
    assert_eq!(
        proxy.counter(info::ENTRIES),
        1,
        "nothing changed, nothing goes"
    );
}

#[test]
fn a_file_that_is_wrong_or_missing_changes_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .config_file("CACHE_CAPACITY=7\nBYPASS_PREFIXES=lock:\n")
        .start();
    redis.call(&["SET", "k", "v"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    let wrong = [
        (
            Some("BYPASS_PREFIXES=k\nCACHE_TTL_SECS=never\n"),
            "ERROR reload refused, nothing changes problem=\"nearcache.env line 2: CACHE_TTL_SECS=never: want",
        ),
        (
            Some("BYPASS_PREFIXES=k\nCACHE_TTL=1\n"),
            "ERROR reload refused, nothing changes problem=\"nearcache.env line 2: CACHE_TTL is not a key",
        ),
        (
            None,
            "ERROR reload refused, nothing changes problem=\"cannot read nearcache.env: ",
        ),
    ];
    for (lines, outcome) in wrong {
        let log = reload(&proxy, lines, outcome);
        assert!(!log.contains("reloaded"), "{log}");
        let (hits, _) = proxy.hits_and_misses_of(|| {
            assert_eq!(client.line("GET k"), Reply::bulk("v"));
        });
        assert_eq!(hits, 1, "k is kept as before");
    }
    let right = "CACHE_CAPACITY=7\nBYPASS_PREFIXES=lock:,k\n";
    reload(&proxy, Some(right), "reloaded changed=1 need_restart=0");
    assert_eq!(proxy.counter(info::ENTRIES), 0);
}

#[test]
fn limits_and_the_log_level_change_while_running() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .config_file("MAX_CONCURRENT_REQUESTS=1\nQUEUE_WAIT_MS=600000\n")
        .env("LINK_DEAD_MS", 600_000)
        .start();
    let mut client = proxy.resp();
    for n in 0..20 {
        assert_eq!(client.line(&format!("GET k{n}")), Reply::NullBulk);
        assert_eq!(client.line(&format!("SET k{n} v")), Reply::ok());
        assert_eq!(client.line(&format!("GET k{n}")), Reply::bulk("v"));
    }
    assert_eq!(proxy.counter(info::ENTRIES), 20);
    assert!(!proxy.stderr().contains(" DEBUG "));

    redis.freeze();
    let (mut one, mut other) = (proxy.resp(), proxy.resp());
    for waiting in [&mut one, &mut other] {
        waiting.send(&encode_line("SET k w"));
    }
    eventually("one waits behind the other", PATIENCE, || {
        proxy.counter(info::IN_FLIGHT) == 1 && proxy.counter(info::QUEUED_NOW) == 1
    });
    let lines =
        "MAX_CONCURRENT_REQUESTS=2\nQUEUE_WAIT_MS=600000\nCACHE_CAPACITY=3\nLOG_LEVEL=debug\n";
    let log = reload(&proxy, Some(lines), "reloaded changed=3 need_restart=0");
    assert!(
        log.contains("reload setting=LOG_LEVEL old=info new=debug\n"),
        "{log}"
    );
    assert_eq!(proxy.counter(info::IN_FLIGHT), 2, "there is room for both");
    assert_eq!(proxy.counter(info::QUEUED_NOW), 0);
    assert_eq!(proxy.counter(info::ENTRIES), 3, "the others had to leave");
    eventually("connections are logged now", PATIENCE, || {
        drop(proxy.resp());
        proxy.stderr().contains(" DEBUG ")
    });
    redis.thaw();
    for waiting in [&mut one, &mut other] {
        assert_eq!(waiting.reply(), Reply::ok());
    }
}

#[test]
fn another_redis_and_what_proves_it_wait_for_the_restart_together() {
    let redis = RedisServer::start();
    let plain = format!(
        "DRAIN_SECS=1\nREDIS_URL=redis://127.0.0.1:{}\n",
        redis.port()
    );
    let proxy = Proxy::by_file(&plain).start();
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    let ca = Authority::new("the CA of a Redis that is to come");
    let log = reload(
        &proxy,
        Some(&format!(
            "DRAIN_SECS=1\nREDIS_URL=rediss://127.0.0.1:{}\nREDIS_TLS_CA_FILE={}\n",
            redis.port(),
            ca.ca()
        )),
        "reloaded changed=0 need_restart=2",
    );
    assert!(log.contains("needs a restart setting=REDIS_URL"), "{log}");
    // Every connection that is made now is made as before.
    redis.call(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it goes on without TLS", PATIENCE, || {
        let mut client = proxy.resp();
        client.send(
            &[
                encode_line("MULTI"),
                encode_line("GET k"),
                encode_line("EXEC"),
                encode_line("GET other"),
            ]
            .concat(),
        );
        let replies: Result<Vec<Reply>, String> = (0..4).map(|_| client.try_reply()).collect();
        replies.is_ok_and(|replies| {
            replies[2] == Reply::Array(vec![Reply::bulk("v")]) && replies[3] == Reply::NullBulk
        })
    });
    reload(&proxy, Some(&plain), "reloaded changed=0 need_restart=0");
}
