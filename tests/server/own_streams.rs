//! Connections that have become something else: MONITOR, and a replica's.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};

#[test]
fn monitor_shows_what_redis_executes_until_reset() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    client.send(&encode_line("MONITOR"));
    assert_eq!(client.reply(), Reply::ok());
    redis.call(&["ECHO", "somebody"]);
    // The proxy's own heartbeat is shown as well.
    eventually("it is shown", PATIENCE, || {
        client.reply().text().contains("\"ECHO\" \"somebody\"")
    });
    // Its own commands are answered, though nobody can say where.
    let mut other = proxy.resp();
    assert_eq!(other.line("GET k"), Reply::bulk("v"));
    client.send(&encode_line("PING"));
    eventually("it is answered", PATIENCE, || {
        client.reply() == Reply::Simple("PONG".into())
    });
    client.send(&encode_line("RESET"));
    eventually("it has ended", PATIENCE, || {
        client.reply() == Reply::Simple("RESET".into())
    });
    redis.call(&["ECHO", "again"]);
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(client.unread(), b"");
}

#[test]
fn whatever_a_monitoring_client_writes_is_seen_by_all() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    redis.call(&["SET", "k", "1"]);
    assert_eq!(other.line("GET k"), Reply::bulk("1"));
    client.send(&encode_line("MONITOR"));
    client.reply();
    assert_eq!(proxy.counter(info::ENTRIES), 1);
    // Redis 7.0 refuses it, but nobody here knows that.
    client.send(&encode_line("SET k 2"));
    eventually("everything kept is dropped", PATIENCE, || {
        proxy.counter(info::ENTRIES) == 0
    });
    assert_eq!(other.line("GET k"), redis.call(&["GET", "k"]));
}

#[test]
fn a_replica_can_follow_through_the_proxy() {
    let (redis, replica) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "before", "1"]);
    replica.call(&["REPLICAOF", "127.0.0.1", &proxy.resp_port.to_string()]);
    eventually("it has what was there", PATIENCE, || {
        replica.call(&["GET", "before"]) == Reply::bulk("1")
    });
    let mut client = proxy.resp();
    for n in 0..100 {
        client.line(&format!("SET k {n}"));
    }
    eventually("it follows", PATIENCE, || {
        replica.call(&["GET", "k"]) == Reply::bulk("99")
    });
    assert!(
        redis
            .call(&["INFO", "replication"])
            .text()
            .contains("connected_slaves:1")
    );
    replica.call(&["REPLICAOF", "NO", "ONE"]);
}
