//! Many commands in one segment, one command in many segments.

use crate::oracle::{Oracle, assert_same_replies};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode, encode_line};

#[test]
fn a_read_behind_a_write_in_one_pipeline_sees_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    for round in 0..50 {
        let value = format!("v{round}");
        let pipeline = [
            encode(&["GET", "k"]),
            encode(&["SET", "k", &value]),
            encode(&["GET", "k"]),
            encode(&["GET", "k"]),
        ];
        client.send(&pipeline.concat());
        let replies = client.replies(4);
        if round > 0 {
            assert_eq!(replies[0], Reply::bulk(format!("v{}", round - 1)));
        }
        assert_eq!(
            replies[1..],
            [Reply::ok(), Reply::bulk(&value), Reply::bulk(&value)]
        );
    }
}

#[test]
fn ten_thousand_commands_in_one_segment_are_answered_in_order() {
    let oracle = Oracle::start();
    oracle.assert_same(
        "setting up",
        &[
            encode_line("MSET hot 1 warm 2"),
            encode_line("HSET hash f v"),
            encode_line("GET hot"),
        ]
        .concat(),
    );
    let mut pipeline = Vec::new();
    for n in 0..10_000 {
        match n % 10 {
            0..=2 => pipeline.extend(encode(&["GET", "hot"])),
            3 => pipeline.extend(encode(&["GET", &format!("key{}", n % 500)])),
            4 => pipeline.extend(encode(&["SET", &format!("key{}", n % 300), &n.to_string()])),
            5 => pipeline.extend(encode(&["GET", "hash"])),
            6 => pipeline.extend(encode(&["INCR", "counter"])),
            7 => pipeline.extend(encode(&["GET", "counter"])),
            8 => pipeline.extend(encode(&["ECHO", &n.to_string()])),
            _ => pipeline.extend(encode(&["NOSUCHCOMMAND", &n.to_string()])),
        }
    }
    oracle.assert_same("10,000 commands", &pipeline);
}

#[test]
fn ten_thousand_hits_in_one_segment_never_reach_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "k", "v"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    let gets = redis.calls_of("get");
    let counts = proxy.hits_and_misses_of(|| {
        client.send(&encode_line("GET k").repeat(10_000));
        assert!(
            client
                .replies(10_000)
                .iter()
                .all(|reply| *reply == Reply::bulk("v"))
        );
    });
    assert_eq!(counts, (10_000, 0));
    assert_eq!(redis.calls_of("get"), gets);
}

#[test]
fn a_thousand_different_misses_in_one_segment_are_fetched_once_each() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut set = vec!["MSET".to_string()];
    let mut pipeline = Vec::new();
    for n in 0..1000 {
        set.extend([format!("k{n}"), format!("v{n}")]);
        pipeline.extend(encode(&["GET", &format!("k{n}")]));
    }
    redis.call(&set);
    let mut client = proxy.resp();
    for _ in 0..2 {
        client.send(&pipeline);
        for n in 0..1000 {
            assert_eq!(client.reply(), Reply::bulk(format!("v{n}")));
        }
    }
    assert_eq!(redis.calls_of("get"), 1000);
    assert_eq!(proxy.counter(info::HITS), 1000);
}

#[test]
fn commands_may_come_byte_by_byte() {
    let oracle = Oracle::start();
    let (mut ours, mut theirs) = oracle.clients();
    let pipeline = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\r\n\r\nGET k\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nPING\r\n\
        *1\r\n$6\r\nNOSUCH\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\nECHO 'a b'\r\n";
    for byte in pipeline {
        ours.send(&[*byte]);
    }
    theirs.send(pipeline);
    assert_same_replies("byte by byte", &mut ours, &mut theirs, b"");
}

#[test]
fn commands_may_be_cut_anywhere() {
    let oracle = Oracle::start();
    let (mut ours, mut theirs) = oracle.clients();
    let pipeline = [
        encode_line("SET k v"),
        encode_line("GET k"),
        b"GET k\r\n".to_vec(),
        encode_line("INCR n"),
        encode_line("GET n"),
    ]
    .concat();
    for cut in 1..pipeline.len() {
        let (head, tail) = pipeline.split_at(cut);
        ours.send(head);
        // A round trip on another connection: the proxy has had its turn with the head alone.
        assert_eq!(
            oracle.proxy.resp().line("PING"),
            Reply::Simple("PONG".to_string())
        );
        ours.send(tail);
        theirs.send(&pipeline);
        assert_same_replies(&format!("cut at {cut}"), &mut ours, &mut theirs, b"");
    }
}

#[test]
fn a_half_closed_client_gets_every_reply_it_is_owed_and_then_the_end() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let mut pipeline = Vec::new();
    for n in 0..500 {
        pipeline.extend(encode(&["SET", &format!("k{n}"), &n.to_string()]));
        pipeline.extend(encode(&["GET", &format!("k{n}")]));
        pipeline.extend(encode(&["GET", "none"]));
    }
    client.send(&pipeline);
    client.finish_sending();
    for n in 0..500 {
        assert_eq!(
            client.replies(3),
            [Reply::ok(), Reply::bulk(n.to_string()), Reply::NullBulk]
        );
    }
    assert_eq!(client.bytes_until_closed(), b"");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    const READS: usize = 100;
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let value = "x".repeat(1 << 20);
    redis.call(&["SET", "large", &value]);
    let mut slow = proxy.resp();
    assert_eq!(slow.line("GET large"), Reply::bulk(&value));
    // 100 MiB of replies: three times what the proxy holds for one client, and more than the kernel does.
    slow.send(&encode_line("GET large").repeat(READS));
    for _ in 0..20 {
        assert_eq!(proxy.resp().line("PING"), Reply::Simple("PONG".to_string()));
        assert_eq!(proxy.resp().line("SET k v"), Reply::ok());
    }
    for _ in 0..READS {
        assert!(slow.reply() == Reply::bulk(&value));
    }
}

#[test]
fn large_values_that_nothing_was_known_of_may_be_asked_for_in_one_pipeline() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().start_tracking();
    let values: Vec<String> = (0..40).map(|n| format!("{n:02}").repeat(500_000)).collect();
    for (n, value) in values.iter().enumerate() {
        redis.call(&["SET", &format!("k{n}"), value]);
    }
    // One that is joined eighty times, then forty that are fetched each by itself: 80 MB and 40 MB.
    let mut client = proxy.resp();
    client.send(&encode_line("GET k7").repeat(80));
    for _ in 0..80 {
        assert!(client.reply() == Reply::bulk(&values[7]));
    }
    let all: Vec<u8> = (0..40)
        .flat_map(|n| encode(&["GET", &format!("k{n}")]))
        .collect();
    client.send(&all);
    for value in &values {
        assert!(client.reply() == Reply::bulk(value));
    }
    // And one that is too large to be kept, with a command behind it whose reply is there first.
    let huge = "x".repeat(40 << 20);
    redis.call(&["SET", "huge", &huge]);
    client.send(&[encode_line("GET huge"), encode_line("SET a b")].concat());
    assert!(client.reply() == Reply::bulk(&huge));
    assert_eq!(client.reply(), Reply::ok());
    assert_eq!(proxy.counter("nearcache_outbox_overflows"), 0);
}
