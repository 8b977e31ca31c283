//! Client-side caching by the clients themselves, clients named by their ids, and WAIT.

use crate::oracle::Oracle;
use crate::script::assert_same_script;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};

#[test]
fn a_client_that_tracks_is_told_what_redis_tells_it() {
    let oracle = Oracle::start();
    for script in [
        &[
            "a CLIENT TRACKING ON",
            "a GET k",
            "a GET k",
            "b SET k v",
            "a< 1",
            "a CLIENT TRACKINGINFO",
            "a CLIENT GETREDIR",
            "a CLIENT TRACKING OFF",
            "a GET k",
            "b SET k w",
            "a GET k",
        ][..],
        &[
            "a CLIENT TRACKING ON BCAST PREFIX p: PREFIX q: NOLOOP",
            "b SET p:1 v",
            "a< 1",
            "b SET other v",
            "a SET q:1 v",
            "b SET q:2 v",
            "a< 1",
            "a CLIENT TRACKINGINFO",
        ],
        &[
            "a CLIENT TRACKING ON OPTIN",
            "a GET k",
            "b SET k 1",
            "a CLIENT CACHING YES",
            "a GET k",
            "b SET k 2",
            "a< 1",
            "a CLIENT CACHING NO",
        ],
        &[
            "a CLIENT TRACKING ON OPTOUT",
            "a CLIENT CACHING NO",
            "a GET k",
            "b SET k 1",
            "a GET k",
            "b SET k 2",
            "a< 1",
            "b GET k",
            "a MULTI",
            "a GET k",
            "a EXEC",
            "b FLUSHALL",
            "a< 1",
        ],
        &[
            "a CLIENT CACHING YES",
            "a CLIENT TRACKING ON OPTIN OPTOUT",
            "a CLIENT TRACKING ON REDIRECT 999999999",
            "a CLIENT TRACKING ON REDIRECT 0",
            "a CLIENT TRACKING ON REDIRECT x",
            "a CLIENT TRACKING ON REDIRECT",
            "a CLIENT TRACKING MAYBE",
            "a CLIENT TRACKING ON",
            "a CLIENT TRACKING ON BCAST",
            "a CLIENT TRACKING OFF",
        ],
    ] {
        let begin = ["b DEL k p:1 q:1 q:2 other", "a HELLO 3"];
        assert_same_script(&oracle, &[&begin[..], script].concat());
    }
}

/// The number that the client has.
fn id_of(client: &mut crate::support::resp::RespClient) -> i64 {
    match client.line("CLIENT ID") {
        Reply::Int(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn invalidations_are_redirected_to_the_client_that_is_named() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut listener, mut reader, mut writer) = (proxy.resp(), proxy.resp(), proxy.resp());
    // One that has no connection of its own yet, as libraries do it, and subscribes only then.
    let id = id_of(&mut listener);
    let on = format!("CLIENT TRACKING ON REDIRECT {id}");
    assert_eq!(reader.line(&on), Reply::ok());
    assert_eq!(reader.line("CLIENT GETREDIR"), Reply::Int(id));
    let shown = reader.line("CLIENT INFO").text();
    assert!(shown.contains(&format!(" redir={id} ")), "{shown}");
    let shown = listener.line("CLIENT INFO").text();
    assert!(shown.contains(" redir=-1 "), "{shown}");
    listener.line("SUBSCRIBE __redis__:invalidate");
    assert_eq!(id_of(&mut reader), id + 1);
    for n in 0..3 {
        reader.line("GET k");
        assert_eq!(writer.line(&format!("SET k {n}")), Reply::ok());
        let told = listener.reply();
        let keys = Reply::Array(vec![Reply::bulk("k")]);
        let channel = Reply::bulk("__redis__:invalidate");
        assert_eq!(
            told,
            Reply::Array(vec![Reply::bulk("message"), channel, keys])
        );
        assert_eq!(reader.line("GET k"), Reply::bulk(n.to_string()));
    }
    assert_eq!(reader.line("CLIENT TRACKING OFF"), Reply::ok());
    assert_eq!(reader.line("CLIENT GETREDIR"), Reply::Int(-1));
    // Its reads hit again.
    reader.line("GET k");
    let (hits, _) = proxy.hits_and_misses_of(|| {
        reader.line("GET k");
    });
    assert_eq!(hits, 1);
}

#[test]
fn a_client_that_waits_is_let_go_by_its_number() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut waiter, mut other) = (proxy.resp(), proxy.resp());
    let id = id_of(&mut waiter);
    let unblock = |more: &str| format!("CLIENT UNBLOCK {id}{more}");
    assert_eq!(other.line(&unblock("")), Reply::Int(0));
    for (more, in_own, expected) in [
        ("", false, Reply::NullArray),
        (" TIMEOUT", true, Reply::NullArray),
        (
            " error",
            false,
            Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
        ),
    ] {
        waiter.send(&encode_line("BLPOP none 0"));
        eventually("it waits", PATIENCE, || {
            redis
                .call(&["INFO", "clients"])
                .text()
                .contains("blocked_clients:1\r\n")
        });
        if in_own {
            other.line("WATCH k");
        }
        assert_eq!(other.line(&unblock(more)), Reply::Int(1));
        assert_eq!(waiter.reply(), expected);
        other.line("UNWATCH");
        assert_eq!(other.line(&unblock(more)), Reply::Int(0));
    }
    assert_eq!(waiter.line("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn wait_answers_as_redis_does_where_there_is_no_replica() {
    let oracle = Oracle::start();
    for version in ["a HELLO 2", "a HELLO 3"] {
        let script = [
            version,
            "a SET k v",
            "a WAIT 0 0",
            "a WAIT 1 20",
            "a WAIT x 0",
            "a WAIT 0 -1",
            "a WAIT 0",
            "a MULTI",
            "a WAIT 1 0",
            "a EXEC",
            "a GET k",
        ];
        assert_same_script(&oracle, &script);
    }
}

#[test]
fn wait_is_about_writes_that_went_another_way() {
    let (redis, replica) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&redis);
    replica.call(&["REPLICAOF", "127.0.0.1", &redis.port().to_string()]);
    eventually("it follows", PATIENCE, || {
        redis
            .call(&["INFO", "replication"])
            .text()
            .contains("state=online")
    });
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    for n in 0..20 {
        let text = n.to_string();
        client.line(&format!("SET k {n}"));
        assert_eq!(client.line("WAIT 1 60000"), Reply::Int(1));
        assert_eq!(replica.call(&["GET", "k"]), Reply::bulk(text));
    }
    replica.freeze();
    client.line("SET k last");
    client.send(&encode_line("WAIT 1 300"));
    // Nobody else waits with it.
    assert_eq!(other.line("INCR n"), Reply::Int(1));
    assert_eq!(client.reply(), Reply::Int(0));
    replica.thaw();
    assert_eq!(client.line("WAIT 1 60000"), Reply::Int(1));
    assert_eq!(replica.call(&["GET", "k"]), Reply::bulk("last"));
}

#[test]
fn monitor_on_a_fresh_connection_shows_nothing_of_its_making() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for version in ["HELLO 2", "HELLO 3", "SELECT 2"] {
        let mut client = proxy.resp();
        client.line(version);
        assert_eq!(client.line("MONITOR"), Reply::ok(), "{version}");
        redis.call(&["ECHO", version]);
        eventually("it is shown", PATIENCE, || match client.reply() {
            Reply::Simple(line) => line.contains(version),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(proxy.counter(info::ENTRIES), 0);
}

#[test]
fn client_list_says_what_its_clients_are_in_the_middle_of() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    client.line("HELLO 3");
    let mut says = |line: &str, parts: &[&str]| {
        client.send(&encode_line(line));
        client.reply();
        let mut other = proxy.resp();
        let list = other.line("CLIENT LIST").text();
        let shown = list.lines().next().unwrap_or_default();
        for part in parts {
            assert!(shown.contains(&format!(" {part} ")), "{line}: {shown}");
        }
    };
    says("SUBSCRIBE a", &["flags=P", "sub=1", "psub=0", "multi=-1"]);
    says("PSUBSCRIBE b*", &["flags=P", "sub=1", "psub=1"]);
    says("UNSUBSCRIBE", &["sub=0", "psub=1"]);
    says("PUNSUBSCRIBE", &["flags=N", "psub=0"]);
    says("CLIENT TRACKING ON", &["flags=t"]);
    says("MULTI", &["flags=xt", "multi=0"]);
    says("SET k v", &["multi=1"]);
    says("DISCARD", &["flags=t", "multi=-1"]);
}
