//! Redis away, slow, restarted, closing connections: clear errors at once, hits meanwhile, recovery without help.

use crate::support::http::request_for;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};

/// Asks until Redis is reached again; until then there must be the proxy's own error and nothing else.
#[track_caller]
fn await_recovery(client: &mut RespClient, command: &str, expected: &Reply) {
    eventually("the proxy has recovered", PATIENCE, || {
        let reply = client.line(command);
        assert!(
            reply == *expected || reply.is_own_error(),
            "{command}: {reply:?}"
        );
        reply == *expected
    });
}

#[test]
fn with_redis_down_at_the_start_there_are_errors_at_once_and_recovery_when_it_comes() {
    let mut redis = RedisServer::not_started();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    let mut client = proxy.resp();
    for line in ["GET k", "SET k v", "HGETALL h", "INCR n", "NOSUCH"] {
        let reply = client.line(line);
        assert!(reply.is_own_error(), "{line}: {reply:?}");
    }
    assert!(
        client.line("PING").is_own_error(),
        "a health check through the proxy sees it"
    );
    assert_eq!(
        client.line("ECHO x"),
        Reply::bulk("x"),
        "what needs no Redis is answered"
    );
    assert!(
        client
            .line("INFO nearcache")
            .text()
            .contains("nearcache_state:")
    );
    let response = proxy.http().get("k");
    assert_eq!(response.status, 503, "{response:?}");
    redis.boot();
    redis.call(&["SET", "k", "v"]);
    await_recovery(&mut client, "GET k", &Reply::bulk("v"));
    await_recovery(&mut client, "SET other w", &Reply::ok());
    assert_eq!(proxy.http().get("k").body, b"v");
}

#[test]
fn a_redis_that_is_killed_and_started_again_is_found_by_the_clients_that_stayed() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    for round in 0..3 {
        redis.call(&["SET", "k", &format!("v{round}")]);
        // Another key each round: what was kept in an earlier one may be answered still.
        let fresh = format!("fresh{round}");
        redis.call(&["SET", &fresh, "here"]);
        assert_eq!(client.call(&["GET", &fresh]), Reply::bulk("here"));
        assert_eq!(client.line("DEL nothing"), Reply::Int(0));
        redis.kill();
        eventually("reads that need Redis are errors", PATIENCE, || {
            client.line("GET never-kept").is_own_error()
        });
        eventually("relayed commands are errors", PATIENCE, || {
            client.line("INCR n").is_own_error()
        });
        assert_eq!(http.get("never-kept").status, 503);
        redis.boot();
        await_recovery(&mut client, "GET never-kept", &Reply::NullBulk);
        await_recovery(&mut client, "DEL nothing", &Reply::Int(0));
        assert_eq!(http.get("never-kept").status, 404);
    }
}

#[test]
fn commands_in_flight_when_redis_dies_are_each_answered_once_and_in_order() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    redis.call(&["SET", "warm", "w"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET warm"), Reply::bulk("w"));
    assert_eq!(client.line("INCR n"), Reply::Int(1));
    redis.freeze();
    let mut http = proxy.http();
    http.send(&[request_for("GET", "a"), request_for("GET", "warm")].concat());
    client.send(
        &[
            encode_line("INCR n"),
            encode_line("GET warm"),
            encode_line("GET b"),
            encode_line("ECHO x"),
            encode_line("SET k v"),
        ]
        .concat(),
    );
    // The other client's round trip: the proxy has taken what was sent before.
    assert_eq!(proxy.resp().line("ECHO x"), Reply::bulk("x"));
    redis.kill();
    let replies = client.replies(5);
    assert!(replies[0].is_own_error(), "{replies:?}");
    assert!(
        replies[1] == Reply::bulk("w") || replies[1].is_own_error(),
        "{replies:?}"
    );
    assert!(replies[2].is_own_error(), "{replies:?}");
    assert_eq!(replies[3], Reply::bulk("x"));
    assert!(replies[4].is_own_error(), "{replies:?}");
    assert_eq!(http.response().status, 503);
    assert_eq!(http.response().body, b"w");
    // Nothing relayed is ever sent twice.
    redis.boot();
    await_recovery(&mut client, "INCR n", &Reply::Int(1));
    assert_eq!(redis.call(&["EXISTS", "k"]), Reply::Int(0));
}

#[test]
fn who_is_owed_a_reply_when_redis_dies_is_disconnected_as_by_redis_itself() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["MSET", "warm", "w", "n", "0"]);
    let mut idle = proxy.resp();
    assert_eq!(idle.line("GET warm"), Reply::bulk("w"));
    assert_eq!(idle.line("DEL nothing"), Reply::Int(0));
    let asks: [&[&str]; 6] = [
        &["INCR n"],
        &["GET cold"],
        &["GET warm", "INCR n", "GET warm", "ECHO x"],
        &["INFO"],
        &["SELECT 7", "GET warm"],
        &["EVAL return(1) 0"],
    ];
    let mut clients: Vec<RespClient> = asks.iter().map(|_| proxy.resp()).collect();
    let mut direct = redis.client();
    assert_eq!(direct.line("ECHO x"), Reply::bulk("x"));
    redis.freeze();
    for (client, lines) in clients.iter_mut().zip(asks) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| encode_line(line)).collect();
        client.send(&bytes);
    }
    direct.send(&encode_line("INCR n"));
    let mut http = proxy.http();
    http.send(&request_for("GET", "colder"));
    // The other client's round trip: the proxy has taken what was sent before.
    assert_eq!(idle.line("ECHO x"), Reply::bulk("x"));
    redis.kill();
    assert_eq!(direct.bytes_until_closed(), b"");
    for (client, lines) in clients.iter_mut().zip(asks) {
        let begins_with_a_hit = lines[0] == "GET warm";
        let expected: &[u8] = if begins_with_a_hit {
            b"$1\r\nw\r\n"
        } else {
            b""
        };
        assert_eq!(client.bytes_until_closed(), expected, "{lines:?}");
    }
    assert_eq!(http.response().status, 503);
    // Nobody owed this one anything.
    proxy.await_redis("away");
    assert!(matches!(idle.line("CLIENT ID"), Reply::Int(_)));
    redis.boot();
    proxy.await_redis("up");
    assert_eq!(idle.line("INCR n"), Reply::Int(1));
}

/// All that needs Redis, and a transaction in one piece, which is owed three replies.
const NEEDY: [&[&str]; 9] = [
    &["GET cold"],
    &["INCR n"],
    &["INFO"],
    &["EVAL return(1) 0"],
    &["PING"],
    &["BLPOP queue 0"],
    &["SUBSCRIBE news"],
    &["WATCH n"],
    &["MULTI", "INCR n", "EXEC"],
];

#[test]
fn who_asks_while_redis_is_away_is_disconnected_as_nobody_could_connect_to_redis() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.kill();
    proxy.await_redis("away");
    for lines in NEEDY {
        let mut client = proxy.resp();
        let id = client.line("CLIENT ID");
        assert!(matches!(id, Reply::Int(_)));
        let asked = ["ECHO before"].iter().chain(lines).chain(&["ECHO behind"]);
        let bytes: Vec<u8> = asked.flat_map(|line| encode_line(line)).collect();
        client.send(&bytes);
        let before = b"$6\r\nbefore\r\n";
        assert_eq!(client.bytes_until_closed(), before, "{lines:?}");
    }
    redis.boot();
    proxy.await_redis("up");
    assert_eq!(proxy.resp().line("INCR n"), Reply::Int(1));
}

#[test]
fn who_prefers_errors_gets_one_for_each_command_while_redis_is_away() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    redis.kill();
    proxy.await_redis("away");
    for lines in NEEDY {
        let mut client = proxy.resp();
        let asked = lines.iter().chain(&["CLIENT GETNAME"]);
        let bytes: Vec<u8> = asked.flat_map(|line| encode_line(line)).collect();
        client.send(&bytes);
        for line in lines {
            assert!(client.reply().is_own_error(), "{line} of {lines:?}");
        }
        if lines[0] == "WATCH n" {
            // What would be taken for replies to a part of a transaction must not follow.
            assert_eq!(client.bytes_until_closed(), b"", "{lines:?}");
        } else {
            assert_eq!(client.reply(), Reply::NullBulk, "{lines:?}");
        }
    }
}

#[test]
fn a_transaction_that_could_not_be_sent_gets_as_many_errors_as_it_has_commands() {
    // Nobody listens there, and the proxy is told so only when it connects for this transaction.
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).lost_is_an_error().start();
    let mut client = proxy.resp();
    relay.refuse(true);
    client.send(
        &["MULTI", "INCR n", "EXEC", "CLIENT GETNAME"]
            .map(encode_line)
            .concat(),
    );
    for _ in 0..3 {
        assert!(client.reply().is_own_error());
    }
    assert_eq!(client.reply(), Reply::NullBulk);
}

#[test]
fn a_connection_that_redis_closes_ends_those_who_are_owed_a_reply_on_it_and_nobody_else() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut victim, mut other) = (proxy.resp(), proxy.resp());
    assert_eq!(other.line("DEL nothing"), Reply::Int(0));
    let links: Vec<u64> = redis
        .proxy_connections()
        .into_iter()
        .filter_map(|(id, name)| name.contains(":link").then_some(id))
        .collect();
    assert!(!links.is_empty());
    let kill: Vec<u8> = links
        .iter()
        .flat_map(|id| encode_line(&format!("CLIENT KILL ID {id}")))
        .collect();
    let mut admin = redis.client();
    assert_eq!(admin.line("ECHO x"), Reply::bulk("x"));
    redis.freeze();
    admin.send(&kill);
    victim.send(&encode_line("INCR n"));
    assert_eq!(other.line("ECHO x"), Reply::bulk("x"));
    redis.thaw();
    assert_eq!(victim.bytes_until_closed(), b"");
    assert_eq!(admin.replies(links.len()).len(), links.len());
    // Whether it was executed is not known, but it never is twice.
    let before = redis.call(&["EXISTS", "n"]);
    let Reply::Int(before) = before else {
        panic!("EXISTS counts: {before:?}")
    };
    assert_eq!(other.line("INCR n"), Reply::Int(before + 1));
}

#[test]
fn connections_that_redis_closed_for_idleness_fail_no_request() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    for round in 0..2 {
        redis.call(&["CONFIG", "SET", "timeout", "0"]);
        // Every worker and a link are in use.
        for n in 0..20 {
            assert_eq!(
                client.line(&format!("GET warm{round}-{n}")),
                Reply::NullBulk
            );
        }
        assert_eq!(client.line("DEL nothing"), Reply::Int(0));
        let before = redis.idle_client_ids();
        assert!(!before.is_empty());
        redis.call(&["CONFIG", "SET", "timeout", "1"]);
        eventually("Redis has closed them", PATIENCE, || {
            redis
                .idle_client_ids()
                .iter()
                .all(|id| !before.contains(id))
        });
        for n in 0..20 {
            assert_eq!(client.line(&format!("SET k{n} {round}")), Reply::ok());
            assert_eq!(
                client.line(&format!("GET k{n}")),
                Reply::bulk(round.to_string())
            );
            assert_eq!(http.get(format!("none{round}-{n}")).status, 404);
        }
    }
}

#[test]
fn a_redis_that_does_not_answer_is_504_after_the_time_out_and_hits_are_served() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("REDIS_TIMEOUT_MS", 300)
        .lost_is_an_error()
        .start();
    redis.call(&["SET", "hot", "h"]);
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    assert_eq!(client.line("GET hot"), Reply::bulk("h"));
    redis.freeze();
    let mut waiting = proxy.resp();
    waiting.send(&encode(&["GET", "cold"]));
    for _ in 0..10 {
        assert_eq!(client.line("GET hot"), Reply::bulk("h"));
        assert!(http.get("hot").is_hit());
    }
    assert!(waiting.reply().is_own_error());
    assert_eq!(http.get("colder").status, 504);
    assert_eq!(client.line("GET hot"), Reply::bulk("h"));
    redis.thaw();
    await_recovery(&mut client, "GET cold", &Reply::NullBulk);
    redis.call(&["SET", "colder", "c"]);
    eventually("HTTP has recovered too", PATIENCE, || {
        http.get("colder").status == 200
    });
}

#[test]
fn a_relayed_reply_that_breaks_off_is_an_error_or_the_end_and_never_a_value() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).lost_is_an_error().start();
    let value = "0123456789".repeat(100);
    redis.call(&["SET", "k", &value]);
    for bytes in [0, 1, 4, 5, 6, 7, 500, 1006, 1008] {
        await_recovery(&mut proxy.resp(), "GETRANGE k 0 -1", &Reply::bulk(&value));
        relay.cut_all_after(Way::Down, bytes);
        let mut victim = proxy.resp();
        victim.send(&encode_line("GETRANGE k 0 -1"));
        match victim.try_reply() {
            // The value: a fresh connection was made for it.
            Ok(reply) => assert!(
                reply.is_own_error() || reply == Reply::bulk(&value),
                "cut after {bytes}: {reply:?}"
            ),
            // What has been handed on cannot be taken back: then the connection ends in the middle.
            Err(end) => assert!(!end.contains("time-out"), "cut after {bytes}: {end}"),
        }
        relay.cut_all();
    }
}

#[test]
fn a_fetched_reply_that_breaks_off_is_an_error_or_fetched_again_and_never_half_a_value() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).lost_is_an_error().start();
    let value = "0123456789".repeat(100);
    for (n, bytes) in [0, 3, 6, 300, 1006, 1008, 1010, 1013]
        .into_iter()
        .enumerate()
    {
        // A key of its own each time, so that there is no hit.
        let key = format!("k{n}");
        redis.call(&["SET", &key, &value]);
        await_recovery(
            &mut proxy.resp(),
            &format!("GET probe{n}"),
            &Reply::NullBulk,
        );
        relay.cut_all_after(Way::Down, bytes);
        let mut client = proxy.resp();
        let reply = client.call(&["GET", &key]);
        assert!(
            reply.is_own_error() || reply == Reply::bulk(&value),
            "cut after {bytes}: {reply:?}"
        );
        relay.cut_all();
        await_recovery(&mut client, &format!("GET {key}"), &Reply::bulk(&value));
    }
}

#[test]
fn a_redis_that_accepts_and_closes_at_once_is_an_error_at_once() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).lost_is_an_error().start();
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    relay.refuse(true);
    relay.cut_all();
    eventually("fetches fail", PATIENCE, || {
        client.line("GET none").is_own_error()
    });
    eventually("relayed commands fail", PATIENCE, || {
        client.line("INCR n").is_own_error()
    });
    assert_eq!(proxy.http().get("none").status, 503);
    relay.refuse(false);
    await_recovery(&mut client, "GET none", &Reply::NullBulk);
    await_recovery(&mut client, "DEL none", &Reply::Int(0));
}

#[test]
fn a_slow_connection_changes_no_reply() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).lost_is_an_error().start();
    relay.delay(Way::Up, std::time::Duration::from_millis(5));
    relay.delay(Way::Down, std::time::Duration::from_millis(5));
    let mut clients = [proxy.resp(), proxy.resp(), proxy.resp()];
    for round in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            let (key, value) = (format!("k{n}"), format!("{round}"));
            client.send(
                &[
                    encode(&["SET", &key, &value]),
                    encode(&["GET", &key]),
                    encode(&["GET", "none"]),
                ]
                .concat(),
            );
        }
        for client in &mut clients {
            assert_eq!(
                client.replies(3),
                [Reply::ok(), Reply::bulk(round.to_string()), Reply::NullBulk]
            );
        }
    }
}

#[test]
fn while_a_script_runs_redis_says_so_itself_and_the_script_can_be_killed() {
    let redis = RedisServer::start_with(&["--busy-reply-threshold", "1"]);
    let proxy = Proxy::tracking(&redis);
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    let mut script = redis.client();
    script.send(&encode(&["EVAL", "while true do end", "0"]));
    proxy.await_redis("busy");
    for line in ["SET k w", "HGETALL h", "GET cold"] {
        let reply = client.line(line);
        assert!(reply.error().starts_with("BUSY "), "{line}: {reply:?}");
    }
    assert_eq!(proxy.resp().line("SCRIPT KILL"), Reply::ok());
    assert!(script.reply().error().contains("killed"));
    proxy.await_redis("up");
    assert_eq!(client.line("SET k w"), Reply::ok());
}

#[test]
fn a_script_that_only_says_that_redis_is_read_only_changes_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut client = proxy.resp();
    redis.call(&["SET", "k", "v"]);
    let said = client.call(&["EVAL_RO", "return redis.error_reply('READONLY x')", "0"]);
    assert!(said.error().starts_with("READONLY"), "{said:?}");
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(proxy.counter(info::UPSTREAM_LOST), 0);
}
