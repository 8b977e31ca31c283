//! NEARCACHE: the admin port's figures and changes over RESP, and who may make them.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient};
use crate::support::{PATIENCE, eventually};

#[track_caller]
fn error(client: &mut RespClient, line: &str, begin: &str) {
    let reply = client.line(line);
    let Reply::Error(text) = &reply else {
        panic!("{line}: {reply:?}")
    };
    assert!(text.starts_with(begin), "{line}: {text}");
}

#[track_caller]
fn array(reply: Reply) -> Vec<Reply> {
    match reply {
        Reply::Array(items) => items,
        other => panic!("no array: {other:?}"),
    }
}

#[test]
fn everybody_may_look_and_the_machine_itself_may_change() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("SLOW_RELAY_MS", 5)
        .start_tracking();
    let mut client = proxy.resp();
    redis.call(&["MSET", "user:1", "a", "user:2", "b", "c", "c"]);
    eventually("all three are kept", PATIENCE, || {
        for key in ["user:1", "user:2", "c"] {
            client.call(&["GET", key]);
        }
        proxy.counter(info::ENTRIES) == 3
    });
    assert!(
        client
            .line("NEARCACHE STATS")
            .text()
            .starts_with("{\"version\":")
    );
    assert!(
        client
            .line("nearcache hotkeys")
            .text()
            .contains("\"key\":\"user:1\"")
    );
    assert!(
        client
            .line("NEARCACHE EXPLAIN c")
            .text()
            .contains("\"cached\":\"value\"")
    );
    assert!(
        client
            .line("NEARCACHE MRC")
            .text()
            .contains("\"capacity_entries\":1000000")
    );
    assert!(array(client.line("NEARCACHE HELP")).len() > 5);

    assert_eq!(client.line("NEARCACHE FLUSH PREFIX user:"), Reply::Int(2));
    assert_eq!(client.line("NEARCACHE FLUSH c nothing"), Reply::Int(1));
    assert_eq!(client.line("NEARCACHE FLUSH"), Reply::Int(0));
    assert_eq!(
        redis.call(&["GET", "c"]),
        Reply::bulk("c"),
        "Redis is not touched"
    );
    assert_eq!(client.line("NEARCACHE COHERENCE"), Reply::bulk("tracking"));
    assert_eq!(client.line("NEARCACHE COHERENCE off"), Reply::ok());
    assert_eq!(proxy.info()[info::COHERENCE], "off");
    assert_eq!(client.line("NEARCACHE COHERENCE tracking"), Reply::ok());
    proxy.await_coherence("tracking");

    let found = array(client.line("NEARCACHE CONFIG GET cache_ttl*"));
    assert_eq!(found, [Reply::bulk("CACHE_TTL_SECS"), Reply::bulk("60")]);
    assert_eq!(
        client.line("NEARCACHE CONFIG SET cache_ttl_secs 5"),
        Reply::ok()
    );
    assert_eq!(
        array(client.line("NEARCACHE CONFIG GET CACHE_TTL_SECS"))[1],
        Reply::bulk("5")
    );
    error(
        &mut client,
        "NEARCACHE CONFIG SET REDIS_WORKERS 5",
        "ERR nearcache: REDIS_WORKERS cannot",
    );
    error(
        &mut client,
        "NEARCACHE CONFIG SET CACHE_TTL 5",
        "ERR nearcache: CACHE_TTL is not a key",
    );
    error(
        &mut client,
        "NEARCACHE NOTHING",
        "ERR unknown subcommand 'NOTHING'",
    );
    error(&mut client, "NEARCACHE EXPLAIN", "ERR syntax error");
    error(&mut client, "NEARCACHE", "ERR syntax error");

    client.line("CLIENT SETNAME slowly");
    // The link is there, so that what follows is timed from its sending on.
    assert_eq!(client.line("SET c c"), Reply::ok());
    let busy = "local t = redis.call('TIME') repeat local n = redis.call('TIME') \
                until (n[1] - t[1]) * 1000000 + n[2] - t[2] > 20000 return 1";
    assert_eq!(client.call(&["EVAL", busy, "0"]), Reply::Int(1));
    let slow = array(client.line("NEARCACHE SLOWLOG 1"));
    let Some(Reply::Array(entry)) = slow.first() else {
        panic!("{slow:?}")
    };
    assert_eq!(entry[3], Reply::Array(vec![Reply::bulk("eval")]));
    assert_eq!(entry[5], Reply::bulk("slowly"));
    assert_eq!(array(client.line("NEARCACHE SLOWLOG 0")), []);
}

#[test]
fn with_a_password_changes_want_it_and_reset_ends_the_rights() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("ADMIN_PASSWORD", "opensesame")
        .start();
    let mut client = proxy.resp();
    assert!(client.line("NEARCACHE STATS").text().contains("\"pid\":"));
    for line in ["FLUSH", "COHERENCE", "CONFIG GET *", "SLOWLOG"] {
        error(&mut client, &format!("NEARCACHE {line}"), "NOPERM ");
    }
    error(&mut client, "NEARCACHE AUTH opensesam", "WRONGPASS ");
    error(&mut client, "NEARCACHE FLUSH", "NOPERM ");
    assert_eq!(client.line("NEARCACHE AUTH opensesame"), Reply::ok());
    assert_eq!(client.line("NEARCACHE FLUSH"), Reply::Int(0));
    let config = array(client.line("NEARCACHE CONFIG GET ADMIN_PASSWORD"));
    assert_eq!(config[1], Reply::bulk("***"));
    client.line("RESET");
    error(&mut client, "NEARCACHE FLUSH", "NOPERM ");
    eventually("the attempt is logged", PATIENCE, || {
        proxy.stderr().contains("admin: wrong password client=")
    });
    assert!(!proxy.stderr().contains("opensesam"));
    let open = Proxy::start(&redis);
    error(
        &mut open.resp(),
        "NEARCACHE AUTH x",
        "ERR nearcache: there is no ADMIN_PASSWORD",
    );
}

#[test]
fn redis_sees_whose_connections_they_are() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut client = proxy.resp();
    client.line("SET k v");
    client.line("GET k");
    client.line("WATCH k");
    let prefix = format!(":{}:", proxy.pid());
    eventually("each kind is named", PATIENCE, || {
        let names: Vec<String> = redis
            .proxy_connections()
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        ["inval", "fetch", "link", "own"].iter().all(|kind| {
            names
                .iter()
                .any(|name| name.contains(&format!("{prefix}{kind}")))
        })
    });
    client.line("CLIENT SETNAME checkout");
    eventually("an own link has its client's name", PATIENCE, || {
        redis
            .call(&["CLIENT", "LIST"])
            .text()
            .contains(&format!("{prefix}own:checkout "))
    });
}
