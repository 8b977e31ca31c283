//! Many clients at once, HTTP and RESP, on the same keys: what each of them may rely on.

use crate::support::http::request_for;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::show;
use std::thread;

const CLIENTS: usize = 6;
const ROUNDS: usize = 60;

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Int(n) => *n,
        Reply::Bulk(text) => String::from_utf8_lossy(text)
            .parse()
            .expect("a counter holds a number"),
        other => panic!("no number: {other:?}"),
    }
}

#[test]
fn everybody_reads_their_own_writes_and_a_counter_never_runs_backwards() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "shared", "0"]);
    thread::scope(|scope| {
        for name in 0..CLIENTS {
            let client = proxy.resp();
            scope.spawn(move || count_and_read(client, name));
        }
        let mut reader = proxy.http();
        scope.spawn(move || {
            let mut seen = 0;
            for _ in 0..ROUNDS * 3 {
                reader.send(&request_for("GET", "shared").repeat(3));
                for _ in 0..3 {
                    let response = reader.response();
                    assert_eq!(response.status, 200, "{}", show(&response.body));
                    let now = number(&Reply::Bulk(response.body));
                    assert!(now >= seen, "{now} after {seen} over HTTP");
                    seen = now;
                }
            }
        });
    });
    let total = (CLIENTS * ROUNDS * 2).to_string();
    assert_eq!(proxy.resp().line("GET shared"), Reply::bulk(&total));
    assert_eq!(redis.call(&["GET", "shared"]), Reply::bulk(&total));
}

fn count_and_read(mut client: RespClient, name: usize) {
    let own = format!("own{name}");
    let mut seen = 0;
    for round in 0..ROUNDS {
        let value = round.to_string();
        let pipeline = [
            encode_line("GET shared"),
            encode_line("INCR shared"),
            encode_line("GET shared"),
            encode(&["SET", &own, &value]),
            encode(&["GET", &own]),
            encode_line("GET shared"),
            encode(&["DEL", &own]),
            encode(&["GET", &own]),
        ];
        client.send(&pipeline.concat());
        let replies = client.replies(pipeline.len());
        let counts: Vec<i64> = [0, 1, 2, 5]
            .iter()
            .map(|&at| number(&replies[at]))
            .collect();
        assert!(
            counts[0] >= seen,
            "client {name}, round {round}: {counts:?} after {seen}"
        );
        assert!(
            counts.is_sorted() && counts[1] > counts[0],
            "client {name}, round {round}: {counts:?}"
        );
        seen = counts[3];
        let own_replies = [&replies[3], &replies[4], &replies[6], &replies[7]];
        let expected = [
            &Reply::ok(),
            &Reply::bulk(&value),
            &Reply::Int(1),
            &Reply::NullBulk,
        ];
        assert_eq!(own_replies, expected, "client {name}, round {round}");
        // Not pipelined: the write's reply is awaited before the read is sent.
        let incremented = number(&client.line("INCR shared"));
        let read = number(&client.line("GET shared"));
        assert!(
            incremented > seen && read >= incremented,
            "client {name}, round {round}: {seen} {incremented} {read}"
        );
        seen = read;
    }
}

#[test]
fn what_one_client_was_told_is_written_every_other_client_reads() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut writer, mut other, mut http) = (proxy.resp(), proxy.resp(), proxy.http());
    for round in 0..200 {
        let value = round.to_string();
        let write = match round % 4 {
            0 => encode(&["SET", "k", &value]),
            1 => encode(&["MSET", "k", &value, "j", "x"]),
            2 => encode(&[
                "EVAL",
                "return redis.call('SET', 'k', ARGV[1])",
                "0",
                &value,
            ]),
            _ => encode(&["GETSET", "k", &value]),
        };
        writer.send(&write);
        assert!(!matches!(writer.reply(), Reply::Error(_)));
        assert_eq!(other.line("GET k"), Reply::bulk(&value));
        assert_eq!(http.get("k").body, value.as_bytes());
        assert_eq!(writer.line("GET k"), Reply::bulk(&value));
    }
}
