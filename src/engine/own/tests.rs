//! Links that are answered by hand, in parts and at moments that no real Redis can be brought to.
#![forbid(unsafe_code)]

use super::*;
use crate::config::{Config, UpstreamLost};
use crate::engine::{Origin, Output, Port, Work};
use crate::link::State as LinkState;
use crate::protocol::resp::write;
use crate::time::Time;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

/// An engine, what it has sent to whom, and whose connection it has closed.
struct Bench {
    engine: Engine,
    sent: BTreeMap<ConnId, Vec<u8>>,
    closed: Vec<ConnId>,
}

impl Bench {
    /// Redis 7 is there and tracks.
    fn new(config: Config) -> Bench {
        let origin = Origin {
            seed: [1; 4],
            now: Time::from_millis(1),
            unix_secs: 0,
            pid: 1,
            host: "here",
        };
        let mut bench = Bench {
            engine: Engine::new(config, origin),
            sent: BTreeMap::new(),
            closed: Vec::new(),
        };
        let control = bench.newest(|role| role == Role::Control);
        bench.greet(control);
        bench
    }

    fn client(&mut self) -> ConnId {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        self.engine.open(Port::Resp, peer).expect("there is room")
    }

    fn newest(&self, is_it: impl Fn(Role) -> bool) -> ConnId {
        let links = self.engine.links.iter().map(|(_, link)| link);
        let found = links.filter(|link| is_it(link.role)).last();
        found.expect("there is such a link").id
    }

    /// What the client's port or the link's socket brings.
    fn receive(&mut self, id: ConnId, bytes: &[u8]) {
        for chunk in bytes.chunks(super::super::READ_BYTES) {
            let room = self.engine.recv_slice(id);
            if room.is_empty() {
                return;
            }
            room[..chunk.len()].copy_from_slice(chunk);
            self.engine.received(id, chunk.len());
            self.settle();
        }
        self.engine.check();
    }

    /// What the driver does.
    fn settle(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Connect(id) => self.engine.connected(id, Ok(())),
                Output::Ready(id) => self.engine.serve(id),
                Output::Close(id) => self.closed.push(id),
                Output::Flush(id) => self.flush(id),
                _ => {}
            }
        }
    }

    fn flush(&mut self, id: ConnId) {
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = self.engine.send_slices(id, &mut slices);
            let bytes: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            if bytes.is_empty() {
                return;
            }
            self.engine.sent(id, bytes.len());
            self.sent.entry(id).or_default().extend(bytes);
        }
    }

    /// Answers all that the proxy itself has asked on the link.
    fn greet(&mut self, link: ConnId) {
        self.settle();
        loop {
            let ix = self.engine.link_index(link).expect("it is there");
            let owed = self.engine.links[ix].owed.front();
            let Some(owed) = owed.filter(|owed| owed.to.is_none()) else {
                let state = self.engine.links[ix].state;
                return assert_eq!(state, LinkState::Up);
            };
            let reply: &[u8] = match owed.purpose {
                Purpose::Server => b"$20\r\nredis_version:7.0.15\r\n",
                Purpose::Replication => b"$0\r\n\r\n",
                Purpose::CommandTable => b"-ERR nobody knows\r\n",
                Purpose::Resp3 => b"%0\r\n",
                Purpose::Heartbeat => b"+PONG\r\n",
                Purpose::Identity => b":77\r\n",
                _ => b"+OK\r\n",
            };
            self.receive(link, reply);
        }
    }

    /// Seconds pass, while Redis answers a PING on the control link so.
    fn pass(&mut self, secs: u64, pong: &[u8]) {
        for _ in 0..secs * 4 {
            let now = self.engine.now + Duration::from_millis(250);
            self.engine.begin_turn(now, 0);
            while self.engine.advance(1000) == Work::Left {}
            self.settle();
            self.answer_control(pong);
            self.engine.check();
        }
    }

    /// All that is asked on the control link, unless Redis says nothing.
    fn answer_control(&mut self, pong: &[u8]) {
        while let Some(link) = self.engine.upstream.control() {
            let ix = self.engine.link_index(link).expect("it is there");
            let Some(owed) = self.engine.links[ix].owed.front() else {
                return;
            };
            let reply = match owed.purpose {
                Purpose::Heartbeat => pong,
                _ if pong.is_empty() => return,
                _ if pong.starts_with(b"-") => pong,
                Purpose::Server => b"$20\r\nredis_version:7.0.15\r\n",
                Purpose::Replication => b"$0\r\n\r\n",
                Purpose::CommandTable => b"-ERR nobody knows\r\n",
                Purpose::Resp3 => b"%0\r\n",
                _ => b"+OK\r\n",
            };
            if reply.is_empty() {
                return;
            }
            self.receive(link, reply);
            self.settle();
            if !self.engine.links.contains(ix) || pong.starts_with(b"-") {
                return;
            }
        }
    }

    /// The client sends this line, cut at spaces.
    fn say(&mut self, client: ConnId, line: &str) {
        let frame = frame(line);
        self.receive(client, &frame);
    }

    /// The same of a client that has an own link then, which answers so.
    fn call(&mut self, client: ConnId, line: &str, reply: &[u8]) {
        self.say(client, line);
        let link = self.own_link(client);
        self.greet(link);
        self.receive(link, reply);
    }

    fn own_link(&self, client: ConnId) -> ConnId {
        self.of(client).own.expect("it has one")
    }

    fn of(&self, client: ConnId) -> &crate::client::Client {
        let ix = self.engine.client_index(client).expect("it is there");
        &self.engine.clients[ix]
    }

    /// What was sent since this was asked last.
    fn take(&mut self, id: ConnId) -> String {
        let bytes = self.sent.remove(&id).unwrap_or_default();
        String::from_utf8(bytes).expect("these tests send text")
    }
}

fn frame(line: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    write::command(&mut frame, words);
    frame
}

/// A message of so many bytes, as the client's version has it.
fn message(kind: char, bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes);
    format!("{kind}3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${bytes}\r\n{text}\r\n").into_bytes()
}

const SUBSCRIBED: &str = "3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
const OK: &[u8] = b"+OK\r\n";
const QUEUED: &[u8] = b"+QUEUED\r\n";

#[test]
fn a_message_that_flows_may_find_its_client_gone() {
    let mut bench = Bench::new(Config {
        outbox_max_bytes: 64 << 10,
        ..Config::default()
    });
    let client = bench.client();
    bench.call(client, "SUBSCRIBE c", format!("*{SUBSCRIBED}").as_bytes());
    let link = bench.own_link(client);
    // Held for a barrier; no PONG comes. Letting it go for the sake of the next is more than the client may be owed.
    bench.receive(link, &message('*', 100 << 10));
    assert!(bench.closed.is_empty());
    bench.receive(link, &message('*', 2 << 20)[..1100 << 10]);
    assert_eq!(bench.closed, [link, client]);
    bench.engine.check();
}

#[test]
fn nothing_of_ours_gets_into_a_message_that_is_passed_in_parts() {
    for (line, reply) in [
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand"),
        ("CLIENT TRACKING ON REDIRECT 2", "-ERR nearcache: "),
        ("RESET", "+RESET\r\n"),
        ("QUIT", "+OK\r\n"),
    ] {
        let mut bench = Bench::new(Config {
            event_barrier: false,
            ..Config::default()
        });
        let (client, busy) = (bench.client(), bench.client());
        bench.say(client, "HELLO 3");
        bench.call(client, "SUBSCRIBE c", format!(">{SUBSCRIBED}").as_bytes());
        bench.say(busy, "SET k v");
        bench.take(client);
        let link = bench.own_link(client);
        let message = message('>', 1000);
        let (first, rest) = message.split_at(500);
        bench.receive(link, first);
        bench.say(client, line);
        assert_eq!(bench.take(client).as_bytes(), first, "{line}");
        bench.receive(link, rest);
        if line == "QUIT" {
            // Redis hears of it first.
            bench.receive(link, OK);
        }
        let got = bench.take(client);
        let behind = got.as_bytes().strip_prefix(rest);
        assert!(
            behind.is_some_and(|behind| behind.starts_with(reply.as_bytes())),
            "{line}: {got}"
        );
    }
}

#[test]
fn the_reply_to_exec_is_looked_into_once_though_it_is_too_long_to_be_held() {
    let mut bench = Bench::new(Config::default());
    let client = bench.client();
    bench.call(client, "MULTI", OK);
    for line in ["EVAL x 0", "LRANGE k 0 -1", "SELECT 3"] {
        bench.call(client, line, QUEUED);
    }
    let text = "x".repeat(2 << 20);
    let reply = format!("*3\r\n:1\r\n*1\r\n${}\r\n{text}\r\n+OK\r\n", text.len());
    bench.call(client, "EXEC", reply.as_bytes());
    assert_eq!(bench.of(client).db, 3);
    assert!(bench.of(client).own.is_none(), "it was given back");
    let pool = bench.engine.own_links.idle.keys().next().copied();
    assert_eq!(pool.map(|pool| pool.db), Some(3));
    assert!(bench.take(client).ends_with(&reply));
}

#[test]
fn an_exec_that_ends_nothing_is_known_though_it_comes_in_parts() {
    let mut bench = Bench::new(Config::default());
    let client = bench.client();
    bench.call(client, "WATCH k", OK);
    bench.say(client, "EXEC");
    let link = bench.own_link(client);
    for part in [&b"-ERR EXEC"[..], b" without MULTI\r\n"] {
        bench.receive(link, part);
    }
    assert!(bench.of(client).own.is_some(), "k is still watched");
    assert_eq!(bench.take(client), "+OK\r\n-ERR EXEC without MULTI\r\n");
}

#[test]
fn a_transaction_in_one_piece_that_does_not_end_ends_its_link() {
    for (inside, is_held) in [("SET k v", false), ("EVAL x 0", true)] {
        let mut bench = Bench::new(Config::default());
        let client = bench.client();
        let unit = [frame("MULTI"), frame(inside), frame("EXEC")].concat();
        bench.receive(client, &unit);
        let link = bench.newest(|role| matches!(role, Role::Shared(_)));
        bench.greet(link);
        bench.receive(link, b"+OK\r\n+QUEUED\r\n");
        assert_eq!(bench.take(client), "+OK\r\n+QUEUED\r\n");
        bench.receive(link, b"-ERR o");
        assert!(bench.closed.is_empty());
        bench.receive(link, b"dd\r\n");
        assert_eq!(bench.closed, [link], "{inside}");
        if is_held {
            assert_eq!(bench.take(client), "");
            let control = bench.newest(|role| role == Role::Control);
            bench.greet(control);
        }
        assert_eq!(bench.take(client), "-ERR odd\r\n", "{inside}");
    }
}

#[test]
fn the_answer_to_an_auth_is_not_that_of_a_hello_that_was_lost() {
    let mut bench = Bench::new(Config {
        upstream_lost: UpstreamLost::Error,
        ..Config::default()
    });
    let client = bench.client();
    let one_shot = |role| matches!(role, Role::OneShot(_));
    bench.say(client, "HELLO 3 AUTH default x");
    let link = bench.newest(one_shot);
    bench.engine.failed(link, "reset");
    bench.settle();
    assert!(bench.take(client).starts_with("-ERR nearcache: "));
    bench.say(client, "AUTH default y");
    let link = bench.newest(one_shot);
    bench.greet(link);
    bench.receive(link, OK);
    assert_eq!(bench.take(client), "+OK\r\n");
}

#[test]
fn words_end_at_the_first_nul_as_in_redis() {
    let mut bench = Bench::new(Config::default());
    let (tracks, alice) = (bench.client(), bench.client());
    bench.call(tracks, "CLIENT TRACKING on\0", OK);
    assert!(bench.of(tracks).own.is_some(), "it has state");
    bench.call(alice, "WATCH k", OK);
    bench.call(alice, "HELLO 2 AUTH\0 alice pw SETNAME\0x me", b"*0\r\n");
    bench.call(alice, "UNWATCH", OK);
    assert!(bench.of(alice).own.is_some(), "it is somebody else there");
    assert_eq!(bench.of(alice).name(), Some(&b"me"[..]));
}

#[test]
fn what_a_client_calls_itself_is_bounded_wherever_it_says_so() {
    let mut bench = Bench::new(Config::default());
    let client = bench.client();
    let long = "x".repeat(5000);
    bench.call(client, "WATCH k", OK);
    bench.take(client);
    bench.say(client, &format!("HELLO 2 SETNAME {long}"));
    assert!(bench.take(client).starts_with("-ERR nearcache: "));
    // Inside a transaction Redis alone can refuse: from EXEC on nothing of the connection is known any more.
    bench.call(client, "MULTI", OK);
    bench.call(client, &format!("CLIENT SETNAME {long}"), QUEUED);
    bench.call(client, "EXEC", b"*1\r\n+OK\r\n");
    assert_eq!(bench.take(client), "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    let link = bench.own_link(client);
    let ix = bench.engine.link_index(link).expect("it is there");
    assert!(bench.engine.own_of(ix).tunnel.is_some());
    assert!(bench.of(client).name().is_none());
}

#[test]
fn a_multi_that_redis_refuses_leaves_nothing_behind() {
    let mut bench = Bench::new(Config::default());
    let client = bench.client();
    bench.call(client, "WATCH k", OK);
    bench.call(client, "MULTI x", b"-ERR wrong number of arguments\r\n");
    bench.call(client, "MULTI", b"-NOPERM no\r\n");
    bench.take(client);
    bench.say(client, "CLIENT ID");
    assert_eq!(bench.take(client), ":1\r\n");
}

const PONG: &[u8] = b"+PONG\r\n";
const SCRIPT_RUNS: &[u8] = b"-BUSY Redis is busy running a script.\r\n";
const LOADING: &[u8] = b"-LOADING Redis is loading the dataset in memory\r\n";
/// More than twice `LINK_DEAD_MS`, which a link is looked at once in.
const LONG_SECS: u64 = 40;

/// A client that has asked for this, after what is said before, and the link it went on.
fn asking(bench: &mut Bench, before: &[(&str, &[u8])], line: &str) -> (ConnId, ConnId) {
    let client = bench.client();
    for (line, reply) in before {
        bench.call(client, line, reply);
    }
    bench.say(client, line);
    let link = match before {
        [] => bench.newest(|role| role != Role::Control),
        _ => bench.own_link(client),
    };
    bench.greet(link);
    bench.take(client);
    (client, link)
}

#[test]
fn a_link_waits_for_its_script_while_redis_says_that_it_is_busy() {
    for before in [&[][..], &[("WATCH k", OK)]] {
        for line in ["EVAL x 0", "FCALL f 0", "DEBUG RELOAD", "SET k v"] {
            for busy in [SCRIPT_RUNS, LOADING] {
                let mut bench = Bench::new(Config::default());
                let (client, link) = asking(&mut bench, before, line);
                bench.pass(4, b"");
                bench.pass(LONG_SECS, busy);
                assert!(!bench.closed.contains(&link), "{line}");
                bench.receive(link, b":1\r\n");
                bench.pass(2, PONG);
                assert_eq!(bench.take(client), ":1\r\n", "{line}");
            }
        }
    }
}

#[test]
fn a_link_that_is_silent_while_redis_answers_others_is_dead() {
    for before in [&[][..], &[("WATCH k", OK)]] {
        for line in ["EVAL x 0", "FCALL f 0", "SET k v"] {
            for was_busy in [false, true] {
                let mut bench = Bench::new(Config::default());
                let (client, link) = asking(&mut bench, before, line);
                if was_busy {
                    bench.pass(LONG_SECS, SCRIPT_RUNS);
                }
                bench.pass(14, PONG);
                assert!(!bench.closed.contains(&link), "{line}");
                bench.pass(LONG_SECS - 14, PONG);
                assert_eq!(bench.closed.last(), Some(&client), "{line}");
                assert!(bench.closed.contains(&link), "{line}");
            }
        }
    }
}

#[test]
fn where_redis_answers_nobody_every_link_is_dead() {
    let mut bench = Bench::new(Config::default());
    let control = bench.newest(|role| role == Role::Control);
    let (client, link) = asking(&mut bench, &[], "EVAL x 0");
    bench.pass(LONG_SECS, b"");
    for gone in [control, link, client] {
        assert!(bench.closed.contains(&gone));
    }
}

#[test]
fn no_time_passes_for_a_link_while_clients_are_paused() {
    for (pause, control_says) in [
        ("CLIENT PAUSE 40000", &b""[..]),
        ("CLIENT PAUSE 40000 WRITE", PONG),
    ] {
        for unpause in [false, true] {
            let mut bench = Bench::new(Config::default());
            let control = bench.newest(|role| role == Role::Control);
            let operator = bench.client();
            bench.say(operator, pause);
            let urgent = bench.newest(|role| matches!(role, Role::OneShot(_)));
            bench.greet(urgent);
            bench.receive(urgent, OK);
            let (client, link) = asking(&mut bench, &[], "SET k v");
            bench.pass(LONG_SECS - 1, control_says);
            if unpause {
                bench.say(operator, "CLIENT UNPAUSE");
            }
            bench.pass(14, control_says);
            assert!(!bench.closed.contains(&link) && !bench.closed.contains(&control));
            bench.pass(LONG_SECS, control_says);
            assert!(bench.closed.contains(&link) && bench.closed.contains(&client));
            assert_eq!(bench.closed.contains(&control), control_says.is_empty());
        }
    }
}

#[test]
fn a_link_on_which_somebody_has_said_goodbye_is_nobody_elses_afterwards() {
    let mut bench = Bench::new(Config {
        event_barrier: false,
        ..Config::default()
    });
    let client = bench.client();
    // When QUIT is answered nothing of the client's state is left, and Redis is about to close.
    bench.receive(client, &[frame("BLPOP l 1"), frame("QUIT")].concat());
    let link = bench.own_link(client);
    bench.greet(link);
    bench.receive(link, b"*-1\r\n");
    bench.receive(link, OK);
    bench.engine.advance(1000);
    bench.settle();
    assert_eq!(bench.take(client), "*-1\r\n+OK\r\n");
    assert!(bench.closed.contains(&link));
    assert!(bench.engine.own_links.idle.values().all(Vec::is_empty));
}

#[test]
fn slow_is_the_command_that_redis_was_long_about_and_not_those_behind_it() {
    let mut bench = Bench::new(Config::default());
    let client = bench.client();
    bench.say(client, "CLIENT SETNAME bulk");
    for line in ["SET a 1", "INCR b", "SET c 1"] {
        bench.say(client, line);
    }
    let link = bench.newest(|role| matches!(role, Role::Shared(_)));
    bench.greet(link);
    let slow = bench.engine.config.slow_relay;
    let mut now = bench.engine.now;
    // The second takes long, the third is answered with it.
    for (pause, replies) in [(slow / 2, "+OK\r\n"), (slow, ":1\r\n+OK\r\n")] {
        now = now + pause;
        bench.engine.begin_turn(now, 7);
        bench.receive(link, replies.as_bytes());
    }
    let told: Vec<_> = bench.engine.insight.slow.iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].command.as_str(), told[0].took), ("incr", slow));
    assert_eq!(&*told[0].name, b"bulk");
    // What its clients have waited for each of them counts all the same.
    let relay = &bench.engine.insight.relay;
    assert_eq!((relay.count(), relay.max()), (3, slow / 2 + slow));
    // The same on a link of its own; what waits there for others is as long as it likes.
    bench.call(client, "WATCH a", OK);
    let own = bench.own_link(client);
    for (line, reply) in [("SET d 1", "+OK\r\n"), ("BLPOP l 0", "*-1\r\n")] {
        bench.say(client, line);
        now = now + slow;
        bench.engine.begin_turn(now, 8);
        bench.receive(own, reply.as_bytes());
    }
    // Of those that come together a script is suspected first.
    let other = bench.client();
    for line in ["SET a 1", "EVAL s 0", "SET c 1"] {
        bench.say(other, line);
    }
    let link = bench.newest(|role| matches!(role, Role::Shared(_)));
    bench.greet(link);
    bench.engine.begin_turn(now + slow, 9);
    bench.receive(link, b"+OK\r\n:1\r\n+OK\r\n");
    let slow = bench.engine.insight.slow.iter();
    let told: Vec<_> = slow.map(|s| (s.number, s.command.as_str())).collect();
    assert_eq!(told, [(0, "incr"), (1, "set"), (2, "eval")]);
}
