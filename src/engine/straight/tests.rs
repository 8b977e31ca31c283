//! The straight way beside the general one: same bytes, less said.
#![forbid(unsafe_code)]

use super::super::Origin;
use super::*;
use crate::cache::{NewContent, Put};
use crate::config::Config;
use crate::engine::Port;
use crate::time::Time;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// An engine that keeps `k1` and `k2`, as if Redis were there.
fn engine() -> Engine {
    engine_of(Config::default())
}

fn engine_of(config: Config) -> Engine {
    let now = Time::from_millis(1);
    let origin = Origin {
        seed: [1; 4],
        now,
        unix_secs: 0,
        pid: 1,
        host: "here",
    };
    let mut engine = Engine::new(config, origin);
    engine.hits_until = now + Duration::from_secs(60);
    for (key, value) in [(b"k1", &b"one"[..]), (b"k2", b"two")] {
        let put = Put {
            db: 0,
            key,
            hash: engine.hasher.hash(key),
            content: NewContent::Value(value),
            stored_at: now,
            deadline: now + Duration::from_secs(60),
            tag: 0,
            ping: 0,
        };
        assert!(engine.cache.put(put, now).kept);
    }
    while engine.poll_output().is_some() {}
    engine
}

fn read(engine: &mut Engine, id: ConnId, bytes: &[u8]) -> Option<Vec<u8>> {
    engine.recv_slice(id)[..bytes.len()].copy_from_slice(bytes);
    match engine.received_at_once(id, bytes.len()) {
        AtOnce::Replies(replies) => Some(replies.to_vec()),
        AtOnce::Outputs => None,
    }
}

/// What the engine wants sent the general way, if it said so.
fn flushed(engine: &mut Engine, id: ConnId) -> Option<Vec<u8>> {
    let mut said = false;
    while let Some(output) = engine.poll_output() {
        said |= output == Output::Flush(id);
    }
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = engine.send_slices(id, &mut slices);
    said.then(|| {
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    })
}

const GET_K1: &[u8] = b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n";
const GET_K2: &[u8] = b"*2\r\n$3\r\nget\r\n$2\r\nk2\r\n";

#[test]
fn hits_are_answered_at_once_and_in_order() {
    let mut engine = engine();
    let id = engine.open(Port::Resp, peer()).unwrap();
    let replies = read(&mut engine, id, &[GET_K1, GET_K2, GET_K1].concat());
    let expected = b"$3\r\none\r\n$3\r\ntwo\r\n$3\r\none\r\n";
    assert_eq!(replies.as_deref(), Some(&expected[..]));
    engine.sent_at_once(id, expected.len());
    assert_eq!(flushed(&mut engine, id), None);
    engine.check();
}

#[test]
fn what_the_socket_does_not_take_is_sent_the_general_way() {
    let mut engine = engine();
    let id = engine.open(Port::Resp, peer()).unwrap();
    assert!(read(&mut engine, id, &[GET_K1, GET_K2].concat()).is_some());
    engine.sent_at_once(id, 4);
    assert_eq!(flushed(&mut engine, id).unwrap(), b"one\r\n$3\r\ntwo\r\n");
    // What comes before that was sent waits its turn.
    assert_eq!(read(&mut engine, id, GET_K1), None);
    engine.sent(id, 5);
    assert_eq!(
        flushed(&mut engine, id),
        None,
        "said once until it is empty"
    );
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(engine.send_slices(id, &mut slices), 1);
    assert_eq!(&*slices[0], b"$3\r\ntwo\r\n$3\r\none\r\n");
    engine.sent(id, 18);
    assert!(read(&mut engine, id, GET_K2).is_some(), "at rest again");
}

#[test]
fn behind_the_first_that_is_no_hit_everything_goes_the_general_way() {
    let mut engine = engine();
    let id = engine.open(Port::Resp, peer()).unwrap();
    assert_eq!(
        read(&mut engine, id, &[GET_K1, b"PING\r\n", GET_K2].concat()),
        None
    );
    let expected = b"$3\r\none\r\n+PONG\r\n$3\r\ntwo\r\n";
    assert_eq!(flushed(&mut engine, id).unwrap(), expected);
    engine.sent(id, expected.len());
    // A part of a request is kept, and what follows it is not taken for a beginning.
    assert_eq!(
        read(&mut engine, id, &[GET_K1, &GET_K2[..9]].concat()),
        None
    );
    assert_eq!(flushed(&mut engine, id).unwrap(), b"$3\r\none\r\n");
    engine.sent(id, 9);
    assert_eq!(read(&mut engine, id, &GET_K2[9..]), None);
    assert_eq!(flushed(&mut engine, id).unwrap(), b"$3\r\ntwo\r\n");
    engine.check();
}

#[test]
fn only_hits_of_the_redis_protocol_under_the_lease_go_straight() {
    let mut engine = engine();
    let http = engine.open(Port::Http, peer()).unwrap();
    assert_eq!(read(&mut engine, http, GET_K1), None);
    let id = engine.open(Port::Resp, peer()).unwrap();
    engine.hits_until = engine.now;
    assert_eq!(read(&mut engine, id, GET_K1), None);
}

/// An HTTP request for a key, from a client of this name.
fn ask(key: &str, agent: &str) -> Vec<u8> {
    format!("GET /get?key={key} HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n").into_bytes()
}

#[test]
fn http_hits_go_straight_from_the_second_on_and_say_the_same() {
    let mut engine = engine();
    let id = engine.open(Port::Http, peer()).unwrap();
    let mut general = Vec::new();
    // The facts of the values are not known yet.
    for key in ["k1", "k2"] {
        assert_eq!(
            read(&mut engine, id, &ask(key, key)),
            None,
            "an unknown value"
        );
        let answer = flushed(&mut engine, id).unwrap();
        engine.sent(id, answer.len());
        general.extend(answer);
    }
    let both = [ask("k1", "k2"), ask("k2", "k2")].concat();
    let straight = read(&mut engine, id, &both).expect("the head and both values are known");
    assert_eq!(
        String::from_utf8(straight),
        String::from_utf8(general.clone())
    );
    engine.sent_at_once(id, general.len());
    // Whatever differs goes the general way, in order.
    for other in [
        ask("missing", "other"),
        ask("missing", "k2"),
        ask("k1&x=1", "k2"),
    ] {
        let mut other_engine = engine.clone();
        let bytes = [ask("k2", "k2"), other].concat();
        assert_eq!(read(&mut other_engine, id, &bytes), None);
        let answer = flushed(&mut other_engine, id).unwrap();
        assert!(answer.starts_with(&general[general.len() / 2..]));
    }
}

#[test]
fn an_http_hit_says_the_second_in_which_it_is_given() {
    let mut engine = engine();
    let id = engine.open(Port::Http, peer()).unwrap();
    assert_eq!(read(&mut engine, id, &ask("k1", "a")), None);
    let first = flushed(&mut engine, id).unwrap();
    engine.sent(id, first.len());
    engine.begin_turn(engine.now + Duration::from_secs(5), 784_111_777);
    let later = read(&mut engine, id, &ask("k1", "a")).expect("a known head");
    let later = String::from_utf8(later).unwrap();
    for field in ["Date: Sun, 06 Nov 1994 08:49:37 GMT", "ttl=55", "Age: 5"] {
        assert!(later.contains(&format!("{field}\r\n")), "{later}");
    }
}

#[test]
fn where_a_password_is_demanded_no_http_request_goes_straight() {
    let mut config = Config::default();
    config.redis_url.password = Some(crate::secret::Secret::new("secret"));
    let mut engine = engine_of(config);
    assert!(engine.demands_password());
    let id = engine.open(Port::Http, peer()).unwrap();
    for _ in 0..3 {
        assert_eq!(read(&mut engine, id, &ask("k1", "a")), None);
        let answer = String::from_utf8(flushed(&mut engine, id).unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        engine.sent(id, answer.len());
    }
}

/// A GET of a key with a length of two digits, which is what is remembered from one to the next.
fn get_of(key: &str) -> Vec<u8> {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
}

#[test]
fn a_get_alone_in_its_read_is_answered_as_it_is_among_others() {
    let mut engine = engine();
    let contents = [
        ("key:in-a-cell", NewContent::Value(&[b'v'; 64])),
        ("key:empty-----", NewContent::Value(b"")),
        ("key:in-a-block", NewContent::Value(&[b'w'; 2000])),
        ("key:longest-of", NewContent::Value(&[b'x'; 8191])),
        ("key:counted---", NewContent::Value(&[b'y'; 8192])),
        ("key:missing---", NewContent::Missing),
        ("key:too-large-", NewContent::TooLarge),
    ];
    let now = engine.now;
    for (key, content) in contents {
        let put = Put {
            db: 0,
            key: key.as_bytes(),
            hash: engine.hasher.hash(key.as_bytes()),
            content,
            stored_at: now,
            deadline: now + Duration::from_secs(9),
            tag: 0,
            ping: 0,
        };
        assert!(engine.cache.put(put, now).kept);
    }
    let id = engine.open(Port::Resp, peer()).unwrap();
    engine.sample_due = u64::MAX;
    for (key, content) in contents {
        let NewContent::Value(value) = content else {
            assert_eq!(read(&mut engine.clone(), id, &get_of(key)), None, "{key}");
            continue;
        };
        let reply = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
        let replies = [&b"$0\r\n\r\n"[..], &reply].concat();
        let mut among = engine.clone();
        let two = [get_of("key:empty-----"), get_of(key)].concat();
        let is_small = value.len() < 8192;
        assert_eq!(read(&mut among, id, &two), is_small.then_some(replies));
        // The second time it is written as the one before was.
        for _ in 0..2 {
            let (before, recent) = (engine.clone(), get_of(key));
            assert_eq!(
                read(&mut engine, id, &recent),
                is_small.then(|| reply.clone())
            );
            if !is_small {
                assert_eq!(flushed(&mut engine, id).as_ref(), Some(&reply));
                engine.sent(id, reply.len());
                continue;
            }
            engine.sent_at_once(id, reply.len());
            for (counter, more) in [
                (Counter::Hits, 1),
                (Counter::BytesIn, recent.len() as u64),
                (Counter::BytesOut, reply.len() as u64),
            ] {
                let now = engine.stats().get(counter);
                assert_eq!(now - before.stats().get(counter), more, "{counter:?}");
            }
            let newest = engine.cache.iter_recent().next().map(|(_, key)| key);
            assert_eq!(newest, Some(key.as_bytes()), "the most recently used");
            // The shortest way is the one that it goes then, where the value is in its cell.
            assert_eq!(engine.get_memo.only(&recent), Some(key.as_bytes()));
            let hash = engine.hasher.hash(key.as_bytes());
            let found = engine.cache.get_in_cell(0, key.as_bytes(), hash, now);
            assert_eq!(found.is_some(), value.len() < 900, "{key}");
        }
    }
    // At its deadline it was never there, and what is read behind the lease is asked for.
    for (wait, lease) in [(9, 60), (1, 1)] {
        let mut later = engine.clone();
        later.hits_until = now + Duration::from_secs(lease);
        later.begin_turn(now + Duration::from_secs(wait), 0);
        assert_eq!(read(&mut later, id, &get_of("key:in-a-cell")), None);
    }
    engine.check();
}

#[test]
fn rows_of_hits_of_every_kind_are_answered_as_they_are_one_by_one() {
    let mut engine = engine();
    engine.sample_due = u64::MAX;
    let now = engine.now;
    // Keys and values below and above what each way takes: short and long names, cells and blocks.
    let entries: Vec<(String, Vec<u8>)> = (0..60)
        .map(|i| {
            let key = format!("{i}{}", "k".repeat([1, 8, 9, 14, 15, 30, 97, 120][i % 8]));
            (key, vec![b'v'; [0, 5, 64, 900, 2000][i % 5]])
        })
        .collect();
    for (key, value) in &entries {
        let put = Put {
            db: 0,
            key: key.as_bytes(),
            hash: engine.hasher.hash(key.as_bytes()),
            content: NewContent::Value(value),
            stored_at: now,
            deadline: now + Duration::from_secs(9),
            tag: 0,
            ping: 0,
        };
        assert!(engine.cache.put(put, now).kept);
    }
    let id = engine.open(Port::Resp, peer()).unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let row: Vec<usize> = match rng.bool() {
            true => (0..rng.usize(1..20))
                .map(|_| rng.usize(0..entries.len()))
                .collect(),
            // Of one length, as an application's are.
            false => vec![rng.usize(0..entries.len()); rng.usize(1..20)],
        };
        let (mut asked, mut expected) = (Vec::new(), Vec::new());
        for (key, value) in row.iter().map(|at| &entries[*at]) {
            asked.extend(get_of(key));
            expected.extend(format!("${}\r\n", value.len()).into_bytes());
            expected.extend([&value[..], b"\r\n"].concat());
        }
        let hits = engine.stats().get(Counter::Hits);
        assert_eq!(
            read(&mut engine, id, &asked).as_deref(),
            Some(&expected[..])
        );
        engine.sent_all_at_once(expected.len());
        assert_eq!(engine.stats().get(Counter::Hits) - hits, row.len() as u64);
        let newest = engine
            .cache
            .iter_recent()
            .next()
            .map(|(_, key)| key.to_vec());
        let last = &entries[row[row.len() - 1]].0;
        assert_eq!(newest.as_deref(), Some(last.as_bytes()));
    }
    engine.check();
}

#[test]
fn what_is_known_of_a_client_is_forgotten_when_anything_of_it_may_have_changed() {
    let mut engine = engine();
    let id = engine.open(Port::Resp, peer()).unwrap();
    let ix = engine.client_index(id).unwrap();
    let changes: [fn(&mut Engine, usize); 5] = [
        |engine, ix| engine.clients[ix].paused = true,
        |engine, ix| engine.clients[ix].relayed += 1,
        |engine, ix| engine.clients[ix].authenticated = false,
        |engine, ix| engine.clients[ix].mute = Mute::All,
        |engine, _| engine.begin_drain(),
    ];
    for change in changes {
        let mut engine = engine.clone();
        assert!(read(&mut engine, id, GET_K1).is_some());
        engine.sent_all_at_once(9);
        assert!(
            engine.clients[ix].straight.is_some(),
            "a hit disturbs nothing"
        );
        assert!(engine.recv_straight(id).is_some());
        change(&mut engine, ix);
        assert!(engine.recv_straight(id).is_none());
    }
}

/// Reads of a value of 1 KiB, more in one read than a turn answers; `first` goes in front.
fn check_share(port: Port, first: &[u8], ask: &[u8]) {
    let mut engine = engine();
    let (now, key) = (engine.now, b"key:of-1-kib");
    let put = Put {
        db: 0,
        key,
        hash: engine.hasher.hash(key),
        content: NewContent::Value(&[b'v'; 1024]),
        stored_at: now,
        deadline: now + Duration::from_secs(9),
        tag: 0,
        ping: 0,
    };
    assert!(engine.cache.put(put, now).kept);
    let id = engine.open(port, peer()).unwrap();
    // How long the answer to one is, and for HTTP that head and value are known.
    assert_eq!(read(&mut engine, id, ask).is_some(), port == Port::Resp);
    engine.sent_at_once(id, 0);
    let one = flushed(&mut engine, id).expect("an answer");
    engine.sent(id, one.len());
    let count = 200;
    let turn_max = super::super::share::REPLY_BYTES_PER_TURN + one.len();
    let mut copied = engine.pool.copied_bytes();
    assert_eq!(
        read(&mut engine, id, &[first, &ask.repeat(count)].concat()),
        None
    );
    let (mut got, mut turns) = (Vec::new(), 0);
    loop {
        turns += 1;
        let in_turn = (engine.pool.copied_bytes() - copied) as usize;
        assert!(
            in_turn <= turn_max,
            "{in_turn} bytes copied in turn {turns}"
        );
        copied = engine.pool.copied_bytes();
        let mut is_ready = false;
        while let Some(output) = engine.poll_output() {
            is_ready |= output == Output::Ready(id);
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = engine.send_slices(id, &mut slices);
        let sent: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        engine.sent(id, sent.len());
        got.extend(sent);
        engine.check();
        if !is_ready {
            break;
        }
        // No byte is read until what was is answered, and none is needed.
        assert!(engine.recv_slice(id).is_empty());
        engine.serve(id);
    }
    assert!(got.ends_with(&one.repeat(count)), "{} bytes", got.len());
    assert_eq!(turns, (count * one.len()).div_ceil(turn_max), "turns");
}

#[test]
fn a_client_has_its_share_of_a_turn_and_goes_on_in_the_next() {
    let get = get_of("key:of-1-kib");
    check_share(Port::Resp, b"", &get);
    check_share(Port::Resp, b"PING\r\n", &get);
    let get = ask("key:of-1-kib", "a");
    check_share(Port::Http, b"", &get);
    check_share(
        Port::Http,
        b"GET /get?key=k1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        &get,
    );
}

#[test]
fn where_the_read_before_went_says_nothing_of_this_one() {
    let mut engine = engine();
    let (one, other) = (
        engine.open(Port::Resp, peer()).unwrap(),
        engine.open(Port::Resp, peer()).unwrap(),
    );
    assert_eq!(read(&mut engine, one, &GET_K2[..9]), None);
    assert_eq!(read(&mut engine, one, &GET_K2[9..12]), None, "to its inbox");
    let (way, room) = engine.recv_straight(other).expect("it is at rest");
    room[..6].copy_from_slice(b"PING\r\n");
    assert_eq!(engine.received_straight(other, way, 6), AtOnce::Outputs);
    assert_eq!(flushed(&mut engine, other).unwrap(), b"+PONG\r\n");
    assert_eq!(read(&mut engine, one, &GET_K2[12..]), None);
    assert_eq!(flushed(&mut engine, one).unwrap(), b"$3\r\ntwo\r\n");
    engine.check();
}
