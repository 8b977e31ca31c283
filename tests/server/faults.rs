//! What Redis, the network, the system and the operator do: what clients see meanwhile and afterwards.

use crate::support::http::request_for;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::thread;
use std::time::Duration;

#[test]
fn a_redis_that_is_out_of_memory_refuses_writes_in_its_own_words_and_reads_go_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    redis.call(&["SET", "k", "v"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..3 {
        let refused = client.line("SET k w");
        assert!(refused.error().starts_with("OOM "), "{refused:?}");
        assert_eq!(
            client.line("GET k"),
            Reply::bulk("v"),
            "nothing was written"
        );
        assert_eq!(client.line("GET cold"), Reply::NullBulk);
        assert_eq!(proxy.http().get("k").body, b"v");
    }
    redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(client.line("SET k w"), Reply::ok());
    assert_eq!(client.line("GET k"), Reply::bulk("w"));
}

#[test]
fn a_redis_that_is_loading_answers_errors_and_never_absence() {
    // 1000 keys at 4 ms each, a look at clients in between.
    let mut redis = RedisServer::start_with(&[
        "--key-load-delay",
        "4000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let mut client = proxy.resp();
    let value = "v".repeat(200);
    for n in 0..1000 {
        client.send(&encode(&["SET", &format!("k{n}"), &value]));
    }
    assert!(
        client
            .replies(1000)
            .iter()
            .all(|reply| *reply == Reply::ok())
    );
    redis.call(&["SAVE"]);
    redis.kill();
    redis.boot();
    let mut errors = 0;
    eventually("it has loaded", PATIENCE, || {
        let replies = [
            client.line("GET k999"),
            client.line("STRLEN k999"),
            client.line("GET k1"),
        ];
        let is_right = |reply: &Reply| *reply == Reply::bulk(&value) || *reply == Reply::Int(200);
        for reply in &replies {
            let is_error = matches!(reply, Reply::Error(_));
            errors += u32::from(is_error);
            assert!(is_error || is_right(reply), "{reply:?}");
        }
        replies.iter().all(is_right)
    });
    assert!(errors > 0, "it took a while to load");
}

#[test]
fn bytes_that_stall_one_way_are_errors_in_time_and_recovery_needs_nobody() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .env("REDIS_TIMEOUT_MS", 300)
        .env("LINK_DEAD_MS", 900)
        .lost_is_an_error()
        .start();
    redis.call(&["SET", "hot", "h"]);
    for way in [Way::Up, Way::Down] {
        let (mut client, mut http) = (proxy.resp(), proxy.http());
        eventually("all is well", PATIENCE, || {
            client.line("GET hot") == Reply::bulk("h")
                && matches!(client.line("INCR n"), Reply::Int(_))
        });
        relay.pause(way);
        let cold = format!("GET cold{way:?}");
        assert!(client.line(&cold).is_own_error(), "{way:?}");
        assert!(client.line("INCR n").is_own_error(), "{way:?}");
        assert!(matches!(http.get("cold").status, 503 | 504), "{way:?}");
        relay.resume(way);
        eventually("it has recovered", PATIENCE, || {
            client.line(&cold) == Reply::NullBulk
                && matches!(client.line("INCR n"), Reply::Int(_))
                && http.get("cold").status == 404
        });
    }
}

#[test]
fn a_proxy_that_slept_gives_no_hit_of_before() {
    const BOUND: Duration = Duration::from_millis(600);
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("CACHE_TTL_SECS", 3600)
        .start_tracking();
    let relay_free = redis.client();
    drop(relay_free);
    for round in 0..3 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        redis.call(&["SET", "k", &old]);
        let mut client = proxy.resp();
        eventually("it is kept", PATIENCE, || {
            let (hits, _) = proxy.hits_and_misses_of(|| {
                client.line("GET k");
            });
            hits == 1 && client.line("GET k") == Reply::bulk(&old)
        });
        proxy.signal("STOP");
        redis.call(&["SET", "k", &new]);
        // The time is what is tested: the proxy sleeps for longer than its bound.
        thread::sleep(2 * BOUND);
        client.send(&encode_line("GET k"));
        proxy.signal("CONT");
        assert_eq!(client.reply(), Reply::bulk(&new));
    }
}

#[test]
fn a_password_that_redis_changes_keeps_new_connections_out_until_it_is_the_old_one_again() {
    const OLD: &str = "old+secret";
    let redis = RedisServer::start();
    let mut direct = redis.client();
    assert_eq!(
        direct.call(&["CONFIG", "SET", "requirepass", OLD]),
        Reply::ok()
    );
    let url = format!("redis://:{OLD}@127.0.0.1:{}/0", redis.port());
    let proxy = Proxy::to(&redis)
        .env("REDIS_URL", url)
        .env("CLIENT_AUTH", "none")
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    assert_eq!(client.line("SET k v"), Reply::ok());
    for _ in 0..2 {
        eventually("it is kept", PATIENCE, || http.get("k").is_hit());
        assert_eq!(
            direct.call(&["CONFIG", "SET", "requirepass", "new"]),
            Reply::ok()
        );
        // Who is in stays in.
        assert!(matches!(client.line("INCR n"), Reply::Int(_)));
        direct.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        proxy.await_redis("away");
        assert!(client.line("GET k").is_own_error());
        assert!(client.line("SET k w").is_own_error());
        assert_eq!(http.get("k").status, 503);
        let said = proxy.stderr();
        assert!(said.contains("WRONGPASS"), "{said}");
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(
            direct.call(&["CONFIG", "SET", "requirepass", OLD]),
            Reply::ok()
        );
        proxy.await_coherence("tracking");
        eventually("all works again", PATIENCE, || {
            client.line("SET k v") == Reply::ok() && client.line("GET k") == Reply::bulk("v")
        });
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let redis = RedisServer::start();
    // A full disk, a reader that does not read, and the same of standard error.
    let prefixes = [
        (Some("/dev/full"), "true"),
        (Some("fifo"), "mkfifo fifo && exec 7<>fifo"),
        (None, "exec 2>/dev/full"),
        (None, "mkfifo fifo && exec 7<>fifo && exec 2>fifo"),
    ];
    for (file, shell) in prefixes {
        let proxy = Proxy::to(&redis)
            .env("LOG_LEVEL", "debug")
            .env("LOG_BURST", 1_000_000);
        let proxy = match file {
            Some(file) => proxy.env("LOG_FILE", file),
            None => proxy,
        };
        let mut proxy = proxy.after_shell(shell).start();
        let mut client = proxy.resp();
        assert_eq!(client.line("SET k v"), Reply::ok());
        // Each of these is a line: more than a pipe takes.
        for _ in 0..1500 {
            let mut bad = proxy.resp();
            bad.send(b"*x\r\n");
            bad.bytes_until_closed();
            assert_eq!(client.line("GET k"), Reply::bulk("v"));
        }
        drop(client);
        proxy.stop();
    }
}

#[test]
fn sigpipe_and_clients_that_are_gone_when_they_are_written_to_end_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "k", &"v".repeat(100_000)]);
    let mut client = proxy.resp();
    for _ in 0..50 {
        proxy.signal("PIPE");
        let mut leaving = proxy.resp();
        leaving.send(&encode_line("GET k").repeat(50));
        leaving.reset();
        assert_eq!(client.line("ECHO x"), Reply::bulk("x"));
    }
    eventually("they are gone", PATIENCE, || {
        proxy.info()["nearcache_clients"] == "2"
    });
}

#[test]
fn misses_above_fetch_queue_max_are_refused_at_once_and_hits_are_not() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("FETCH_QUEUE_MAX", 3)
        .env("FETCH_BATCH_MAX", 1)
        .start();
    redis.call(&["SET", "hot", "h"]);
    assert_eq!(proxy.resp().line("GET hot"), Reply::bulk("h"));
    relay.pause(Way::Down);
    let mut clients: Vec<_> = (0..12).map(|_| proxy.resp()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&encode(&["GET", &format!("cold{n}")]));
    }
    eventually("what does not fit is refused", PATIENCE, || {
        proxy.counter("nearcache_fetch_errors") >= 5
    });
    let refused = clients
        .iter_mut()
        .filter_map(|client| client.try_reply_now())
        .inspect(|reply| assert!(reply.is_own_error(), "{reply:?}"))
        .count();
    assert!((5..=9).contains(&refused), "{refused} of 12 refused");
    // What came in one turn was refused before the worker had taken the first: there may be room for one more.
    eventually("one is under way and three wait", PATIENCE, || {
        let mut more = proxy.resp();
        more.send(&encode(&["GET", &format!("more{}", clients.len())]));
        clients.push(more);
        proxy.counter(info::IN_FLIGHT) == 4
    });
    let answer = proxy.http().get("colder");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    for _ in 0..10 {
        assert_eq!(proxy.resp().line("GET hot"), Reply::bulk("h"));
    }
    relay.resume(Way::Down);
    eventually("there is room again", PATIENCE, || {
        proxy.resp().line("GET coldest") == Reply::NullBulk
    });
}

#[test]
fn who_waits_for_a_place_too_long_is_told_over_http_when_to_come_again() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("MAX_CONCURRENT_REQUESTS", 1)
        .env("QUEUE_WAIT_MS", 100)
        .start();
    assert_eq!(proxy.resp().line("GET warm"), Reply::NullBulk);
    relay.pause(Way::Down);
    let mut first = proxy.resp();
    first.send(&encode(&["GET", "first"]));
    eventually("it is under way", PATIENCE, || {
        proxy.counter(info::IN_FLIGHT) == 1
    });
    let mut http = proxy.http();
    http.send(&request_for("GET", "second"));
    let answer = http.response();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(proxy.counter("nearcache_queue_timeouts"), 1);
    relay.resume(Way::Down);
    assert_eq!(first.reply(), Reply::NullBulk);
}

#[test]
fn a_request_above_its_limit_is_refused_and_its_client_closed_and_one_below_is_not() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("REQUEST_BYTES_MAX", "32KiB").start();
    let mut well = proxy.resp();
    let fits = "x".repeat(32 * 1024 - 100);
    assert_eq!(well.call(&["SET", "k", &fits]), Reply::ok());
    let mut large = proxy.resp();
    // Nothing of a subscription is passed on before all of it is understood.
    large.send(&encode(&["SUBSCRIBE", &"x".repeat(33 * 1024)]));
    let said = large.bytes_until_closed();
    assert!(
        said.starts_with(b"-ERR "),
        "{}",
        String::from_utf8_lossy(&said)
    );
    eventually("the log says why", PATIENCE, || {
        proxy.stderr().contains("reason=request_too_large")
    });
    assert_eq!(well.call(&["GET", "k"]), Reply::bulk(&fits));
    assert!(proxy.counter("nearcache_protocol_errors") > 0);
}

#[test]
fn replies_owed_above_their_limit_hold_the_next_commands_and_lose_none() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("REPLIES_OWED_MAX", 10)
        .start();
    let mut client = proxy.resp();
    assert_eq!(client.line("INCR n"), Reply::Int(1));
    relay.pause(Way::Down);
    client.send(&encode_line("INCR n").repeat(100));
    eventually("ten are under way", PATIENCE, || {
        proxy.counter(info::IN_FLIGHT) == 10
    });
    eventually("they have arrived", PATIENCE, || {
        relay.count_of(Way::Up, b"INCR") >= 11
    });
    assert_eq!(relay.count_of(Way::Up, b"INCR"), 11, "and no more");
    relay.resume(Way::Down);
    for n in 2..=101 {
        assert_eq!(client.reply(), Reply::Int(n));
    }
}

#[test]
fn a_worker_that_panics_fails_its_fetches_and_goes_on_afresh() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("REDIS_WORKERS", 1)
        .env("MISCHIEF_WORKER_KEY", "panic")
        .start();
    redis.call(&["MSET", "k", "v", "panic", "never seen"]);
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    for round in 1..=3 {
        client.send(&[encode(&["GET", "panic"]), encode(&["ECHO", "x"])].concat());
        let reply = client.reply();
        assert!(reply.is_own_error(), "{reply:?}");
        assert_eq!(client.reply(), Reply::bulk("x"));
        assert_eq!(http.get("panic").status, 503);
        assert_eq!(client.line("GET k"), Reply::bulk("v"));
        assert_eq!(client.line(&format!("GET cold{round}")), Reply::NullBulk);
    }
    assert_eq!(proxy.counter(info::IN_FLIGHT), 0);
    drop((client, http));
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    let said = proxy.stderr();
    let times = said.matches("starting afresh").count();
    assert!((3..=6).contains(&times), "{said}");
}

#[test]
fn a_panic_of_the_loop_ends_the_process_with_a_message_and_code_101() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("MISCHIEF_LOOP_KEY", "panic")
        .env("LOG_FILE", "log")
        .start();
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    client.send(&encode(&["GET", "panic"]));
    assert_eq!(proxy.wait_for_end().code(), Some(101));
    for said in [proxy.stderr(), proxy.read_file("log")] {
        assert!(
            said.contains("a test has ordered this panic of the loop"),
            "{said}"
        );
    }
    assert!(client.bytes_until_closed().is_empty());
}
