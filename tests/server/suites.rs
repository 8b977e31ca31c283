//! What the suites of Redis and redis-py have found (deploy/suites.sh runs them), each as a test of its own.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::time::{Duration, Instant};

/// Redis refuses SYNC on a connection that it still has to answer something, and ours begin with questions.
#[test]
fn sync_is_the_first_that_a_connection_is_asked_once_it_is_greeted() {
    let redis = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let proxy = Proxy::start(&redis);
    for round in 0..10 {
        let mut replica = proxy.resp();
        if round % 2 == 1 {
            // On a connection that is not ours alone yet, and that has a name to be given first.
            assert_eq!(replica.line("CLIENT SETNAME replica"), Reply::ok());
        }
        replica.send(b"SYNC\r\n");
        // Empty lines keep it alive until the snapshot begins.
        let begun = replica.bytes_until(b"$");
        assert!(begun[..begun.len() - 1].iter().all(|byte| *byte == b'\n'));
        redis.call(&["SET", "k", &round.to_string()]);
        let written = format!("$1\r\nk\r\n$1\r\n{round}\r\n");
        replica.bytes_until(written.as_bytes());
    }
}

#[test]
fn client_reply_off_keeps_replies_back_and_no_message() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for (hello, begin) in [("HELLO 2", "*3"), ("HELLO 3", ">3")] {
        let (mut client, mut direct) = (proxy.resp(), redis.client());
        for client in [&mut client, &mut direct] {
            client.line(hello);
            for line in [
                "CLIENT REPLY OFF",
                "PING",
                "SUBSCRIBE one two",
                "SUBSCRIBE",
                "UNSUBSCRIBE one two",
            ] {
                client.send(&encode_line(line));
            }
        }
        let end = b"unsubscribe\r\n$3\r\ntwo\r\n:0\r\n";
        let seen = client.bytes_until(end);
        assert!(seen.starts_with(begin.as_bytes()));
        assert_eq!(
            String::from_utf8_lossy(&seen),
            String::from_utf8_lossy(&direct.bytes_until(end))
        );
    }
}

/// Redis tells who redirects to a client that has left, from the moment that client is told goodbye.
#[test]
fn who_has_quit_is_gone_for_redis_too() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for round in 0..20 {
        let (mut target, mut tracker, mut writer) = (proxy.resp(), proxy.resp(), proxy.resp());
        let Reply::Int(id) = target.line("CLIENT ID") else {
            panic!("an id is a number");
        };
        target.line("SUBSCRIBE __redis__:invalidate");
        tracker.line("HELLO 3");
        let on = format!("CLIENT TRACKING ON REDIRECT {id}");
        assert_eq!(tracker.line(&on), Reply::ok());
        writer.line(&format!("SET k {round}"));
        tracker.line("GET k");
        assert_eq!(target.line("QUIT"), Reply::ok());
        assert_eq!(writer.line("SET k other"), Reply::ok());
        tracker.bytes_until(format!("tracking-redir-broken\r\n:{id}\r\n").as_bytes());
        assert_eq!(writer.line("PUBLISH __redis__:invalidate x"), Reply::Int(0));
        assert_eq!(target.bytes_until_closed(), b"");
    }
}

#[test]
fn who_turns_tracking_off_may_name_anybody_that_is_there() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    // Of the two only one has a connection of its own in Redis.
    for named in [client.line("CLIENT ID"), other.line("CLIENT ID")] {
        let Reply::Int(id) = named else {
            panic!("an id is a number");
        };
        for line in ["ON", "OFF"] {
            let line = format!("CLIENT TRACKING {line} REDIRECT {id}");
            assert_eq!(client.line(&line), Reply::ok(), "{line}");
        }
        assert_eq!(client.line("CLIENT GETREDIR"), Reply::Int(-1));
    }
    let nobody = "CLIENT TRACKING OFF REDIRECT 4711";
    assert_eq!(client.line(nobody), redis.client().line(nobody));
}

/// Its connections to another database than 0 begin with SELECT, which Redis refuses then.
#[test]
fn a_script_of_the_proxys_own_client_can_be_seen_and_killed_in_any_database() {
    let redis = RedisServer::start_with(&["--busy-reply-threshold", "1"]);
    let proxy = Proxy::tracking(&redis);
    for db in [0, 9] {
        let (mut client, mut script) = (proxy.resp(), proxy.resp());
        let select = format!("SELECT {db}");
        assert_eq!(client.line(&select), Reply::ok());
        assert_eq!(script.line(&select), Reply::ok());
        script.send(&encode(&["EVAL", "while true do end", "0"]));
        eventually("Redis is busy with it", PATIENCE, || {
            let mut direct = redis.client();
            matches!(direct.line("PING"), Reply::Error(text) if text.starts_with("BUSY "))
        });
        for line in ["PING", "SET k w", "HGETALL h", "PING again", "EXISTS k"] {
            let reply = client.line(line);
            assert!(reply.error().starts_with("BUSY "), "{db} {line}: {reply:?}");
        }
        assert_eq!(client.line("SCRIPT KILL"), Reply::ok());
        assert!(script.reply().error().contains("killed"));
        proxy.await_redis("up");
        eventually("it answers again", PATIENCE, || {
            client.line("PING") == Reply::Simple("PONG".to_owned())
        });
        assert_eq!(client.line("EXISTS k"), Reply::Int(0), "nothing was set");
    }
}

/// Redis may refuse the SELECT and execute what comes behind it, in database 0.
#[test]
fn nothing_is_sent_into_another_database_before_redis_has_selected_it() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).start();
    let (mut client, mut blocked) = (proxy.resp(), proxy.resp());
    for client in [&mut client, &mut blocked] {
        assert_eq!(client.line("SELECT 9"), Reply::ok());
    }
    let selected = || relay.count_of(Way::Up, b"SELECT\r\n$1\r\n9\r\n");
    let before = selected();
    relay.pause(Way::Down);
    client.send(&encode_line("SET early v"));
    blocked.send(&encode_line("BLPOP early-too 0"));
    eventually("both have asked for it", PATIENCE, || {
        selected() == before + 2
    });
    // What is sent is sent in order, and the names of the connections are behind the question.
    eventually("their handshakes are out", PATIENCE, || {
        relay.has_seen(Way::Up, b"CLIENT\r\n$2\r\nID\r\n")
    });
    assert!(!relay.has_seen(Way::Up, b"early"), "it did not wait");
    relay.resume(Way::Down);
    assert_eq!(client.reply(), Reply::ok());
    assert_eq!(client.line("RPUSH early-too x"), Reply::Int(1));
    let popped = vec![Reply::bulk("early-too"), Reply::bulk("x")];
    assert_eq!(blocked.reply(), Reply::Array(popped));
}

#[test]
fn a_value_that_takes_longer_than_the_time_out_is_waited_for_while_it_comes() {
    const TIMEOUT: Duration = Duration::from_millis(1000);
    const BYTES: usize = 8 * 1024 * 1024;
    let redis = RedisServer::start();
    redis.call(&["SETRANGE", "slow", &(BYTES - 1).to_string(), "\0"]);
    redis.call(&["SET", "behind", "v"]);
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .tracking()
        .env("REDIS_TIMEOUT_MS", TIMEOUT.as_millis())
        .env("REDIS_WORKERS", 1)
        .start_tracking();
    // The worker has a connection, and knows it.
    assert_eq!(proxy.resp().line("GET nothing"), Reply::NullBulk);
    // At most 64 KiB at a time: 128 of these pauses.
    relay.delay(Way::Down, Duration::from_millis(20));
    let (mut first, mut joined, mut behind) = (proxy.resp(), proxy.resp(), proxy.resp());
    let begun = Instant::now();
    first.send(&encode_line("GET slow"));
    joined.send(&encode_line("GET slow"));
    behind.send(&encode_line("GET behind"));
    for client in [&mut first, &mut joined] {
        let value = client.bytes_until(b"\0\r\n");
        assert_eq!(value.len(), format!("${BYTES}\r\n").len() + BYTES + 2);
    }
    assert_eq!(behind.reply(), Reply::bulk("v"));
    assert!(begun.elapsed() > 2 * TIMEOUT, "it was not slow");
}

/// The elements of EXEC's reply too, though Redis writes them, and a large one beside them still streams.
#[test]
fn what_a_transaction_says_of_clients_is_said_of_the_proxys_clients() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let large = "v".repeat(3 * 1024 * 1024);
    redis.call(&["SET", "large", &large]);
    for hello in ["HELLO 2", "HELLO 3"] {
        // So that ids here and there are not the same by chance.
        redis.client().line("PING");
        let (mut client, mut target) = (proxy.resp(), proxy.resp());
        client.line(hello);
        let Reply::Int(id) = client.line("CLIENT ID") else {
            panic!("an id is a number");
        };
        let Reply::Int(target_id) = target.line("CLIENT ID") else {
            panic!("an id is a number");
        };
        target.line("SUBSCRIBE __redis__:invalidate");
        let on = format!("CLIENT TRACKING ON REDIRECT {target_id}");
        let list = format!("CLIENT LIST ID {id} {target_id}");
        for line in ["MULTI", "CLIENT ID", "GET large", &on, "CLIENT GETREDIR"] {
            client.send(&encode_line(line));
        }
        let rest = [
            &list,
            "CLIENT INFO",
            "CLIENT LIST TYPE nonsense",
            hello,
            "GET large",
            "CLIENT ID",
        ];
        for line in rest {
            client.send(&encode_line(line));
        }
        assert_eq!(client.reply(), Reply::ok());
        for _ in 0..4 + rest.len() {
            assert_eq!(client.reply(), Reply::Simple("QUEUED".to_owned()));
        }
        let Reply::Array(elements) = client.line("EXEC") else {
            panic!("{hello}: it is executed");
        };
        assert_eq!(elements.len(), 4 + rest.len());
        assert_eq!(elements[0], Reply::Int(id));
        assert!(elements[1] == Reply::bulk(&*large) && elements[8] == Reply::bulk(&*large));
        assert_eq!(elements[2], Reply::ok());
        assert_eq!(elements[3], Reply::Int(target_id));
        let both = elements[4].text().replace("txt:", "");
        assert_eq!(both.lines().count(), 2, "{both}");
        let own = format!("id={id} addr=127.0.0.1:{} ", client.local_port());
        assert!(both.starts_with(&own), "{own} in {both}");
        assert!(both.contains(&format!("\nid={target_id} ")), "{both}");
        assert!(elements[5].text().contains(&format!("id={id} ")));
        assert!(elements[6].error().contains("Unknown client type"));
        let greeting = format!("{:?}", elements[7]);
        assert!(greeting.contains(&format!("Int({id})")), "{greeting}");
        assert_eq!(elements[9], Reply::Int(id));
        // And what is behind it is where it was.
        assert_eq!(client.line("CLIENT ID"), Reply::Int(id));
    }
}

/// CLIENT PAUSE WRITE holds a connection up from its first write on, and many clients share one.
#[test]
fn a_paused_write_holds_up_nobody_elses_reads() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["RPUSH", "list", "a"]);
    let (mut writers, mut reader) = ([proxy.resp(), proxy.resp()], proxy.resp());
    assert_eq!(reader.line("CLIENT PAUSE 60000 WRITE"), Reply::ok());
    for writer in &mut writers {
        writer.send(&encode_line("SET k v"));
    }
    eventually("both are blocked", PATIENCE, || {
        let info = redis.call(&["INFO", "clients"]).text();
        info.contains("blocked_clients:2\r\n")
    });
    for _ in 0..20 {
        assert_eq!(reader.line("LLEN list"), Reply::Int(1));
    }
    assert_eq!(reader.line("CLIENT UNPAUSE"), Reply::ok());
    for writer in &mut writers {
        assert_eq!(writer.reply(), Reply::ok());
    }
}

/// Redis answers everybody else -BUSY meanwhile, and whose script it is would simply wait for it.
#[test]
fn a_script_may_take_longer_than_a_connection_may_be_silent() {
    const DEAD: Duration = Duration::from_millis(2000);
    let redis = RedisServer::start_with(&["--busy-reply-threshold", "1"]);
    let load = "#!lua name=l\nredis.register_function('forever', function() while true do end end)";
    redis.call(&["FUNCTION", "LOAD", load]);
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("LINK_DEAD_MS", DEAD.as_millis())
        .start_tracking();
    for (before, call, end, kill) in [
        // On a connection that clients share; on the client's own; in a transaction; in one that comes in one piece.
        ("", "EVAL\0while true do end\x000", "", "SCRIPT KILL"),
        ("WATCH k", "FCALL\0forever\x000", "", "FUNCTION KILL"),
        (
            "MULTI",
            "EVAL\0while true do end\x000",
            "EXEC",
            "SCRIPT KILL",
        ),
        ("", "MULTI\nFCALL\0forever\x000\nEXEC", "", "FUNCTION KILL"),
    ] {
        let (mut client, mut other) = (proxy.resp(), proxy.resp());
        if !before.is_empty() {
            assert_eq!(client.line(before), Reply::ok());
        }
        let lines = call.split('\n').map(|line| {
            let words: Vec<&str> = line.split('\0').collect();
            encode(&words)
        });
        client.send(&lines.collect::<Vec<_>>().concat());
        if !end.is_empty() {
            client.send(&encode_line(end));
        }
        eventually("Redis is busy with it", PATIENCE, || {
            let mut direct = redis.client();
            matches!(direct.line("PING"), Reply::Error(text) if text.starts_with("BUSY "))
        });
        // The time is what is tested.
        let begun = Instant::now();
        while begun.elapsed() < 2 * DEAD + DEAD / 2 {
            let reply = other.line("EXISTS k");
            assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
        }
        assert_eq!(other.line(kill), Reply::ok());
        client.bytes_until(b"killed");
        proxy.await_redis("up");
    }
}

/// The other side of it: Redis is well, and the bytes of one connection stall.
#[test]
fn a_connection_whose_bytes_stall_is_dead_though_redis_answers_on_all_others() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .tracking()
        .env("LINK_DEAD_MS", 1000)
        .start_tracking();
    for way in [Way::Up, Way::Down] {
        for own in [false, true] {
            let (mut client, mut other) = (proxy.resp(), proxy.resp());
            if own {
                assert_eq!(client.line("WATCH k"), Reply::ok());
            }
            let mark = format!("mark{way:?}{own}");
            client.line(&format!("EXISTS {mark}"));
            let stalled = relay
                .newest_open_with(Way::Up, mark.as_bytes())
                .expect("it went by one of them");
            relay.pause_one(stalled, way);
            client.send(&encode(&["EVAL", "return 1", "0"]));
            assert_eq!(client.bytes_until_closed(), b"", "{way:?} {own}");
            assert_eq!(other.line("SELECT 1"), Reply::ok());
            assert!(matches!(other.line("INCR n"), Reply::Int(_)));
        }
    }
}
