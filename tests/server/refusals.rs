//! What is refused: broken bytes as Redis refuses them, and commands that need a connection of their own.

use crate::oracle::Oracle;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode, encode_line};

#[test]
fn broken_bytes_get_the_error_of_redis_and_the_connection_is_closed() {
    let oracle = Oracle::start();
    let inputs: [&[u8]; 27] = [
        b"*abc\r\n",
        b"*\r\n",
        b"*1x\r\n",
        b"* 1\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"*2147483648\r\n",
        b"*9223372036854775808\r\n",
        b"*99999999999999999999999\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n*1\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-2\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$4 \r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$9223372036854775808\r\n",
        b"*1\r\n\r\nPING\r\n",
        b"SET k \"unbalanced\r\n",
        b"SET k 'unbalanced\r\n",
        b"SET k \"closed\"directly\r\n",
        b"GET 'a'b\r\n",
    ];
    for input in inputs {
        oracle.assert_same_and_closed("alone", input);
        let behind = [
            encode_line("SET k v"),
            encode_line("GET k"),
            b"PING\r\n".to_vec(),
            input.to_vec(),
        ]
        .concat();
        oracle.assert_same_and_closed("behind good commands", &behind);
    }
    oracle.assert_same("others go on", &encode_line("GET k"));
}

#[test]
fn lines_without_an_end_are_refused_at_the_length_where_redis_refuses_them() {
    const LINE_BYTES_MAX: usize = 64 * 1024;
    let oracle = Oracle::start();
    let endless =
        |prefix: &[u8]| [prefix, &b"1".repeat(LINE_BYTES_MAX + 1 - prefix.len())].concat();
    oracle.assert_same_and_closed("inline", &endless(b""));
    oracle.assert_same_and_closed("array length", &endless(b"*"));
    oracle.assert_same_and_closed(
        "bulk length",
        &[b"*1\r\n".as_slice(), &endless(b"$")].concat(),
    );
}

#[test]
fn a_web_page_that_sends_http_to_the_resp_port_makes_redis_execute_nothing() {
    // As Redis does, against browsers that are made to post commands: the connection ends at POST or Host, silently.
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for (input, said) in [
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n", ""),
        ("host: localhost\r\nSET k v\r\n", ""),
        ("PING\r\nPOST / HTTP/1.1\r\n\r\nSET k v\r\n", "+PONG\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nSET k v\r\n\r\n",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
    ] {
        let mut client = proxy.resp();
        client.send(input.as_bytes());
        let got = client.bytes_until_closed();
        // Redis drops what it still owes; here it is sent.
        assert_eq!(String::from_utf8_lossy(&got), said, "{input}");
    }
    assert_eq!(redis.call(&["EXISTS", "k"]), Reply::Int(0));
}

#[test]
fn an_array_that_redis_takes_though_it_is_not_canonical_harms_no_other_client() {
    // Redis never looks at the two bytes behind a bulk string. Passed on as they are, such bytes could desynchronise a
    // connection that others use.
    let oracle = Oracle::start();
    let (mut bystander, _) = oracle.clients();
    for input in [
        b"*2\r\n$3\r\nTTLxx$1\r\nkxx".as_slice(),
        b"*3\r\n$3\r\nSETxx$1\r\nk*1$1\r\nw\r\n",
        b"*2\r\n$3\r\nGET$$$1\r\nk::",
        b"*1\r\n$4\r\nPING\n\n",
    ] {
        oracle.assert_same("not canonical", input);
        assert!(matches!(bystander.line("INCR n"), Reply::Int(_)));
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_command_harms_no_other() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut bystander = proxy.resp();
    let whole = encode_line("SET k half-a-command");
    for cut in 0..whole.len() {
        let mut client = proxy.resp();
        client.send(&whole[..cut]);
        drop(client);
        assert_eq!(bystander.line("INCR n"), Reply::Int(cut as i64 + 1));
    }
    assert_eq!(redis.call(&["EXISTS", "k"]), Reply::Int(0));
}

#[test]
fn a_refused_command_in_a_pipeline_disturbs_no_neighbour() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    client.send(
        &[
            encode_line("SET k v"),
            encode_line("CLIENT MAINT_NOTIFICATIONS ON"),
            encode_line("GET k"),
            encode_line("CLIENT MAINT_NOTIFICATIONS OFF"),
            encode_line("INCR n"),
        ]
        .concat(),
    );
    let replies = client.replies(5);
    assert_eq!(replies[0], Reply::ok());
    for refused in [&replies[1], &replies[3]] {
        assert!(
            refused.error().contains("unknown subcommand"),
            "{refused:?}"
        );
    }
    assert_eq!(replies[2], Reply::bulk("v"));
    assert_eq!(replies[4], Reply::Int(1));
}

#[test]
fn an_unknown_command_gets_the_reply_of_redis_and_harms_no_other_client() {
    let oracle = Oracle::start();
    let (mut bystander, _) = oracle.clients();
    let long = "x".repeat(300);
    for command in [
        encode(&["NOSUCH"]),
        encode(&["nosuch", "a", "b"]),
        encode(&["NoSuch", &long, &long]),
        encode(&[long.as_str()]),
        encode(&[b"\r\n\0".as_slice(), b"arg\r\n"]),
        encode(&[""]),
    ] {
        oracle.assert_same("unknown", &command);
        assert!(matches!(bystander.line("INCR n"), Reply::Int(_)));
    }
}

#[test]
fn a_subcommand_that_redis_does_not_know_empties_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().start_tracking();
    let mut client = proxy.resp();
    redis.call(&["SET", "k", "v"]);
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    for line in ["OBJECT FOO k", "MEMORY FOO", "XINFO FOO", "FUNCTION FOO"] {
        let error = client.line(line).error().to_lowercase();
        assert!(error.starts_with("err unknown subcommand"), "{error}");
        assert_eq!(client.line("GET k"), Reply::bulk("v"));
    }
    assert_eq!(redis.calls_of("get"), 1);
}
