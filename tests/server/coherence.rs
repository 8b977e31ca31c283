//! Changes by others, of every kind that Redis tells of: the proxy's copy is gone and the new truth is read.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};

const MANY: usize = 10_000;
/// Reads in one pipeline.
const PIPELINE: usize = 2_000;

#[test]
fn every_foreign_change_of_one_key_is_seen() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    let v = Reply::bulk;
    let script = "redis.call('SET', 'k', 'by script')";
    // What happens, and what is read afterwards; before it, what was read last.
    let changes: [(&[&str], Reply); 21] = [
        (&["SET", "k", "1"], v("1")),
        (&["SET", "k", "2"], v("2")),
        (&["DEL", "k"], Reply::NullBulk),
        (
            &["SET", "k", "created again", "EX", "100"],
            v("created again"),
        ),
        (&["SET", "k", "3", "KEEPTTL"], v("3")),
        (&["INCR", "k"], v("4")),
        (&["APPEND", "k", "2"], v("42")),
        (&["SETRANGE", "k", "0", "5"], v("52")),
        (&["GETDEL", "k"], Reply::NullBulk),
        (&["MSET", "j", "of j", "k", "m"], v("m")),
        (&["RENAME", "k", "elsewhere"], Reply::NullBulk),
        (&["RENAME", "elsewhere", "k"], v("m")),
        (&["COPY", "j", "k", "REPLACE"], v("of j")),
        (&["EVAL", script, "0"], v("by script")),
        (&["PEXPIRE", "k", "1"], Reply::NullBulk),
        (&["SETEX", "k", "100", "5"], v("5")),
        (&["UNLINK", "k"], Reply::NullBulk),
        (&["BITOP", "OR", "k", "j"], v("of j")),
        (&["FLUSHALL"], Reply::NullBulk),
        (&["SETNX", "k", "6"], v("6")),
        (&["FLUSHDB"], Reply::NullBulk),
    ];
    let mut before = Reply::NullBulk;
    for (change, after) in changes {
        watched.sees("k", before, after.clone(), || {
            redis.call(change);
        });
        before = after;
    }
}

#[test]
fn a_foreign_transaction_is_seen_and_so_is_a_string_that_has_become_a_hash() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    redis.call(&["MSET", "a", "1", "b", "1", "h", "string"]);
    let mut direct = redis.client();
    let transaction = |direct: &mut RespClient, lines: &[&str]| {
        let all: Vec<u8> = ["MULTI"]
            .iter()
            .chain(lines)
            .chain(&["EXEC"])
            .flat_map(|line| encode_line(line))
            .collect();
        direct.send(&all);
        let replies = direct.replies(lines.len() + 2);
        assert!(
            matches!(replies.last(), Some(Reply::Array(_))),
            "{replies:?}"
        );
    };
    watched.warm("b", &Reply::bulk("1"));
    watched.sees("a", Reply::bulk("1"), Reply::bulk("2"), || {
        transaction(&mut direct, &["SET a 2", "SET b 2"]);
    });
    // One push names both, so b is not older than a.
    watched.stays("b", &Reply::bulk("2"));
    let hash = Reply::Error(
        "WRONGTYPE Operation against a key holding the wrong kind of value".to_string(),
    );
    watched.sees("h", Reply::bulk("string"), hash, || {
        transaction(&mut direct, &["DEL h", "HSET h field value"]);
    });
    assert_eq!(proxy.resp().line("HGET h field"), Reply::bulk("value"));
    redis.call(&["SET", "h", "string again"]);
    assert_eq!(
        watched.get("h"),
        Reply::bulk("string again"),
        "an error is never kept"
    );
}

#[test]
fn a_life_that_others_shorten_or_lengthen_counts_here() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut http = proxy.http();
    let mut ttl = || -> i64 {
        let response = http.get("k");
        let status = response.cache_status().to_string();
        status
            .split("ttl=")
            .nth(1)
            .map_or(-1, |ttl| ttl.parse().expect("a number of seconds"))
    };
    redis.call(&["SET", "k", "v"]);
    let mut until = |what: &str, from: i64, to: i64| {
        eventually(what, PATIENCE, || (from..=to).contains(&ttl()));
    };
    until("kept for long", 20, 60);
    redis.call(&["EXPIRE", "k", "10"]);
    until("kept as long as EXPIRE says", 1, 10);
    redis.call(&["PERSIST", "k"]);
    until("kept for long after PERSIST", 20, 60);
    redis.call(&["PEXPIRE", "k", "1"]);
    eventually("gone", PATIENCE, || {
        proxy.resp().line("GET k") == Reply::NullBulk
    });
}

#[test]
fn a_flush_of_another_database_drops_everything_and_changes_no_answer() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    redis.call(&["SET", "k", "v"]);
    watched.warm("k", &Reply::bulk("v"));
    let flushes = proxy.counter(info::FLUSHES);
    let mut direct = redis.client();
    assert_eq!(direct.line("SELECT 5"), Reply::ok());
    direct.line("SET k other");
    assert_eq!(direct.line("FLUSHDB"), Reply::ok());
    eventually("the flush is heard of", PATIENCE, || {
        proxy.counter(info::FLUSHES) > flushes
    });
    // SET k in database 5 alone has dropped it already: Redis does not name the database.
    watched.stays("k", &Reply::bulk("v"));
    watched.warm("k", &Reply::bulk("v"));
}

#[test]
fn one_push_with_ten_thousand_keys_drops_each_of_them() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).tracking().start_tracking();
    let keys: Vec<String> = (0..MANY).map(|n| format!("key:{n}")).collect();
    let set_all = |value: &str| {
        let pairs = keys.iter().flat_map(|key| [key.as_str(), value]);
        let args: Vec<&str> = ["MSET"].into_iter().chain(pairs).collect();
        assert_eq!(redis.call(&args), Reply::ok());
    };
    let mut client = proxy.resp();
    let mut values = || -> Vec<Reply> {
        let mut values = Vec::with_capacity(MANY);
        for part in keys.chunks(PIPELINE) {
            let pipeline: Vec<u8> = part.iter().flat_map(|key| encode(&["GET", key])).collect();
            client.send(&pipeline);
            values.extend(client.replies(part.len()));
        }
        values
    };
    let (old, new) = (Reply::bulk("old"), Reply::bulk("new"));
    set_all("old");
    eventually("all keys are hits", PATIENCE, || {
        let counts =
            proxy.hits_and_misses_of(|| assert!(values().iter().all(|value| *value == old)));
        counts == (MANY as u64, 0)
    });
    let pushes = proxy.counter(info::PUSHES);
    set_all("new");
    eventually("the push is heard of", PATIENCE, || {
        proxy.counter(info::PUSHES) - pushes >= MANY as u64
    });
    assert!(values().iter().all(|value| *value == new));
    assert_eq!(
        relay.count_of(Way::Down, b"invalidate\r\n*10000\r\n"),
        2,
        "each MSET was one push"
    );
}

#[test]
fn what_redis_evicts_for_room_is_gone_here_too() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    for n in 0..50 {
        redis.call(&["SET", &format!("k{n}"), "v"]);
        watched.warm(&format!("k{n}"), &Reply::bulk("v"));
    }
    let pushes = proxy.counter(info::PUSHES);
    redis.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut direct = redis.client();
    eventually("Redis has evicted all", PATIENCE, || {
        direct.line("DBSIZE") == Reply::Int(0)
    });
    for n in 0..50 {
        watched.turns(&format!("k{n}"), &Reply::bulk("v"), &Reply::NullBulk);
    }
    assert!(proxy.counter(info::PUSHES) >= pushes + 50);
}

#[test]
fn a_key_whose_time_is_over_is_no_hit_even_while_redis_has_not_noticed() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    // Nobody deletes what has expired, so nobody pushes it.
    redis.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let (mut client, mut direct) = (proxy.resp(), redis.client());
    let value = Reply::bulk("v");
    // On a machine so slow that a key lives for less than a read, another is tried.
    let was_hit = (0..20).any(|round| {
        let key = format!("k{round}");
        // The time is asked of another key: reading the watched one directly would delete it.
        for name in [key.as_str(), "clock"] {
            assert_eq!(direct.call(&["SET", name, "v", "PX", "1000"]), Reply::ok());
        }
        let hits = proxy.counter(info::HITS);
        eventually("the time is over", PATIENCE, || {
            let is_over = direct.line("PTTL clock") == Reply::Int(-2);
            let reply = client.call(&["GET", &key]);
            assert!(
                reply == value && !is_over || reply == Reply::NullBulk,
                "{reply:?}, over: {is_over}"
            );
            // Its absence is read through the proxy last of all: that is when Redis may notice.
            reply == Reply::NullBulk
        });
        proxy.counter(info::HITS) > hits
    });
    assert!(was_hit, "it was kept while it lived");
}

#[test]
fn brief_keys_among_two_hundred_thousand_long_lived_ones_are_no_hits_after_their_time() {
    const BRIEF: usize = 200;
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    // In parts: while a script runs for seconds Redis answers others with BUSY.
    let script = "for n = 1, 10000 do redis.call('SET', ARGV[1] .. n, 'v', 'EX', 100000) end";
    for part in 0..20 {
        redis.call(&["EVAL", script, "0", &format!("long:{part}:")]);
    }
    let (mut client, mut direct) = (proxy.resp(), redis.client());
    let value = Reply::bulk("v");
    // Redis finds what has expired by sampling, so that among so many it tells of a key long after its time.
    let was_hit = (0..20).any(|round| {
        let keys: Vec<String> = (0..BRIEF).map(|n| format!("brief:{round}:{n}")).collect();
        let set = |key: &str| encode(&["SET", key, "v", "PX", "1500"]);
        // The clock is set last, so when its time is over, theirs is.
        let all: Vec<u8> = keys
            .iter()
            .map(String::as_str)
            .chain(["clock"])
            .flat_map(set)
            .collect();
        direct.send(&all);
        direct.replies(BRIEF + 1);
        let hits = proxy.counter(info::HITS);
        eventually("their time is over", PATIENCE, || {
            let is_over = direct.line("PTTL clock") == Reply::Int(-2);
            for key in &keys {
                let reply = client.call(&["GET", key]);
                let is_right = reply == value && !is_over || reply == Reply::NullBulk;
                assert!(is_right, "{key}: {reply:?}, over: {is_over}");
            }
            is_over
        });
        proxy.counter(info::HITS) > hits
    });
    assert!(was_hit, "they were kept while they lived");
}

#[test]
fn the_absence_of_a_key_is_kept_until_another_client_creates_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    for round in 0..5 {
        let (key, value) = (format!("k{round}"), format!("v{round}"));
        // `sees` asks for a hit first: here, that it is missing.
        watched.sees(&key, Reply::NullBulk, Reply::bulk(&value), || {
            redis.call(&["SET", &key, &value]);
        });
    }
}
