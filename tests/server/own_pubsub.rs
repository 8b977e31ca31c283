//! Publish and subscribe, in both versions of the protocol.

use crate::oracle::Oracle;
use crate::script::assert_same_script;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};

/// A published message, as RESP2 has it.
fn message(channel: &str, text: &str) -> Reply {
    Reply::Array(["message", channel, text].map(Reply::bulk).to_vec())
}

#[test]
fn subscriptions_and_messages_are_those_of_redis_in_both_versions() {
    let oracle = Oracle::start();
    for script in [
        &[
            "a SUBSCRIBE c",
            "b PUBLISH c one",
            "a< 1",
            "a PING",
            "a PING x",
            "a GET k",
            "b PUBLISH d no",
            "a UNSUBSCRIBE c",
            "a GET k",
        ][..],
        &["a> SUBSCRIBE c c", "a< 2", "a UNSUBSCRIBE", "a GET k"],
        &[
            "a> PSUBSCRIBE c* d?",
            "a< 2",
            "b PUBLISH cats meow",
            "a< 1",
            "a> PUNSUBSCRIBE",
            "a< 2",
            "a INCR n",
        ],
        &[
            "a SSUBSCRIBE s",
            "b SPUBLISH s x",
            "a< 1",
            "b PUBLISH s y",
            "a SUNSUBSCRIBE",
            "a GET k",
        ],
        &[
            "a SUBSCRIBE c",
            "a PSUBSCRIBE c",
            "a SSUBSCRIBE c",
            "b PUBLISH c x",
            "a< 2",
            "a UNSUBSCRIBE",
            "a PUNSUBSCRIBE",
            "a SUNSUBSCRIBE",
            "a SET k v",
        ],
        &[
            "a UNSUBSCRIBE",
            "a PUNSUBSCRIBE",
            "a SUNSUBSCRIBE",
            "a> UNSUBSCRIBE x y",
            "a< 2",
            "a UNSUBSCRIBE z",
            "a GET k",
        ],
        &["a SUBSCRIBE", "a PING"],
        // Commands between, which RESP2 refuses and RESP3 takes.
        &[
            "a SUBSCRIBE c",
            "a SET k v",
            "a INFO x",
            "a SELECT 0",
            "a CLIENT GETNAME",
            "a MULTI",
            "a EXEC",
            "b PUBLISH c x",
            "a< 1",
        ],
        &[
            "a SUBSCRIBE c",
            "a BLPOP none 0.01",
            "a WATCH k",
            "a NOSUCH",
            "a SUBSCRIBE d",
            "b PUBLISH d x",
            "a< 1",
        ],
        // Everything at once.
        &[
            "b PUBLISH c nobody",
            "a> SUBSCRIBE c",
            "a> PSUBSCRIBE d",
            "a> UNSUBSCRIBE",
            "a> PUNSUBSCRIBE",
            "a> GET k",
            "a< 5",
        ],
        &[
            "a WATCH k",
            "a SUBSCRIBE c",
            "a UNSUBSCRIBE",
            "b SET k w",
            "a MULTI",
            "a GET k",
            "a EXEC",
            "a GET k",
        ],
        &[
            "a SUBSCRIBE c",
            "a RESET",
            "b PUBLISH c x",
            "a GET k",
            "a PING",
        ],
        &["a SUBSCRIBE c", "a QUIT", "a $"],
    ] {
        assert_same_script(&oracle, script);
        assert_same_script(&oracle, &[&["a HELLO 3"], script].concat());
    }
}

#[test]
fn the_end_of_all_subscriptions_has_a_reply_for_each() {
    let oracle = Oracle::start();
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut ours, mut theirs) = oracle.clients();
        let [mut ours, mut theirs] = [&mut ours, &mut theirs].map(|client| {
            client.line(hello);
            client.send(&encode_line("SUBSCRIBE a b c d e"));
            client.replies(5);
            client.send(&[encode_line("UNSUBSCRIBE"), encode_line("GET none")].concat());
            let mut replies = client.replies(6);
            let end = replies.pop();
            // Redis's order is that of a hash table.
            replies.iter_mut().for_each(|reply| {
                if let Reply::Array(items) | Reply::Push(items) = reply {
                    items.remove(1);
                }
            });
            (replies, end)
        });
        assert_eq!(&mut ours, &mut theirs);
    }
}

#[test]
fn a_subscription_inside_a_transaction_is_what_redis_makes_of_it() {
    let oracle = Oracle::start();
    for hello in ["a HELLO 2", "a HELLO 3"] {
        for begin in [
            &["a MULTI", "a SUBSCRIBE c d", "a GET k"][..],
            &["a MULTI", "a INCR n", "a PSUBSCRIBE c", "a UNSUBSCRIBE"],
        ] {
            // Its reply cannot be told from messages, so bytes are compared, up to those of a message.
            let bytes_of = |mut client: RespClient, mut other: RespClient| {
                client.line(&hello[2..]);
                for line in begin {
                    client.line(&line[2..]);
                }
                client.send(&[encode_line("EXEC"), encode_line("PING")].concat());
                let head = client.bytes_until(b"\r\n");
                eventually("it is subscribed", PATIENCE, || {
                    other.line("PUBLISH c the-end") != Reply::Int(0)
                });
                (head, client.bytes_until(b"the-end\r\n"))
            };
            let ours = bytes_of(oracle.proxy.resp(), oracle.proxy.resp());
            let theirs = bytes_of(oracle.truth.client(), oracle.truth.client());
            assert_eq!(ours, theirs, "{hello} {begin:?}");
        }
    }
}

#[test]
fn keyspace_events_arrive() {
    let oracle = Oracle::start();
    for redis in [&oracle.redis, &oracle.truth] {
        redis.call(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    }
    assert_same_script(
        &oracle,
        &[
            "a PSUBSCRIBE __key*__:*",
            "b SET k v",
            "a< 2",
            "b DEL k",
            "a< 2",
            "a PUNSUBSCRIBE",
        ],
    );
}

#[test]
fn many_subscribers_each_get_every_message_in_order() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut subscribers: Vec<_> = (0..50).map(|_| proxy.resp()).collect();
    for (at, client) in subscribers.iter_mut().enumerate() {
        if at % 2 == 1 {
            client.line("HELLO 3");
        }
        client.line("SUBSCRIBE c");
    }
    let mut publisher = proxy.resp();
    let all: Vec<u8> = (0..200)
        .flat_map(|n| encode(&["PUBLISH", "c", &n.to_string()]))
        .collect();
    publisher.send(&all);
    assert_eq!(publisher.replies(200), vec![Reply::Int(50); 200]);
    for (at, client) in subscribers.iter_mut().enumerate() {
        for n in 0..200 {
            let Reply::Array(items) = message("c", &n.to_string()) else {
                unreachable!("it is made as an array")
            };
            let expected = match at % 2 {
                0 => Reply::Array(items),
                _ => Reply::Push(items),
            };
            assert_eq!(client.reply(), expected);
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_slows_nobody() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("OUTBOX_MAX_BYTES", "2MiB")
        .tracking()
        .start_tracking();
    let (mut slow, mut quick, mut publisher) = (proxy.resp(), proxy.resp(), proxy.resp());
    slow.line("SUBSCRIBE c");
    quick.line("SUBSCRIBE c");
    let text = "x".repeat(100_000);
    let mut subscribers = Reply::Int(2);
    for _ in 0..400 {
        subscribers = publisher.call(&["PUBLISH", "c", &text]);
        assert_eq!(quick.reply(), message("c", &text));
        if subscribers == Reply::Int(1) {
            break;
        }
    }
    assert_eq!(subscribers, Reply::Int(1), "the slow one is gone");
    eventually("the log says so", PATIENCE, || {
        proxy.stderr().contains("reason=outbox_overflow")
    });
    assert!(
        !slow.bytes_until_closed().is_empty(),
        "it got what it had room for"
    );
}

#[test]
fn a_subscriber_that_hangs_up_or_is_cut_off_is_forgotten_on_the_other_side() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).start();
    let (mut one, mut two) = (proxy.resp(), proxy.resp());
    one.line("SUBSCRIBE c");
    two.line("SUBSCRIBE c");
    drop(one);
    eventually("one has left", PATIENCE, || {
        redis.call(&["PUBLISH", "c", "x"]) == Reply::Int(1)
    });
    assert_eq!(two.reply().clone(), message("c", "x"));
    relay.cut_all();
    let rest = two.bytes_until_closed();
    assert!(rest.len() % 31 == 0, "whole messages only: {rest:?}");
    eventually("both have left", PATIENCE, || {
        redis.call(&["PUBLISH", "c", "x"]) == Reply::Int(0)
    });
}

#[test]
fn a_large_message_passes() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut subscriber, mut other) = (proxy.resp(), proxy.resp());
    subscriber.line("SUBSCRIBE c");
    let text = "x".repeat(5 << 20);
    for size in [1, 1 << 20, 5 << 20] {
        assert_eq!(other.call(&["PUBLISH", "c", &text[..size]]), Reply::Int(1));
        assert_eq!(other.call(&["PUBLISH", "c", "small"]), Reply::Int(1));
        assert_eq!(subscriber.reply(), message("c", &text[..size]));
        assert_eq!(subscriber.reply(), message("c", "small"));
    }
}

/// A proxy in front of a relay that holds up what comes on the invalidation link.
fn with_pushes_held() -> (RedisServer, Relay, Proxy, RespClient) {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .tracking()
        .env("STALENESS_BOUND_MS", 600_000)
        .start_tracking();
    let mut reader = proxy.resp();
    redis.call(&["SET", "k", "old"]);
    eventually("the old value is kept", PATIENCE, || {
        reader.line("GET k");
        proxy.counter(info::ENTRIES) == 1
    });
    (redis, relay, proxy, reader)
}

#[test]
fn a_message_does_not_overtake_the_changes_before_it() {
    let (redis, relay, proxy, mut reader) = with_pushes_held();
    let mut subscriber = proxy.resp();
    subscriber.line("SUBSCRIBE c");
    let mut worker = proxy.resp();
    worker.send(&encode_line("BLPOP l 0"));
    eventually("it waits", PATIENCE, || {
        redis.call(&["CLIENT", "LIST"]).text().contains(" flags=b")
    });
    let control = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    relay.pause_one(control, Way::Down);
    redis.call(&["SET", "k", "new"]);
    redis.call(&["PUBLISH", "c", "k has changed"]);
    redis.call(&["RPUSH", "l", "k has changed"]);
    eventually("both are held", PATIENCE, || {
        proxy.counter(info::BARRIERS) >= 2
    });
    assert_eq!(
        reader.line("GET k"),
        Reply::bulk("old"),
        "nobody has been told"
    );
    relay.resume_one(control, Way::Down);
    assert_eq!(subscriber.reply(), message("c", "k has changed"));
    assert_eq!(reader.line("GET k"), Reply::bulk("new"));
    assert!(matches!(worker.reply(), Reply::Array(_)));
}

#[test]
fn a_message_goes_and_everything_kept_is_dropped_when_the_invalidation_link_is_lost() {
    let (redis, relay, proxy, mut reader) = with_pushes_held();
    let mut subscriber = proxy.resp();
    subscriber.line("SUBSCRIBE c");
    let control = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    relay.pause_one(control, Way::Down);
    redis.call(&["SET", "k", "new"]);
    redis.call(&["PUBLISH", "c", "x"]);
    eventually("it is held", PATIENCE, || {
        proxy.counter(info::BARRIERS) >= 1
    });
    relay.cut(control);
    assert_eq!(subscriber.reply(), message("c", "x"));
    eventually("it is read anew", PATIENCE, || {
        reader.line("GET k") == Reply::bulk("new")
    });
}

#[test]
fn with_the_barrier_off_a_message_waits_for_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("EVENT_BARRIER", "off")
        .tracking()
        .start_tracking();
    let mut subscriber = proxy.resp();
    subscriber.line("SUBSCRIBE c");
    redis.call(&["PUBLISH", "c", "x"]);
    assert_eq!(subscriber.reply(), message("c", "x"));
    assert_eq!(proxy.counter(info::BARRIERS), 0);
}
