//! Transactions: MULTI, WATCH and what may stand between them and EXEC.

use crate::oracle::Oracle;
use crate::script::assert_same_script;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::Relay;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};

/// The number of connections that Redis has, this look's own left out.
fn connections(redis: &RedisServer) -> usize {
    redis.call(&["CLIENT", "LIST"]).text().lines().count() - 1
}

#[test]
fn a_transaction_gets_the_replies_of_redis() {
    let oracle = Oracle::start();
    for script in [
        &["a MULTI", "a SET k v", "a GET k", "a EXEC", "a GET k"][..],
        &["a MULTI", "a SET k w", "a DISCARD", "a GET k", "a EXEC"],
        &["a MULTI", "a EXEC", "a EXEC", "a DISCARD", "a UNWATCH"],
        // What is wrong while it is queued, and what is wrong when it is executed.
        &["a MULTI", "a SET k", "a SET k x", "a EXEC", "a GET k"],
        &[
            "a MULTI",
            "a NOSUCH",
            "a EXEC",
            "a MULTI",
            "a LPUSH k x",
            "a SET k y",
            "a EXEC",
        ],
        &["a MULTI", "a MULTI", "a WATCH k", "a INCR n", "a EXEC"],
        &["a MULTI x", "a EXEC", "a MULTI", "a EXEC x", "a EXEC"],
        // What the proxy answers itself outside is queued inside.
        &[
            "a MULTI",
            "a PING",
            "a ECHO x",
            "a READONLY",
            "a TIME x",
            "a EXEC",
        ],
        &["a MULTI", "a PING x", "a CLIENT GETNAME x", "a EXEC"],
        &[
            "a CLIENT SETNAME me",
            "a MULTI",
            "a CLIENT GETNAME",
            "a EXEC",
            "a CLIENT GETNAME",
        ],
        &[
            "a MULTI",
            "a CLIENT SETNAME you",
            "a EXEC",
            "a CLIENT GETNAME",
        ],
        &["a MULTI", "a SET k v", "a RESET", "a EXEC", "a GET k"],
        &[
            "a MULTI",
            "a BLPOP nolist 0",
            "a BZPOPMIN nolist 0",
            "a EXEC",
            "a PING",
        ],
        &["a MULTI", "a QUIT"],
    ] {
        assert_same_script(&oracle, script);
        assert_same_script(&oracle, &[&["a HELLO 3"], script].concat());
    }
}

#[test]
fn a_watched_key_that_changes_makes_exec_fail() {
    let oracle = Oracle::start();
    for script in [
        &[
            "a WATCH k",
            "b SET k b",
            "a MULTI",
            "a SET k a",
            "a EXEC",
            "a GET k",
        ][..],
        &[
            "a WATCH k",
            "a GET k",
            "a MULTI",
            "a SET k a",
            "a EXEC",
            "b GET k",
        ],
        &[
            "a WATCH k",
            "a MULTI",
            "b SET k c",
            "a SET k a",
            "a EXEC",
            "b GET k",
        ],
        &[
            "a WATCH k",
            "b SET k d",
            "a UNWATCH",
            "a MULTI",
            "a GET k",
            "a EXEC",
        ],
        &[
            "a WATCH k",
            "b SET k e",
            "a MULTI",
            "a DISCARD",
            "a MULTI",
            "a GET k",
            "a EXEC",
        ],
        &[
            "a WATCH k",
            "b SET k f",
            "a MULTI",
            "a UNWATCH",
            "a GET k",
            "a EXEC",
        ],
        &[
            "a WATCH k l",
            "b DEL l",
            "a MULTI",
            "a GET k",
            "a EXEC",
            "a WATCH",
        ],
        &["a WATCH k", "a SET k own", "a MULTI", "a GET k", "a EXEC"],
        // What ends no transaction ends no watch.
        &[
            "a WATCH k",
            "a EXEC",
            "a DISCARD",
            "c MULTI",
            "b SET k g",
            "c SET x c",
            "c EXEC",
            "a MULTI",
            "a SET k a",
            "a EXEC",
            "b GET k",
        ],
        // While keys are watched the rest goes on as usual.
        &[
            "a WATCH k",
            "a PING",
            "a ECHO x",
            "a GET k",
            "a MGET k l",
            "a INFO nosuch",
            "a UNWATCH",
        ],
        &[
            "a WATCH k",
            "b SET k g",
            "a RESET",
            "a MULTI",
            "a GET k",
            "a EXEC",
        ],
        &[
            "a WATCH k",
            "a HELLO 3",
            "a GET nokey",
            "a MULTI",
            "a GET nokey",
            "a EXEC",
            "a HELLO 2",
        ],
    ] {
        assert_same_script(&oracle, script);
        assert_same_script(&oracle, &[&["b GET k", "a HELLO 3"], script].concat());
    }
}

#[test]
fn the_version_chosen_inside_a_transaction_counts_when_it_is_executed() {
    let oracle = Oracle::start();
    for script in [
        &["a MULTI", "a HELLO 3", "a GET none", "a> EXEC"][..],
        &["a MULTI", "a HELLO 3", "a DISCARD", "a GET none"],
        &["a MULTI", "a HELLO 4", "a EXEC", "a GET none"],
        &[
            "a WATCH k",
            "a MULTI",
            "a HELLO 3",
            "b SET k v",
            "a EXEC",
            "a GET none",
        ],
    ] {
        assert_same_script(&oracle, script);
    }
    let mut client = oracle.proxy.resp();
    client.send(&["MULTI", "HELLO 3", "EXEC"].map(encode_line).concat());
    client.replies(3);
    assert_eq!(client.line("GET none"), Reply::Null);
    assert_eq!(client.line("GET none"), Reply::Null);
}

#[test]
fn what_is_pipelined_around_a_transaction_keeps_its_order() {
    let oracle = Oracle::start();
    let pipeline = [
        "SET k 1", "GET k", "MULTI", "INCR k", "GET k", "EXEC", "GET k", "SET k 5", "WATCH k",
        "GET k", "MULTI", "INCR k", "EXEC", "GET k", "PING", "MULTI", "DISCARD", "GET k",
        "UNWATCH", "EXEC", "INCR k",
    ];
    let bytes = pipeline.map(encode_line).concat();
    for _ in 0..3 {
        oracle.assert_same("all at once", &bytes);
        oracle.assert_same("twice", &bytes.repeat(2));
    }
    let (mut ours, mut theirs) = oracle.clients();
    for client in [&mut ours, &mut theirs] {
        for byte in &bytes {
            client.send(&[*byte]);
        }
    }
    assert_eq!(ours.replies(pipeline.len()), theirs.replies(pipeline.len()));
}

#[test]
fn reads_under_watch_come_from_redis_and_not_from_memory() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    redis.call(&["SET", "k", "old"]);
    assert_eq!(client.line("GET k"), Reply::bulk("old"));
    // COHERENCE=ttl: nobody tells the proxy of this.
    redis.call(&["SET", "k", "new"]);
    assert_eq!(client.line("GET k"), Reply::bulk("old"), "it is kept");
    assert_eq!(client.line("WATCH k"), Reply::ok());
    assert_eq!(client.line("GET k"), Reply::bulk("new"));
    assert_eq!(client.line("MULTI"), Reply::ok());
    client.line("SET k newer");
    let Reply::Array(done) = client.line("EXEC") else {
        panic!("nobody has touched k")
    };
    assert_eq!(done, [Reply::ok()]);
    assert_eq!(client.line("GET k"), Reply::bulk("newer"));
}

#[test]
fn what_a_transaction_reads_and_writes_is_forgotten_when_it_is_executed() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    let keys = ["read", "written", "scripted", "aside"];
    for key in keys {
        redis.call(&["SET", key, "1"]);
        assert_eq!(other.line(&format!("GET {key}")), Reply::bulk("1"));
        redis.call(&["SET", key, "2"]);
    }
    client.send(
        &["MULTI", "GET read", "INCR written", "EXEC"]
            .map(encode_line)
            .concat(),
    );
    client.replies(4);
    assert_eq!(other.line("GET read"), Reply::bulk("2"));
    assert_eq!(other.line("GET written"), Reply::bulk("3"));
    assert_eq!(
        other.line("GET aside"),
        Reply::bulk("1"),
        "nothing else is forgotten"
    );
    client.send(&encode_line("MULTI"));
    client.call(&["EVAL", "return redis.call('INCR', 'scripted')", "0"]);
    client.send(&encode_line("EXEC"));
    client.replies(2);
    assert_eq!(other.line("GET scripted"), Reply::bulk("3"));
}

#[test]
fn connections_to_redis_are_used_again_by_the_next_transaction() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut first = proxy.resp();
    first.line("MULTI");
    first.line("EXEC");
    let before = connections(&redis);
    for _ in 0..50 {
        let mut client = proxy.resp();
        for line in ["WATCH k", "MULTI", "INCR n", "EXEC"] {
            client.line(line);
        }
    }
    assert_eq!(connections(&redis), before);
    assert_eq!(redis.call(&["GET", "n"]), Reply::bulk("50"));
    // One that was left in the middle is not.
    let mut client = proxy.resp();
    client.line("MULTI");
    client.line("INCR n");
    drop(client);
    eventually("the connection is closed", PATIENCE, || {
        connections(&redis) < before
    });
    assert_eq!(redis.call(&["GET", "n"]), Reply::bulk("50"));
}

#[test]
fn transactions_of_many_clients_do_not_mix() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut clients: Vec<_> = (0..20).map(|_| proxy.resp()).collect();
    for round in 0..5 {
        for client in &mut clients {
            assert_eq!(client.line("MULTI"), Reply::ok());
        }
        for (at, client) in clients.iter_mut().enumerate() {
            client.line(&format!("SET k{at} {round}"));
            client.line("INCR n");
        }
        for (at, client) in clients.iter_mut().enumerate() {
            let n = Reply::Int((round * 20 + at + 1) as i64);
            assert_eq!(client.line("EXEC"), Reply::Array(vec![Reply::ok(), n]));
        }
    }
    assert!(connections(&redis) < 30);
}

#[test]
fn a_transaction_takes_no_place_among_the_requests_counted() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("MAX_CONCURRENT_REQUESTS", 1).start();
    let (mut one, mut other) = (proxy.resp(), proxy.resp());
    one.line("MULTI");
    one.line("INCR n");
    assert_eq!(other.line("INCR n"), Reply::Int(1));
    assert_eq!(one.line("EXEC"), Reply::Array(vec![Reply::Int(2)]));
    assert_eq!(proxy.counter(info::IN_FLIGHT), 0);
}

#[test]
fn a_client_with_state_on_a_lost_connection_is_closed_and_the_others_go_on() {
    for upto in 1..4 {
        let redis = RedisServer::start();
        let relay = Relay::to(redis.port());
        let proxy = Proxy::through(&relay).start();
        let (mut client, mut other) = (proxy.resp(), proxy.resp());
        assert_eq!(other.line("INCR other"), Reply::Int(1));
        for line in &["WATCH k", "MULTI", "INCR n"][..upto] {
            client.line(line);
        }
        relay.cut_all();
        assert_eq!(client.bytes_until_closed(), b"");
        eventually("the others go on", PATIENCE, || {
            matches!(other.line("INCR other"), Reply::Int(_))
        });
        assert_eq!(redis.call(&["EXISTS", "n"]), Reply::Int(0));
    }
}

#[test]
fn without_a_connection_to_be_had_a_transaction_is_refused_and_its_client_closed() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("OWN_LINKS_MAX", 1).start();
    let (mut one, mut other) = (proxy.resp(), proxy.resp());
    one.line("MULTI");
    other.send(&["MULTI", "INCR n"].map(encode_line).concat());
    assert!(other.reply().is_own_error());
    assert_eq!(other.bytes_until_closed(), b"");
    one.line("DISCARD");
    let mut third = proxy.resp();
    assert_eq!(third.line("MULTI"), Reply::ok());
    assert_eq!(redis.call(&["EXISTS", "n"]), Reply::Int(0));
}

#[test]
fn a_transaction_that_comes_in_one_piece_needs_no_connection_of_its_own() {
    let oracle = Oracle::start();
    let own = || {
        let list = oracle.redis.call(&["CLIENT", "LIST"]).text();
        list.contains(":own")
    };
    for lines in [
        &["MULTI", "SET k v", "GET k", "INCR n", "EXEC"][..],
        &["multi", "EXEC"],
        &["GET k", "MULTI", "SET k", "GET k", "EXEC", "GET k"],
        &[
            "SET k 1",
            "MULTI",
            "INCR k",
            "LPUSH k x",
            "EXEC",
            "INCR k",
            "MULTI",
            "INCR k",
            "EXEC",
        ],
        &[
            "MULTI",
            "EVAL return{redis.call('incr','k')} 0",
            "EXEC",
            "GET k",
        ],
    ] {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| encode_line(line)).collect();
        oracle.assert_same("in one piece", &bytes);
        assert!(!own(), "{lines:?}");
    }
    // An unknown command is for a connection of its own, and so is a transaction with one in it.
    let unknown = ["MULTI", "NOSUCH k", "EXEC"].map(encode_line).concat();
    oracle.assert_same("unknown", &unknown);
    // Cut anywhere, its replies are the same.
    let bytes = ["MULTI", "SET k v", "GET k", "EXEC"]
        .map(encode_line)
        .concat();
    for cut in 1..bytes.len() {
        let (mut ours, mut theirs) = oracle.clients();
        for client in [&mut ours, &mut theirs] {
            client.send(&bytes[..cut]);
            client.send(&bytes[cut..]);
        }
        assert_eq!(ours.replies(4), theirs.replies(4));
    }
}

#[test]
fn transactions_in_one_piece_of_many_clients_do_not_mix() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("SHARED_LINKS_PER_POOL", 1).start();
    let mut clients: Vec<_> = (0..20).map(|_| proxy.resp()).collect();
    let mut sum = 0;
    for _ in 0..20 {
        let unit = ["MULTI", "INCR n", "GET n", "INCR n", "EXEC", "INCR m"]
            .map(encode_line)
            .concat();
        for client in &mut clients {
            client.send(&unit);
        }
        for client in &mut clients {
            let replies = client.replies(6);
            let Reply::Array(done) = &replies[4] else {
                panic!("nothing is watched: {replies:?}")
            };
            let (Reply::Int(first), Reply::Int(second)) = (&done[0], &done[2]) else {
                panic!("both are counted: {done:?}")
            };
            assert_eq!(
                (first + 1, done[1].clone()),
                (*second, Reply::bulk(first.to_string()))
            );
            sum += 2;
        }
    }
    assert_eq!(redis.call(&["GET", "n"]), Reply::bulk(sum.to_string()));
}

#[test]
fn each_command_of_a_transaction_in_one_piece_has_its_error_while_redis_is_away() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis).lost_is_an_error().start();
    let mut client = proxy.resp();
    redis.kill();
    proxy.await_redis("away");
    let unit = ["MULTI", "INCR n", "GET n", "EXEC", "ECHO x"].map(encode_line);
    for _ in 0..3 {
        client.send(&unit.concat());
        let replies = client.replies(5);
        assert!(replies[..4].iter().all(Reply::is_own_error), "{replies:?}");
        assert_eq!(replies[4], Reply::bulk("x"));
    }
}

#[test]
fn nobody_is_killed_inside_a_transaction() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    assert_eq!(other.line("SET k v"), Reply::ok());
    let Reply::Int(id) = other.line("CLIENT ID") else {
        panic!("a number");
    };
    let before = redis.proxy_connections();
    for kill in [
        format!("CLIENT KILL ID {id}"),
        "CLIENT KILL TYPE normal SKIPME no".to_owned(),
        "CLIENT KILL USER default".to_owned(),
    ] {
        assert_eq!(client.line("MULTI"), Reply::ok());
        let refused = client.line(&kill);
        assert!(refused.is_own_error(), "{refused:?}");
        assert_eq!(client.line("INCR n"), Reply::Simple("QUEUED".to_owned()));
        assert!(client.line("EXEC").error().starts_with("EXECABORT"));
    }
    assert_eq!(other.line("GET n"), Reply::NullBulk);
    let after = redis.proxy_connections();
    assert!(
        before.iter().all(|one| after.contains(one)),
        "{before:?} {after:?}"
    );
    // Outside it is as ever.
    assert_eq!(client.line(&format!("CLIENT KILL ID {id}")), Reply::Int(1));
}
