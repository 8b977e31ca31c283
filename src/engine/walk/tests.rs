//! A walk over a million entries, step by step, with another client beside it.
#![forbid(unsafe_code)]

use super::*;
use crate::cache::{NewContent, Put};
use crate::config::Config;
use crate::engine::{Origin, Output, Port, Work};
use crate::time::Time;
use std::io::IoSlice;
use std::net::SocketAddr;

const START: Time = Time::from_millis(1);
const LATER: Time = Time::from_millis(3_600_000);

struct Bench {
    engine: Engine,
}

impl Bench {
    fn new() -> Bench {
        let config = Config {
            cache_capacity: 2_000_000,
            cache_max_bytes: 1 << 30,
            ..Config::default()
        };
        let origin = Origin {
            seed: [1; 4],
            now: START,
            unix_secs: 0,
            pid: 1,
            host: "here",
        };
        let engine = Engine::new(config, origin);
        Bench { engine }
    }

    fn put(&mut self, key: &str) {
        let put = Put {
            db: 0,
            key: key.as_bytes(),
            hash: self.engine.hasher.hash(key.as_bytes()),
            content: NewContent::Value(b"v"),
            stored_at: START,
            deadline: LATER,
            tag: 0,
            ping: 0,
        };
        assert!(self.engine.cache.put(put, START).kept);
    }

    fn holds(&self, key: &str) -> bool {
        let hash = self.engine.hasher.hash(key.as_bytes());
        let found = self.engine.cache.peek(0, key.as_bytes(), hash, START);
        found.is_some()
    }

    fn open(&mut self, port: Port) -> ConnId {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        self.engine.open(port, peer).expect("there is room")
    }

    /// The client sends this; what it has got since.
    fn say(&mut self, client: ConnId, bytes: &[u8]) -> String {
        let room = self.engine.recv_slice(client);
        room[..bytes.len()].copy_from_slice(bytes);
        self.engine.received(client, bytes.len());
        self.heard(client)
    }

    fn heard(&mut self, client: ConnId) -> String {
        while let Some(output) = self.engine.poll_output() {
            if let Output::Ready(id) = output {
                self.engine.serve(id);
            }
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = self.engine.send_slices(client, &mut slices);
        let parts = slices[..filled].iter();
        let bytes: Vec<u8> = parts.flat_map(|slice| slice.to_vec()).collect();
        self.engine.sent(client, bytes.len());
        String::from_utf8(bytes).expect("what is said here is text")
    }
}

#[test]
fn others_are_served_between_the_steps_of_a_walk_over_a_million_entries() {
    const ENTRIES: usize = 1_000_000;
    let mut bench = Bench::new();
    for n in 0..ENTRIES {
        let beginning = if n % 4 == 0 { "old" } else { "new" };
        bench.put(&format!("{beginning}:{n}"));
    }
    let (asks, other) = (bench.open(Port::Resp), bench.open(Port::Resp));
    let order = b"*4\r\n$9\r\nNEARCACHE\r\n$5\r\nFLUSH\r\n$6\r\nPREFIX\r\n$4\r\nold:\r\n\
                  *1\r\n$4\r\nPING\r\n";
    assert_eq!(
        bench.say(asks, order),
        "",
        "nothing before the end, and nothing behind it"
    );
    let mut steps = 0;
    loop {
        let before = bench.engine.cache.len();
        let work = bench.engine.advance(1024);
        steps += 1;
        assert!(before - bench.engine.cache.len() <= 4 * BUCKETS_PER_STEP);
        assert_eq!(bench.say(other, b"*1\r\n$4\r\nPING\r\n"), "+PONG\r\n");
        // What comes and goes meanwhile moves others, and adds buckets.
        for n in 0..100 {
            bench.put(&format!("more:{steps}:{n}"));
            let hash = bench
                .engine
                .hasher
                .hash(format!("new:{}", steps * 8 + n % 8).as_bytes());
            bench.engine.cache.remove_name(hash);
        }
        if work == Work::Finished {
            break;
        }
        assert!(steps < ENTRIES);
    }
    assert!(steps > 100, "{steps} steps");
    let told = bench.heard(asks);
    assert_eq!(told, format!(":{}\r\n+PONG\r\n", ENTRIES / 4));
    assert!(
        (0..ENTRIES)
            .step_by(4)
            .all(|n| !bench.holds(&format!("old:{n}")))
    );
    assert!(bench.holds(&format!("new:{}", ENTRIES - 1)));
    bench.engine.check();
}

#[test]
fn walks_take_turns_and_end_without_their_clients() {
    let mut bench = Bench::new();
    for n in 0..3 * BUCKETS_PER_STEP {
        bench.put(&format!("a:{n}"));
        bench.put(&format!("b:{n}"));
    }
    let (one, http) = (bench.open(Port::Resp), bench.open(Port::Admin));
    bench.say(one, b"NEARCACHE FLUSH PREFIX a:\r\n");
    let post = b"POST /flush?prefix=b: HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(bench.say(http, post), "");
    bench.engine.failed(one, "gone");
    while bench.engine.advance(1024) == Work::Left {}
    assert_eq!(bench.engine.cache.len(), 0);
    let page = bench.heard(http);
    let expected = format!("dropped {} entries\n", 3 * BUCKETS_PER_STEP);
    assert!(page.ends_with(&expected), "{page}");
}
