//! What clients say on connecting: HELLO, CLIENT, SELECT, COMMAND, QUIT.

use crate::oracle::{Oracle, assert_same_replies};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};

/// The value behind a name in the reply to HELLO, a map in RESP3 and a flat array in RESP2.
#[track_caller]
fn field(hello: &Reply, name: &str) -> Reply {
    let (Reply::Map(items) | Reply::Array(items)) = hello else {
        panic!("no map: {hello:?}")
    };
    let pair = items.chunks(2).find(|pair| pair[0] == Reply::bulk(name));
    pair.unwrap_or_else(|| panic!("HELLO lacks {name}: {hello:?}"))[1].clone()
}

#[test]
fn hello_chooses_the_protocol_and_says_what_clients_look_for() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let two = client.line("HELLO 2");
    assert!(matches!(two, Reply::Array(_)));
    assert_eq!(field(&two, "proto"), Reply::Int(2));
    let three = client.line("HELLO 3");
    assert!(matches!(three, Reply::Map(_)));
    assert_eq!(field(&three, "proto"), Reply::Int(3));
    assert_eq!(field(&three, "server"), Reply::bulk("redis"));
    assert_eq!(field(&three, "mode"), Reply::bulk("standalone"));
    assert_eq!(field(&three, "role"), Reply::bulk("master"));
    assert_eq!(field(&three, "modules"), Reply::Array(vec![]));
    assert!(!field(&three, "version").text().is_empty());
    assert_eq!(field(&three, "id"), client.line("CLIENT ID"));
    let again = client.line("HELLO");
    assert!(
        matches!(again, Reply::Map(_)),
        "HELLO without a version changes nothing: {again:?}"
    );
}

#[test]
fn resp3_replies_have_its_types_from_memory_and_from_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_NEGATIVE_TTL_SECS", 60).start();
    let mut client = proxy.resp();
    client.line("HELLO 3");
    for _ in 0..2 {
        assert_eq!(client.line("GET none"), Reply::Null);
    }
    client.line("HSET h f v");
    assert_eq!(
        client.line("HGETALL h"),
        Reply::Map(vec![Reply::bulk("f"), Reply::bulk("v")])
    );
    client.line("SADD s a");
    assert_eq!(
        client.line("SMEMBERS s"),
        Reply::Set(vec![Reply::bulk("a")])
    );
    client.line("ZADD z 1.5 a");
    assert_eq!(
        client.line("ZSCORE z a"),
        Reply::Scalar(',', "1.5".to_string())
    );
    assert_eq!(
        client.line("MGET none h"),
        Reply::Array(vec![Reply::Null, Reply::Null])
    );
    // The same keys for a RESP2 client, at the same time.
    let mut old = proxy.resp();
    assert_eq!(old.line("GET none"), Reply::NullBulk);
    assert_eq!(
        old.line("HGETALL h"),
        Reply::Array(vec![Reply::bulk("f"), Reply::bulk("v")])
    );
    assert_eq!(client.line("GET none"), Reply::Null);
}

#[test]
fn hello_in_the_middle_of_a_pipeline_counts_from_there_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["HSET", "h", "f", "v"]);
    let mut client = proxy.resp();
    let part = [
        encode_line("GET none"),
        encode_line("HGETALL h"),
        encode_line("GET none"),
    ]
    .concat();
    let pipeline = [
        part.clone(),
        encode_line("HELLO 3"),
        part.clone(),
        encode_line("HELLO 2"),
        part,
    ]
    .concat();
    let (flat, map) = (
        vec![Reply::bulk("f"), Reply::bulk("v")],
        vec![Reply::bulk("f"), Reply::bulk("v")],
    );
    for _ in 0..3 {
        client.send(&pipeline);
        assert_eq!(
            client.replies(3),
            [Reply::NullBulk, Reply::Array(flat.clone()), Reply::NullBulk]
        );
        assert_eq!(field(&client.reply(), "proto"), Reply::Int(3));
        assert_eq!(
            client.replies(3),
            [Reply::Null, Reply::Map(map.clone()), Reply::Null]
        );
        assert_eq!(field(&client.reply(), "proto"), Reply::Int(2));
        assert_eq!(
            client.replies(3),
            [Reply::NullBulk, Reply::Array(flat.clone()), Reply::NullBulk]
        );
    }
}

#[test]
fn a_wrong_hello_is_refused_as_redis_refuses_it() {
    let oracle = Oracle::start();
    for line in [
        "HELLO 1",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 FOO",
        "HELLO 3 SETNAME",
        "HELLO -1",
    ] {
        oracle.assert_same(
            "HELLO",
            &[encode_line(line), encode_line("GET none")].concat(),
        );
    }
}

/// The reply without what belongs to the connection.
fn without_id(hello: &Reply) -> Reply {
    let (Reply::Map(items) | Reply::Array(items)) = hello else {
        panic!("no map: {hello:?}")
    };
    let mut items = items.clone();
    let at = items.iter().position(|item| *item == Reply::bulk("id"));
    items[at.expect("HELLO tells an id") + 1] = Reply::Int(0);
    match hello {
        Reply::Map(_) => Reply::Map(items),
        _ => Reply::Array(items),
    }
}

#[test]
fn hello_says_what_redis_says_of_itself() {
    for coherence in ["tracking", "ttl", "off"] {
        let redis = RedisServer::start();
        let proxy = Proxy::to(&redis).env("COHERENCE", coherence).start();
        let (mut ours, mut theirs) = (proxy.resp(), redis.client());
        for line in ["HELLO 2", "HELLO 3", "HELLO", "HELLO 3 SETNAME me"] {
            assert_eq!(
                without_id(&ours.line(line)),
                without_id(&theirs.line(line)),
                "{line} with {coherence}"
            );
        }
    }
}

#[test]
fn hello_tells_a_replica_from_a_master() {
    let (master, redis) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&redis);
    let role = |client: &mut crate::support::resp::RespClient| {
        let hello = client.line("HELLO 3");
        field(&hello, "role").text()
    };
    let mut client = proxy.resp();
    assert_eq!(role(&mut client), "master");
    let port = master.port().to_string();
    redis.call(&["REPLICAOF", "127.0.0.1", &port]);
    eventually("the new role is told", PATIENCE, || {
        role(&mut client) == "replica"
    });
    assert_eq!(role(&mut redis.client()), "replica");
}

#[test]
fn a_client_can_name_itself() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut one, mut other) = (proxy.resp(), proxy.resp());
    assert_eq!(one.line("CLIENT SETNAME one"), Reply::ok());
    assert_eq!(other.line("CLIENT SETNAME other"), Reply::ok());
    assert_eq!(one.line("CLIENT GETNAME"), Reply::bulk("one"));
    assert_eq!(other.line("client getname"), Reply::bulk("other"));
    let ids = [one.line("CLIENT ID"), other.line("CLIENT ID")];
    assert!(
        matches!(ids, [Reply::Int(a), Reply::Int(b)] if a != b && a > 0 && b > 0),
        "{ids:?}"
    );
    assert_eq!(one.line("CLIENT ID"), ids[0], "an id stays");
    let bad = one.call(&["CLIENT", "SETNAME", "two words"]);
    assert!(bad.error().starts_with("ERR "), "{bad:?}");
    assert_eq!(one.line("CLIENT GETNAME"), Reply::bulk("one"));
    let hello = one.line("HELLO 2 SETNAME again");
    assert_eq!(field(&hello, "proto"), Reply::Int(2));
    assert_eq!(one.line("CLIENT GETNAME"), Reply::bulk("again"));
}

#[test]
fn client_setinfo_is_taken_as_newer_servers_take_it() {
    // Redis 7.0 does not know it; client libraries send it on connecting and must not be disturbed.
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    assert_eq!(
        client.line("CLIENT SETINFO LIB-NAME some-library"),
        Reply::ok()
    );
    assert_eq!(client.line("CLIENT SETINFO lib-ver 1.2.3"), Reply::ok());
}

#[test]
fn the_database_of_the_url_is_used_for_fetches_and_relays() {
    let redis = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}/3", redis.port());
    let proxy = Proxy::to(&redis).env("REDIS_URL", url).start();
    let mut direct = redis.client();
    direct.line("SET k zero");
    direct.line("SELECT 3");
    direct.line("SET k three");
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::bulk("three"));
    assert_eq!(client.line("APPEND k !"), Reply::Int(6));
    assert_eq!(client.line("GET k"), Reply::bulk("three!"));
    assert_eq!(client.line("SELECT 3"), Reply::ok());
    assert_eq!(proxy.http().get("k").body, b"three!");
    assert_eq!(redis.call(&["GET", "k"]), Reply::bulk("zero"));
}

#[test]
fn command_and_its_subcommands_say_what_redis_says() {
    let oracle = Oracle::start();
    for line in [
        "COMMAND COUNT",
        "COMMAND INFO get",
        "COMMAND INFO nosuch",
        "COMMAND GETKEYS SET k v",
    ] {
        oracle.assert_same("COMMAND", &encode_line(line));
    }
    let Reply::Array(all) = oracle.proxy.resp().line("COMMAND") else {
        panic!("COMMAND is an array")
    };
    let count = oracle.proxy.resp().line("COMMAND COUNT");
    assert_eq!(Reply::Int(all.len() as i64), count);
    let Reply::Array(docs) = oracle.proxy.resp().line("COMMAND DOCS get") else {
        panic!("COMMAND DOCS is an array")
    };
    assert_eq!(
        docs[0],
        Reply::bulk("get"),
        "redis-cli asks for it on connecting"
    );
}

#[test]
fn info_is_the_upstreams_with_a_section_of_ours() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let everything = client.line("INFO").text();
    for line in [
        "# Server\r\n",
        "redis_version:",
        &format!("tcp_port:{}\r\n", redis.port()),
        "# Nearcache\r\n",
        "nearcache_hits:",
    ] {
        assert!(everything.contains(line), "INFO lacks {line}: {everything}");
    }
    let server = client.line("INFO server").text();
    assert!(
        server.starts_with("# Server\r\n") && !server.contains("nearcache_hits"),
        "{server}"
    );
    let ours = client.line("INFO nearcache").text();
    assert!(
        ours.starts_with("# Nearcache\r\n") && !ours.contains("redis_version"),
        "{ours}"
    );
    client.line("HELLO 3");
    assert!(
        matches!(client.line("INFO nearcache"), Reply::Verbatim(_)),
        "as Redis answers INFO in RESP3"
    );
    assert!(matches!(client.line("INFO server"), Reply::Verbatim(_)));
}

#[test]
fn quit_answers_everything_before_it_then_ok_then_closes() {
    let oracle = Oracle::start();
    let pipeline = [
        encode_line("SET k v"),
        encode_line("GET k"),
        encode_line("GET none"),
        encode_line("QUIT"),
        encode_line("SET k lost"),
    ];
    oracle.assert_same_and_closed("QUIT", &pipeline.concat());
    oracle.assert_same("what is behind QUIT is not executed", &encode_line("GET k"));
    oracle.assert_same_and_closed("inline QUIT", b"quit\r\n");
}

#[test]
fn the_state_of_one_client_is_none_of_anothers() {
    let oracle = Oracle::start();
    let (mut three, mut three_truth) = oracle.clients();
    three.line("HELLO 3");
    three_truth.line("HELLO 3");
    let (mut two, mut two_truth) = oracle.clients();
    let commands = [
        encode_line("HSET h f v"),
        encode_line("HGETALL h"),
        encode_line("GET none"),
        encode_line("CLIENT GETNAME"),
    ]
    .concat();
    for _ in 0..3 {
        assert_same_replies("RESP3", &mut three, &mut three_truth, &commands);
        assert_same_replies("RESP2", &mut two, &mut two_truth, &commands);
    }
}

#[test]
fn a_password_is_compared_with_the_proxys_own() {
    let oracle = Oracle::start();
    for line in [
        "AUTH secret",
        "AUTH default anything",
        "AUTH nobody secret",
        "AUTH",
        "AUTH a b c",
    ] {
        oracle.assert_same(
            "AUTH without a password configured",
            &[encode_line(line), encode_line("GET none")].concat(),
        );
    }
}
