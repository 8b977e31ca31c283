//! Conversations of several connections, the same with Redis itself and through the proxy: every reply must be the same.
//!
//! A script is a list of lines, each beginning with the name of a connection, which is made when it is first named:
//!
//! | line | does |
//! |---|---|
//! | `a GET k` | sends the command and compares the reply |
//! | `a> GET k` | sends it and waits for nothing |
//! | `a< 2` | compares the next two replies |
//! | `a !` | hangs up |
//! | `a $` | is closed by the other side |
//! | `= 2` | waits until Redis says that two clients are blocked |
//! | `* 3` | waits until Redis has three connections that are subscribed |

use crate::oracle::Oracle;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode_line};
use crate::support::{PATIENCE, eventually};
use std::collections::BTreeMap;

/// Runs the script on both sides, step by step.
#[track_caller]
pub fn assert_same_script(oracle: &Oracle, script: &[&str]) {
    // The connections of an earlier script may still be on their way out.
    for redis in [&oracle.truth, &oracle.redis] {
        eventually("nobody is subscribed or blocked", PATIENCE, || {
            count(redis, "*") == 0 && count(redis, "=") == 0
        });
    }
    let mut ours = BTreeMap::new();
    let mut theirs = BTreeMap::new();
    for line in script {
        let expected = step(&mut theirs, || oracle.truth.client(), &oracle.truth, line);
        let got = step(&mut ours, || oracle.proxy.resp(), &oracle.redis, line);
        assert_eq!(got, expected, "at {line:?} of {script:#?}");
    }
}

fn step(
    connections: &mut BTreeMap<String, RespClient>,
    connect: impl Fn() -> RespClient,
    redis: &RedisServer,
    line: &str,
) -> Vec<Reply> {
    let (name, rest) = line.split_once(' ').expect("a line has a name and more");
    if let "=" | "*" = name {
        let wanted: usize = rest.parse().expect("a number of clients");
        eventually(line, PATIENCE, || count(redis, name) == wanted);
        return Vec::new();
    }
    let (name, mode) = match name.strip_suffix(['>', '<']) {
        Some(bare) => (bare, &name[bare.len()..]),
        None => (name, ""),
    };
    if rest == "!" {
        connections.remove(name);
        return Vec::new();
    }
    let client = connections.entry(name.to_owned()).or_insert_with(connect);
    match (mode, rest) {
        (">", _) => {
            client.send(&encode_line(rest));
            Vec::new()
        }
        ("<", n) => client.replies(n.parse().expect("a number of replies")),
        (_, "$") => {
            assert_eq!(client.bytes_until_closed(), b"", "at {line}");
            Vec::new()
        }
        _ => {
            let reply = client.line(rest);
            // An id is the connection's own, which differs.
            vec![without_id(reply)]
        }
    }
}

fn count(redis: &RedisServer, what: &str) -> usize {
    let text = redis.call(&["CLIENT", "LIST"]).text();
    let is_meant = |line: &&str| match what {
        "=" => line.contains(" flags=b"),
        _ => !(line.contains(" sub=0 ") && line.contains(" psub=0 ") && !line.contains(" ssub=1")),
    };
    text.lines().filter(is_meant).count()
}

/// The reply to HELLO with the id left out.
fn without_id(reply: Reply) -> Reply {
    let (Reply::Map(mut items) | Reply::Array(mut items)) = reply.clone() else {
        return reply;
    };
    let at = items.iter().position(|item| *item == Reply::bulk("id"));
    match at {
        Some(at) if items.contains(&Reply::bulk("proto")) => {
            items.drain(at..at + 2);
            Reply::Array(items)
        }
        _ => reply,
    }
}
