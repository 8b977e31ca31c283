//! What is answered from memory and what is fetched: by the proxy's own counters and by what reached Redis.

use crate::support::http::request_for;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};

#[test]
fn the_second_read_of_a_key_is_a_hit_and_does_not_reach_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "k", "v"]);
    let mut client = proxy.resp();
    let counts = proxy.hits_and_misses_of(|| assert_eq!(client.line("GET k"), Reply::bulk("v")));
    assert_eq!(counts, (0, 1));
    let gets = redis.calls_of("get");
    assert_eq!(gets, 1);
    let counts = proxy.hits_and_misses_of(|| {
        for _ in 0..10 {
            assert_eq!(client.line("GET k"), Reply::bulk("v"));
            assert_eq!(
                proxy.resp().line("GET k"),
                Reply::bulk("v"),
                "another client shares the cache"
            );
        }
    });
    assert_eq!(counts, (20, 0));
    assert_eq!(redis.calls_of("get"), gets);
    assert_eq!(proxy.counter(info::ENTRIES), 1);
    assert!(
        proxy.counter(info::BYTES) >= 2,
        "an entry costs at least its key and value"
    );
}

#[test]
fn http_and_resp_share_one_cache() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["MSET", "a", "1", "b", "2"]);
    assert_eq!(proxy.resp().line("GET a"), Reply::bulk("1"));
    let response = proxy.http().get("a");
    assert!(response.is_hit() && response.body == b"1", "{response:?}");
    let response = proxy.http().get("b");
    assert!(!response.is_hit() && response.body == b"2", "{response:?}");
    let counts =
        proxy.hits_and_misses_of(|| assert_eq!(proxy.resp().line("GET b"), Reply::bulk("2")));
    assert_eq!(counts, (1, 0));
}

#[test]
fn a_missing_key_is_kept_as_missing_and_a_write_makes_it_visible_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_NEGATIVE_TTL_SECS", 60).start();
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::NullBulk);
    let gets = redis.calls_of("get");
    let counts = proxy.hits_and_misses_of(|| {
        assert_eq!(client.line("GET k"), Reply::NullBulk);
        assert_eq!(proxy.http().get("k").status, 404);
    });
    assert_eq!(counts, (2, 0));
    assert_eq!(redis.calls_of("get"), gets, "the absence was fetched once");
    assert_eq!(client.line("SET k v"), Reply::ok());
    assert_eq!(proxy.http().get("k").body, b"v");
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
}

#[test]
fn without_tracking_the_absence_of_a_key_is_not_kept_unless_configured() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let counts = proxy.hits_and_misses_of(|| {
        assert_eq!(proxy.resp().line("GET k"), Reply::NullBulk);
        assert_eq!(proxy.resp().line("GET k"), Reply::NullBulk);
    });
    assert_eq!(counts, (0, 2));
    redis.call(&["SET", "k", "v"]);
    assert_eq!(
        proxy.resp().line("GET k"),
        Reply::bulk("v"),
        "a write past the proxy is seen, nothing was kept"
    );
}

#[test]
fn readers_of_a_key_in_flight_join_its_one_fetch() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay).start();
    redis.call(&["MSET", "warm", "w", "k", "v"]);
    assert_eq!(proxy.resp().line("GET warm"), Reply::bulk("w"));

    relay.pause(Way::Down);
    let mut first = proxy.resp();
    first.send(&encode(&["GET", "k"]));
    eventually("the fetch is on its way", PATIENCE, || {
        relay.has_seen(Way::Up, b"\r\nk\r\n")
    });
    let mut second = proxy.resp();
    second.send(&encode(&["GET", "k"]));
    let mut third = proxy.http();
    third.send(&request_for("GET", "k"));
    eventually("two readers have joined", PATIENCE, || {
        proxy.counter(info::JOINED) == 2
    });
    relay.resume(Way::Down);

    assert_eq!(first.reply(), Reply::bulk("v"));
    assert_eq!(second.reply(), Reply::bulk("v"));
    let response = third.response();
    assert_eq!(response.body, b"v");
    assert!(
        response.cache_status().contains("collapsed"),
        "{response:?}"
    );
    assert_eq!(
        relay.count_of(Way::Up, b"GET\r\n$1\r\nk\r\n"),
        1,
        "it was fetched once"
    );
    assert_eq!(proxy.counter(info::MISSES), 2);
}

#[test]
fn every_kind_of_write_through_the_proxy_removes_the_old_value() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_NEGATIVE_TTL_SECS", 60).start();
    let mut client = proxy.resp();
    let writes: [(&[&str], Reply); 17] = [
        (&["SET", "k", "1"], Reply::bulk("1")),
        (&["INCR", "k"], Reply::bulk("2")),
        (&["APPEND", "k", "0"], Reply::bulk("20")),
        (&["SETRANGE", "k", "1", "5"], Reply::bulk("25")),
        (&["GETSET", "k", "3"], Reply::bulk("3")),
        (&["SETBIT", "k", "7", "0"], Reply::bulk("2")),
        (&["GETDEL", "k"], Reply::NullBulk),
        (&["MSET", "other", "o", "k", "4"], Reply::bulk("4")),
        (&["RENAME", "k", "elsewhere"], Reply::NullBulk),
        (&["RENAME", "elsewhere", "k"], Reply::bulk("4")),
        (&["UNLINK", "a", "b", "k"], Reply::NullBulk),
        (&["COPY", "other", "k"], Reply::bulk("o")),
        (
            &["EVAL", "redis.call('SET', 'k', 'undeclared')", "0"],
            Reply::bulk("undeclared"),
        ),
        (&["FLUSHALL"], Reply::NullBulk),
        (&["SETEX", "k", "100", "5"], Reply::bulk("5")),
        (&["BITOP", "NOT", "k", "no-such-key"], Reply::NullBulk),
        (&["PSETEX", "k", "100000", "6"], Reply::bulk("6")),
    ];
    for (write, expected) in writes {
        client.line("GET k");
        let reply = client.call(write);
        assert!(!matches!(reply, Reply::Error(_)), "{write:?}: {reply:?}");
        assert_eq!(client.line("GET k"), expected, "after {write:?}");
        assert_eq!(
            proxy.resp().line("GET k"),
            expected,
            "after {write:?}, another client"
        );
    }
}

#[test]
fn binary_and_empty_keys_and_values_are_kept_as_they_are() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let every_byte: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\r\n",
        b"$3\r\nfoo\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        &every_byte,
        "naïve ключ 鍵".as_bytes(),
        &[0xff, 0xfe],
    ];
    for key in samples {
        for value in samples {
            assert_eq!(client.call(&[b"SET", key, value]), Reply::ok());
            let counts = proxy.hits_and_misses_of(|| {
                assert_eq!(client.call(&[b"GET", key]), Reply::bulk(value));
                assert_eq!(client.call(&[b"GET", key]), Reply::bulk(value));
            });
            assert_eq!(counts, (1, 1));
            let response = proxy.http().get(key);
            assert!(response.is_hit() && response.body == value, "{response:?}");
        }
    }
    assert_eq!(proxy.counter(info::ENTRIES), samples.len() as u64);
}

#[test]
fn info_counts_relayed_commands_and_names_the_relayed_reads() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let before = proxy.counter(info::RELAYED);
    client.line("HSET h f v");
    client.line("HGETALL h");
    client.line("HGETALL h");
    client.line("LRANGE no-list 0 -1");
    assert_eq!(proxy.counter(info::RELAYED) - before, 4);
    assert_eq!(proxy.counter(&format!("{}hgetall", info::RELAYED_READS)), 2);
    assert_eq!(proxy.counter(&format!("{}lrange", info::RELAYED_READS)), 1);
    assert!(
        !proxy
            .info()
            .contains_key(&format!("{}hset", info::RELAYED_READS)),
        "a write is no read"
    );
    assert!(!proxy.info()[info::STATE].is_empty());
}
