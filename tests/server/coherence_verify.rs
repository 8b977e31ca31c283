//! What is counted of coherence: checked hits, whose writes they were, why everything was dropped.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};

fn figure(proxy: &Proxy, name: &str) -> u64 {
    proxy.counter(&format!("nearcache_{name}"))
}

#[test]
fn a_change_that_redis_tells_nobody_of_is_found_by_checking_hits() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("VERIFY_SAMPLE", 1)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    let mut direct = redis.client();
    for line in ["SELECT 1", "SET k other", "SELECT 0", "SET k v"] {
        assert_eq!(direct.line(line), Reply::ok());
    }
    let (old, new) = (Reply::bulk("v"), Reply::bulk("other"));
    watched.warm("k", &old);
    watched.warm("none", &Reply::NullBulk);
    eventually("hits were checked", PATIENCE, || {
        watched.get("k");
        watched.get("none");
        figure(&proxy, "verify_checks") >= 3
    });
    assert_eq!(figure(&proxy, "verify_mismatches"), 0);
    assert_eq!(direct.line("SWAPDB 0 1"), Reply::ok());
    eventually("the difference is found", PATIENCE, || {
        let reply = watched.get("k");
        assert!(reply == old || reply == new, "{reply:?}");
        figure(&proxy, "verify_mismatches") > 0
    });
    assert!(figure(&proxy, "flushes_mismatch") > 0);
    watched.stays("k", &new);
    assert!(
        proxy
            .stderr()
            .contains("verify: a hit was not what Redis has"),
        "{}",
        proxy.stderr()
    );
}

#[test]
fn changes_are_counted_by_who_made_them() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    redis.call(&["MSET", "foreign", "1", "own", "1"]);
    watched.warm("foreign", &Reply::bulk("1"));
    watched.warm("own", &Reply::bulk("1"));
    let names = [
        "pushes_own",
        "pushes_foreign",
        "invalidations_own",
        "invalidations_foreign",
    ];
    let before = names.map(|name| figure(&proxy, name));
    let grown = || {
        let now = names.map(|name| figure(&proxy, name));
        [0, 1, 2, 3].map(|at| now[at] - before[at])
    };
    redis.call(&["SET", "foreign", "2"]);
    eventually("the foreign write is heard of", PATIENCE, || {
        grown() == [0, 1, 0, 1]
    });
    assert_eq!(proxy.resp().line("SET own 2"), Reply::ok());
    eventually("the push of the own write is heard of", PATIENCE, || {
        grown() == [1, 1, 1, 1]
    });
    // A script names no key: what is pushed while its reply is held is taken for its own.
    watched.warm("own", &Reply::bulk("2"));
    let mut writer = proxy.resp();
    writer.call(&["EVAL", "redis.call('SET', 'own', '3')", "0"]);
    let total = grown();
    assert_eq!(total[2] + total[3], 3, "its entry was dropped: {total:?}");
    let sum = figure(&proxy, "pushes_own") + figure(&proxy, "pushes_foreign");
    assert_eq!(
        sum,
        proxy.counter(info::PUSHES),
        "each push is one of the two"
    );
}

#[test]
fn flushes_are_counted_by_their_reason() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let grows = |name: &str, act: &mut dyn FnMut()| {
        let before = figure(&proxy, name);
        act();
        eventually(&format!("{name} grows"), PATIENCE, || {
            figure(&proxy, name) > before
        });
    };
    assert!(figure(&proxy, "flushes_up") >= 1);
    grows("flushes_pushed", &mut || {
        redis.call(&["FLUSHALL"]);
    });
    grows("flushes_command", &mut || {
        proxy.resp().line("SWAPDB 0 1");
    });
    for (state, reason) in [("off", "flushes_switch"), ("tracking", "flushes_switch")] {
        grows(reason, &mut || {
            proxy.signal("USR1");
            proxy.await_coherence(state);
        });
    }
    let (down, up) = (figure(&proxy, "flushes_down"), figure(&proxy, "flushes_up"));
    grows("flushes_server", &mut || {
        redis.kill();
        redis.boot();
    });
    proxy.await_coherence("tracking");
    assert!(figure(&proxy, "flushes_down") > down && figure(&proxy, "flushes_up") > up);
    let reasons = [
        "down", "up", "pushed", "command", "barrier", "switch", "server", "mismatch",
    ];
    let sum: u64 = reasons
        .iter()
        .map(|reason| figure(&proxy, &format!("flushes_{reason}")))
        .sum();
    assert_eq!(
        sum,
        proxy.counter(info::FLUSHES),
        "each flush has one reason"
    );
}
