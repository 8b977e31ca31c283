//! CLIENT about the proxy's own clients, compared with Redis wherever the words are not about ids and addresses.

use crate::oracle::Oracle;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use std::collections::HashMap;

/// The fields of one line of CLIENT LIST.
fn fields(line: &str) -> HashMap<String, String> {
    let pairs = line
        .trim_end()
        .split(' ')
        .filter_map(|field| field.split_once('='));
    pairs
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// The lines of a list, by the clients' names.
#[track_caller]
fn list(client: &mut RespClient, command: &str) -> HashMap<String, HashMap<String, String>> {
    let text = client.line(command).text();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "{command}: {text:?}"
    );
    text.lines()
        .map(|line| {
            let fields = fields(line);
            (fields["name"].clone(), fields)
        })
        .collect()
}

fn named(proxy: &Proxy, name: &str) -> RespClient {
    let mut client = proxy.resp();
    assert_eq!(client.line(&format!("CLIENT SETNAME {name}")), Reply::ok());
    client
}

fn id(client: &mut RespClient) -> i64 {
    match client.line("CLIENT ID") {
        Reply::Int(id) => id,
        other => panic!("no id: {other:?}"),
    }
}

#[test]
fn wrong_forms_get_the_words_of_redis() {
    let oracle = Oracle::start();
    for line in [
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT MAINT_NOTIFICATIONS ON",
        "client maint_notifications on moving-endpoint-type none",
        "CLIENT ID x",
        "CLIENT SETNAME",
        "CLIENT SETNAME a b",
        "CLIENT GETNAME x",
        "CLIENT INFO x",
        "CLIENT LIST x",
        "CLIENT LIST TYPE",
        "CLIENT LIST TYPE nosuch",
        "CLIENT LIST TYPE master",
        "CLIENT LIST TYPE replica",
        "CLIENT LIST TYPE slave",
        "CLIENT LIST TYPE pubsub",
        "CLIENT LIST TYPE normal x",
        "CLIENT LIST ID",
        "CLIENT LIST ID x",
        "CLIENT LIST ID 1 x",
        "CLIENT LIST ID 999999 -5",
        "CLIENT KILL",
        "CLIENT KILL nobody:1",
        "CLIENT KILL 127.0.0.1:1",
        "CLIENT KILL ID",
        "CLIENT KILL ID x",
        "CLIENT KILL ID 0",
        "CLIENT KILL ID -1",
        "CLIENT KILL ID 999999",
        "CLIENT KILL ID 999999 TYPE",
        "CLIENT KILL TYPE nosuch",
        "CLIENT KILL TYPE master",
        "CLIENT KILL TYPE pubsub SKIPME no",
        "CLIENT KILL USER nosuch",
        "CLIENT KILL SKIPME maybe",
        "CLIENT KILL ADDR 1.2.3.4:5 LADDR 1.2.3.4:5",
        "CLIENT KILL FOO bar",
        "CLIENT NO-EVICT",
        "CLIENT NO-EVICT maybe",
        "CLIENT NO-EVICT on",
        "CLIENT NO-EVICT OFF",
        "CLIENT REPLY",
        "CLIENT REPLY maybe",
        "CLIENT REPLY ON",
        "CLIENT UNBLOCK",
        "CLIENT UNBLOCK x",
        "CLIENT UNBLOCK 999999",
        "CLIENT UNBLOCK 999999 TIMEOUT",
        "CLIENT UNBLOCK 999999 error",
        "CLIENT UNBLOCK x FOO",
        "CLIENT UNBLOCK 1 ERROR x",
        "CLIENT GETREDIR",
        "CLIENT HELP x",
        "READONLY",
        "READONLY x",
        "READWRITE",
        "ASKING",
        "RESET",
        "RESET x",
        "CLUSTER",
        "CLUSTER INFO",
        "CLUSTER SLOTS",
        "CLUSTER SHARDS",
        "CLUSTER NODES",
        "CLUSTER MYID",
        "CLUSTER HELP",
        "CLUSTER KEYSLOT k",
        "CLUSTER KEYSLOT",
        "CLUSTER NOSUCH",
        "PING",
        "PING text",
        "PING a b",
        "ECHO",
        "ECHO a b",
        "HELLO 2 SETNAME",
        "HELLO x SETNAME a",
        "HELLO 02",
        "HELLO 3 AUTH a",
        "HELLO 3 SETNAME x AUTH",
    ] {
        let resp2 = [encode_line(line), encode_line("GET none")].concat();
        oracle.assert_same(line, &resp2);
    }
    let long = "x".repeat(300);
    for call in [
        &["HELLO", "3", &long][..],
        &["HELLO", "3", "with a \r\n line"],
        &["HELLO", "3", "up to\0here"],
        &["HELLO", "3", ""],
        &["CLIENT", "SETNAME", "two words"],
        &["CLIENT", "SETNAME", "line\n"],
        &["CLIENT", "SETNAME", ""],
        &["CLIENT", &long],
        &["CLIENT", ""],
        &["CLIENT", "KILL", "TYPE", &long],
        &["CLIENT", "KILL", "USER", "two words"],
        &["CLIENT", "LIST", "TYPE", "a\r\nb"],
        &["HELLO", "2", "SETNAME", "two words"],
        &["CLUSTER", ""],
    ] {
        oracle.assert_same(
            "quoted",
            &[encode(call), encode_line("CLIENT GETNAME")].concat(),
        );
    }
}

#[test]
fn replies_are_muted_as_redis_mutes_them() {
    let oracle = Oracle::start();
    for lines in [
        &["CLIENT REPLY SKIP", "SET k v", "GET k"][..],
        &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "GET k", "PING"],
        &[
            "GET k",
            "CLIENT REPLY OFF",
            "GET k",
            "SET k w",
            "GET none",
            "CLIENT REPLY ON",
            "GET k",
        ],
        &[
            "CLIENT REPLY OFF",
            "NOSUCH",
            "GET",
            "EVAL return(1) 0",
            "CLIENT REPLY SKIP",
            "CLIENT REPLY ON",
        ],
        &[
            "CLIENT REPLY OFF",
            "HELLO 3",
            "CLIENT REPLY ON",
            "GET none",
            "HELLO 2 FOO",
        ],
        &["CLIENT REPLY OFF", "RESET", "PING"],
        &[
            "CLIENT REPLY SKIP",
            "SELECT 4",
            "SET k four",
            "GET k",
            "RESET",
            "GET k",
        ],
        &[
            "CLIENT REPLY OFF",
            "SELECT 5",
            "SET k five",
            "CLIENT REPLY ON",
            "GET k",
        ],
        &[
            "CLIENT REPLY OFF",
            "CLIENT SETNAME x",
            "CLIENT LIST",
            "INFO",
            "CLIENT REPLY ON",
            "CLIENT GETNAME",
        ],
        &[
            "CLIENT REPLY maybe",
            "CLIENT REPLY SKIP",
            "ECHO x",
            "ECHO y",
        ],
    ] {
        let pipeline: Vec<u8> = lines.iter().flat_map(|line| encode_line(line)).collect();
        // The second time what can be kept is kept.
        for _ in 0..2 {
            oracle.assert_same(&lines.join("; "), &pipeline);
        }
    }
    // An empty line uses up a SKIP.
    let skip = encode_line("CLIENT REPLY SKIP");
    oracle.assert_same("empty line", &[&skip[..], b"\r\n", b"PING\r\n"].concat());
    // QUIT and broken bytes end the connection without a word. (Redis 7.0 forgets to end it.)
    for end in [&b"PING\r\nQUIT\r\n"[..], b"*1\r\n$x\r\n"] {
        let mut client = oracle.proxy.resp();
        client.send(&[&encode_line("CLIENT REPLY OFF"), end].concat());
        assert_eq!(client.bytes_until_closed(), b"");
    }
}

#[test]
fn a_muted_pipeline_is_executed_and_answered_by_what_comes_after_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let mut pipeline = encode_line("CLIENT REPLY OFF");
    for n in 0..2000 {
        pipeline.extend(encode_line(&format!("SET k{} {n}", n % 100)));
        pipeline.extend(encode_line(&format!("GET k{}", n % 7)));
        pipeline.extend(encode_line("INCR n"));
    }
    pipeline.extend(encode_line("CLIENT REPLY ON"));
    pipeline.extend(encode_line("GET n"));
    client.send(&pipeline);
    assert_eq!(client.replies(2), [Reply::ok(), Reply::bulk("2000")]);
    assert_eq!(client.line("GET k99"), Reply::bulk("1999"));
}

#[test]
fn the_list_has_every_client_with_what_it_did() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut one = named(&proxy, "one");
    let mut two = named(&proxy, "two");
    one.line("SELECT 3");
    one.line("HGET h f");
    two.line("HELLO 3");
    two.line("CLIENT SETINFO lib-name some-lib");
    two.line("CLIENT SETINFO lib-ver 1.2");
    two.line("CLIENT NO-EVICT on");
    two.line("GET k");
    let mut asker = proxy.resp();
    let all = list(&mut asker, "CLIENT LIST");
    assert_eq!(all.len(), 3, "{all:?}");
    let is = |name: &str, field: &str, value: &str| {
        assert_eq!(all[name][field], value, "{field} of {name}");
    };
    is("one", "id", &id(&mut one).to_string());
    is("one", "db", "3");
    is("one", "cmd", "hget");
    is("one", "resp", "2");
    is("one", "flags", "N");
    is("one", "lib-name", "");
    is("one", "user", "default");
    is("two", "db", "0");
    is("two", "cmd", "get");
    is("two", "resp", "3");
    is("two", "flags", "e");
    is("two", "lib-name", "some-lib");
    is("two", "lib-ver", "1.2");
    is("", "cmd", "client|list");
    for line in all.values() {
        assert_eq!(line["laddr"], format!("127.0.0.1:{}", proxy.resp_port));
        assert!(line["addr"].starts_with("127.0.0.1:"), "{line:?}");
    }
    let ids = [id(&mut two), id(&mut one), 999_999];
    let picked = list(
        &mut asker,
        &format!("CLIENT LIST ID {} {} {}", ids[0], ids[1], ids[2]),
    );
    assert_eq!(picked.len(), 2);
    assert_eq!(list(&mut asker, "CLIENT LIST TYPE normal").len(), 3);
    let info = one.line("CLIENT INFO").text();
    assert_eq!(fields(&info)["name"], "one");
    assert_eq!(fields(&info)["cmd"], "client|info");
    assert!(matches!(two.line("CLIENT INFO"), Reply::Verbatim(_)));
    // Every field of Redis's own line is there, in its order; ours may have more (those of newer versions).
    let theirs = redis.client().line("CLIENT LIST").text();
    let names = |line: &str| -> Vec<String> {
        line.trim_end()
            .split(' ')
            .filter_map(|field| Some(field.split_once('=')?.0.to_string()))
            .collect()
    };
    let theirs = names(theirs.lines().next().expect("somebody is connected"));
    let mut ours = names(&info);
    ours.truncate(theirs.len());
    assert_eq!(ours, theirs);
}

#[test]
fn kill_ends_those_who_are_meant_and_counts_them() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut admin = named(&proxy, "admin");
    let address =
        |client: &mut RespClient| fields(&client.line("CLIENT INFO").text())["addr"].clone();

    let mut victim = named(&proxy, "victim");
    let kill = format!("CLIENT KILL {}", address(&mut victim));
    assert_eq!(admin.line(&kill), Reply::ok());
    assert_eq!(victim.bytes_until_closed(), b"");
    assert_eq!(admin.line(&kill).error(), "ERR No such client");

    let mut victim = named(&proxy, "victim");
    let kill = format!("CLIENT KILL ID {}", id(&mut victim));
    assert_eq!(admin.line(&kill), Reply::Int(1));
    assert_eq!(victim.bytes_until_closed(), b"");
    assert_eq!(admin.line(&kill), Reply::Int(0));

    let mut victims = [named(&proxy, "a"), named(&proxy, "b"), named(&proxy, "c")];
    let kill = format!(
        "CLIENT KILL LADDR 127.0.0.1:{} TYPE normal USER default",
        proxy.resp_port
    );
    assert_eq!(admin.line(&kill), Reply::Int(3));
    for victim in &mut victims {
        assert_eq!(victim.bytes_until_closed(), b"");
    }
    // Nobody is old enough; then everybody, oneself too, who is answered first.
    assert_eq!(
        admin.line("CLIENT KILL MAXAGE 100000 SKIPME no"),
        Reply::Int(0)
    );
    let mut last = named(&proxy, "last");
    let pipeline = [
        encode_line("CLIENT KILL TYPE normal SKIPME no"),
        encode_line("PING"),
    ]
    .concat();
    admin.send(&pipeline);
    assert_eq!(admin.bytes_until_closed(), b":2\r\n");
    assert_eq!(last.bytes_until_closed(), b"");
    let mut own = proxy.resp();
    let kill = format!("CLIENT KILL {}", address(&mut own));
    own.send(&encode_line(&kill));
    assert_eq!(own.bytes_until_closed(), b"+OK\r\n");
}

#[test]
fn a_client_that_is_killed_with_commands_under_way_disturbs_nobody() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut victim, mut other) = (named(&proxy, "victim"), proxy.resp());
    assert_eq!(other.line("INCR m"), Reply::Int(1));
    let kill = format!("CLIENT KILL ID {}", id(&mut victim));
    redis.freeze();
    victim.send(&[encode_line("INCR n"), encode_line("GET cold")].concat());
    other.send(&[encode_line("INCR m"), encode_line("GET cold")].concat());
    // Sent behind them, so the proxy has taken them.
    assert_eq!(proxy.resp().line(&kill), Reply::Int(1));
    redis.thaw();
    assert_eq!(victim.bytes_until_closed(), b"");
    assert_eq!(other.replies(2), [Reply::Int(2), Reply::NullBulk]);
    assert_eq!(other.line("GET n"), Reply::bulk("1"), "it was executed");
}

#[test]
fn reset_leaves_a_connection_as_it_was_opened() {
    let redis = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}/2", redis.port());
    let proxy = Proxy::to(&redis).env("REDIS_URL", url).start();
    let mut client = named(&proxy, "me");
    client.line("HELLO 3");
    client.line("SELECT 7");
    client.line("CLIENT SETINFO lib-name mine");
    assert_eq!(client.line("RESET"), Reply::Simple("RESET".to_string()));
    let info = fields(&client.line("CLIENT INFO").text());
    assert_eq!(info["name"], "");
    assert_eq!(info["db"], "2", "the database that REDIS_URL names");
    assert_eq!(info["resp"], "2");
    assert_eq!(info["lib-name"], "mine");
    assert_eq!(client.line("GET none"), Reply::NullBulk);
    assert_eq!(client.line("CLIENT GETNAME"), Reply::NullBulk);
}

#[test]
fn names_are_bounded() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let (long, longest) = ("x".repeat(4097), "x".repeat(4096));
    for call in [
        ["CLIENT", "SETNAME", &long].as_slice(),
        &["CLIENT", "SETINFO", "lib-name", &long],
        &["CLIENT", "SETINFO", "lib-ver", &long],
    ] {
        assert!(client.call(call).is_own_error());
    }
    assert_eq!(client.line("CLIENT GETNAME"), Reply::NullBulk);
    assert_eq!(client.call(&["CLIENT", "SETNAME", &longest]), Reply::ok());
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk(&longest));
    let wrong = client.call(&["CLIENT", "SETINFO", "LIB-NAME", "two words"]);
    assert_eq!(
        wrong.error(),
        "ERR LIB-NAME cannot contain spaces, newlines or special characters."
    );
    assert_eq!(
        client.line("CLIENT SETINFO color red").error(),
        "ERR Unrecognized option 'color'"
    );
}

#[test]
fn a_list_is_as_long_as_a_client_may_be_owed() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("OUTBOX_MAX_BYTES", "2MiB").start();
    let mut client = proxy.resp();
    let Reply::Int(number) = client.line("CLIENT ID") else {
        panic!("an id is a number");
    };
    let number = number.to_string();
    let mut call = vec!["CLIENT", "LIST", "ID"];
    call.extend([&number[..], "0", &number, "999999", &number]);
    assert_eq!(client.call(&call).text().lines().count(), 3);
    call.extend(std::iter::repeat_n(&number[..], 20_000));
    assert!(client.call(&call).is_own_error());
    assert_eq!(client.line("PING"), Reply::Simple("PONG".to_owned()));
}

#[test]
fn a_pause_that_redis_refuses_is_none() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    let error = client.line("CLIENT PAUSE 999999999 FOO");
    assert!(error.error().starts_with("ERR "));
    // While a pause is on, every one of these that finds a connection taken has one of its own.
    let before = proxy.counter("nearcache_links_opened");
    let mut others: Vec<_> = (0..40).map(|_| proxy.resp()).collect();
    for _ in 0..5 {
        for other in &mut others {
            other.send(&encode_line("ECHO x").repeat(20));
        }
        for other in &mut others {
            assert!(
                other
                    .replies(20)
                    .iter()
                    .all(|reply| *reply == Reply::bulk("x"))
            );
        }
    }
    let opened = proxy.counter("nearcache_links_opened") - before;
    assert!(opened <= 4, "{opened} connections to Redis");
}
