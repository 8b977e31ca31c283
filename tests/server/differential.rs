//! Every command that needs no connection state, asked directly and through the proxy: the same reply to the byte, and
//! the same data afterwards.
//!
//! The calls are data: `differential/calls.txt`. Both are asked of one Redis, one after the other, each time from the same
//! keyspace, so that the order of a hash table or a random seed makes no difference. What still differs by its nature is
//! listed with its reason in `differential/exceptions.txt`. A command of the server's table that is in neither file
//! fails the test. Each call is made in RESP2 and in RESP3, with the wrong type of key, and with the wrong number of
//! arguments; then random ones in pipelines that are cut anywhere.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, decode, encode, encode_line};
use crate::support::show;
use nearcache::command::row::{REPLY_DEPTH_MAX, Row, rows_from_reply};
use nearcache::protocol::Parse;
use nearcache::protocol::resp::value;
use std::collections::BTreeSet;

const CALLS: &str = include_str!("differential/calls.txt");
const EXCEPTIONS: &str = include_str!("differential/exceptions.txt");
const SENTINEL: &str = "the-end-of-this-conversation";

/// From nothing to the keyspace that the calls are made for. Errors here are the same for both.
const RESET: [&str; 24] = [
    "FLUSHALL",
    "FUNCTION FLUSH",
    "SCRIPT FLUSH",
    "SLOWLOG RESET",
    "LATENCY RESET",
    "ACL LOG RESET",
    "ACL DELUSER tester",
    "CONFIG RESETSTAT",
    "MSET s1 abcd s2 abxx n1 10 w_a 1 o_a x",
    "SET t1 v EX 1000",
    "RPUSH l1 a b c",
    "RPUSH l2 x",
    "HSET h1 f v n 1",
    "SADD e1 a b",
    "SADD e2 b c",
    "ZADD z1 1 a 2 b",
    "ZADD z2 1 b",
    "GEOADD g1 1 1 a 2 2 b",
    "XADD x1 1-1 f v",
    "XADD x1 1-2 f v",
    "XADD x2 1-1 f v",
    "XGROUP CREATE x1 grp 0",
    "PFADD p1 a b",
    "PFADD p2 c",
];

/// One line of the file.
struct Call {
    text: String,
    steps: Vec<Vec<Vec<u8>>>,
}

/// The words of a call, as the head of `calls.txt` describes them.
fn words(text: &str) -> Vec<Vec<u8>> {
    let (mut words, mut rest) = (Vec::new(), text.trim().as_bytes());
    while !rest.is_empty() {
        let mut word = Vec::new();
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            loop {
                let (&byte, after) = quoted.split_first().expect("a quote is closed");
                quoted = after;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let len = if quoted[0] == b'x' { 3 } else { 1 };
                        let hex = || {
                            u8::from_str_radix(std::str::from_utf8(&quoted[1..3]).ok()?, 16).ok()
                        };
                        word.push(match quoted[0] {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b'x' => hex().expect("two digits"),
                            other => other,
                        });
                        quoted = &quoted[len..];
                    }
                    byte => word.push(byte),
                }
            }
            rest = quoted;
        } else {
            let end = rest.iter().position(|byte| *byte == b' ');
            let (this, after) = rest.split_at(end.unwrap_or(rest.len()));
            (word, rest) = (this.to_vec(), after);
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

fn calls(dump: &[u8], functions: &[u8]) -> Vec<Call> {
    let lines = CALLS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let step = |text: &str| {
        let fill = |word: Vec<u8>| match word.as_slice() {
            b"<dump>" => dump.to_vec(),
            b"<function-dump>" => functions.to_vec(),
            _ => word,
        };
        words(text).into_iter().map(fill).collect::<Vec<_>>()
    };
    lines
        .map(|line| Call {
            text: line.to_owned(),
            steps: line.split(" ; ").map(step).collect(),
        })
        .collect()
}

/// The commands that are treated in a special way, `acl|genpass` for a subcommand.
fn exceptions(how: &str) -> BTreeSet<String> {
    let lines = EXCEPTIONS.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.filter_map(|line| {
        let (kind, rest) = line.split_at_checked(8)?;
        let (name, reason) = rest.split_at_checked(24)?;
        assert!(
            matches!(kind.trim(), "kind" | "never") && !reason.is_empty(),
            "{line}"
        );
        (kind.trim() == how).then(|| name.trim().to_lowercase().replace(' ', "|"))
    });
    rows.collect()
}

/// The name of a call's command in a server's table.
fn name_of(rows: &[Row], args: &[Vec<u8>]) -> Option<String> {
    let text = |at: usize| Some(String::from_utf8_lossy(args.get(at)?).to_lowercase());
    let row = rows
        .iter()
        .find(|row| Some(&row.name) == text(0).as_ref())?;
    let sub = text(1).map(|sub| format!("{}|{sub}", row.name));
    let sub = row
        .subcommands
        .iter()
        .find(|row| Some(&row.name) == sub.as_ref());
    Some(sub.unwrap_or(row).name.clone())
}

/// One Redis, asked in two ways.
struct Pair {
    ours: RespClient,
    theirs: RespClient,
    digests: RespClient,
}

impl Pair {
    fn new(proxy: &Proxy, redis: &RedisServer, version: u8) -> Pair {
        let mut pair = Pair {
            ours: proxy.resp(),
            theirs: redis.client(),
            digests: redis.client(),
        };
        if version == 3 {
            for client in [&mut pair.ours, &mut pair.theirs] {
                assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
            }
        }
        pair
    }

    /// Asks one of the two from the beginning; its replies, and the digest of the data it leaves.
    fn ask(&mut self, directly: bool, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        self.ask_in_stages(directly, &[pieces])
    }

    /// The same where each stage is answered before the next is sent.
    fn ask_in_stages(&mut self, directly: bool, stages: &[&[&[u8]]]) -> (Vec<u8>, Vec<u8>) {
        let client = if directly {
            &mut self.theirs
        } else {
            &mut self.ours
        };
        let reset: Vec<u8> = RESET.iter().flat_map(|line| encode_line(line)).collect();
        say(client, &[&reset]);
        let replies = stages.iter().flat_map(|stage| say(client, stage)).collect();
        let digest = self.digests.line("DEBUG DIGEST");
        (replies, format!("{digest:?}").into_bytes())
    }

    #[track_caller]
    fn assert_same(&mut self, what: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let expected = self.ask(true, pieces);
        let got = self.ask(false, pieces);
        assert!(
            got.0 == expected.0,
            "{what}\n  Redis says {}\n  we say     {}",
            show(&expected.0),
            show(&got.0)
        );
        assert!(got.1 == expected.1, "{what}: the data differs afterwards");
        got.0
    }
}

/// Sends all pieces, and an echo behind them that shows when all is answered; the replies.
fn say(client: &mut RespClient, pieces: &[&[u8]]) -> Vec<u8> {
    for piece in pieces {
        client.send(piece);
    }
    client.send(&encode(&["ECHO", SENTINEL]));
    let end = format!("${}\r\n{SENTINEL}\r\n", SENTINEL.len());
    let mut replies = client.bytes_until(end.as_bytes());
    replies.truncate(replies.len() - end.len());
    replies
}

/// What kind of replies these are: their types and how they are nested, without lengths.
fn kinds(mut replies: &[u8]) -> Vec<String> {
    let mut kinds = Vec::new();
    while let (false, Some((reply, len))) = (replies.is_empty(), decode(replies)) {
        let text = format!("{reply:?}");
        kinds.push(text.split(['(', ' ']).next().unwrap_or_default().to_owned());
        replies = &replies[len..];
    }
    kinds
}

struct Scene {
    redis: RedisServer,
    proxy: Proxy,
    rows: Vec<Row>,
    calls: Vec<Call>,
    kind_only: BTreeSet<String>,
}

impl Scene {
    fn start() -> Scene {
        let redis = RedisServer::start();
        let proxy = Proxy::to(&redis).tracking().start_tracking();
        let mut direct = redis.client();
        direct.send(&encode_line("COMMAND"));
        direct.send(&encode(&["ECHO", SENTINEL]));
        let table = direct.bytes_until(format!("${}\r\n{SENTINEL}\r\n", SENTINEL.len()).as_bytes());
        let Parse::Done((table, _)) = value::decode(&table, REPLY_DEPTH_MAX) else {
            panic!("the reply to COMMAND is whole");
        };
        let rows = rows_from_reply(&table).expect("a command table");
        direct.line("SET s1 abcd");
        let Reply::Bulk(dump) = direct.line("DUMP s1") else {
            panic!("a dump");
        };
        direct.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=dumped\nredis.register_function('g',function() return 1 end)",
        ]);
        let Reply::Bulk(functions) = direct.line("FUNCTION DUMP") else {
            panic!("a dump");
        };
        Scene {
            redis,
            proxy,
            rows,
            calls: calls(&dump, &functions),
            kind_only: exceptions("kind"),
        }
    }

    fn pair(&self, version: u8) -> Pair {
        Pair::new(&self.proxy, &self.redis, version)
    }

    fn is_kind_only(&self, call: &Call) -> bool {
        let names = call
            .steps
            .iter()
            .filter_map(|step| name_of(&self.rows, step));
        names.into_iter().any(|name| self.kind_only.contains(&name))
    }

    /// All commands and subcommands of the server, each with how many arguments it takes.
    fn commands(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flat_map(|row| {
            let itself = row.subcommands.is_empty().then_some(row);
            itself.into_iter().chain(&row.subcommands)
        })
    }
}

fn encoded(steps: &[Vec<Vec<u8>>]) -> Vec<u8> {
    steps.iter().flat_map(|step| encode(step)).collect()
}

#[test]
fn every_command_of_the_server_is_called_or_excused() {
    let scene = Scene::start();
    let steps = scene.calls.iter().flat_map(|call| &call.steps);
    let called: BTreeSet<String> = steps
        .filter_map(|step| name_of(&scene.rows, step))
        .collect();
    let never = exceptions("never");
    for row in scene.commands() {
        let (called, excused) = (called.contains(&row.name), never.contains(&row.name));
        assert!(called || excused, "{} is not in calls.txt", row.name);
        assert!(!called || !excused, "{} is in both files", row.name);
    }
    let known: BTreeSet<&str> = scene.commands().map(|row| row.name.as_str()).collect();
    for name in never.iter().chain(&scene.kind_only) {
        assert!(known.contains(name.as_str()), "{name} is no command");
    }
}

#[test]
fn every_command_is_answered_as_by_redis() {
    let scene = Scene::start();
    for version in [2, 3] {
        let mut pair = scene.pair(version);
        for call in &scene.calls {
            let bytes = encoded(&call.steps);
            let what = format!("RESP{version}: {}", call.text);
            if scene.is_kind_only(call) {
                let (theirs, ours) = (pair.ask(true, &[&bytes]).0, pair.ask(false, &[&bytes]).0);
                assert_eq!(kinds(&ours), kinds(&theirs), "{what}");
            } else {
                pair.assert_same(&what, &[&bytes]);
            }
        }
    }
}

#[test]
fn no_command_leaves_anything_untrue_behind_in_what_is_kept() {
    // All keys that a call may write, as strings and by name: read before it, so that they are kept, and after it.
    let names = [
        "s1",
        "s2",
        "n1",
        "t1",
        "p1",
        "p2",
        "l1",
        "z1",
        "d",
        "d1",
        "d2",
        "nil",
        "w_a",
        "undeclared",
    ];
    let gets: Vec<u8> = names.iter().flat_map(|key| encode(&["GET", key])).collect();
    let others = [
        "MGET s1 s2 n1 nil",
        "EXISTS d",
        "EXISTS s1 d d1",
        "STRLEN s1",
        "GETRANGE n1 0 -1",
    ];
    let others: Vec<u8> = others.iter().flat_map(|line| encode_line(line)).collect();
    let reads = [gets, others].concat();
    let scene = Scene::start();
    let hits = scene.proxy.counter("nearcache_hits");
    for version in [2, 3] {
        let mut pair = scene.pair(version);
        for call in scene.calls.iter().filter(|call| !scene.is_kind_only(call)) {
            let bytes = encoded(&call.steps);
            let stages: [&[&[u8]]; 4] = [&[&reads], &[&reads], &[&bytes], &[&reads]];
            let expected = pair.ask_in_stages(true, &stages);
            let got = pair.ask_in_stages(false, &stages);
            assert!(
                got == expected,
                "RESP{version}: {}\n  Redis says {}\n  we say     {}",
                call.text,
                show(&expected.0),
                show(&got.0)
            );
        }
    }
    assert!(
        scene.proxy.counter("nearcache_hits") > hits + 1000,
        "there was something kept"
    );
}

#[test]
fn every_command_is_answered_as_by_redis_when_a_key_is_of_the_wrong_type() {
    let scene = Scene::start();
    let wrong_for = |word: &[u8]| match word {
        [b's' | b'n' | b't' | b'p', b'1'..=b'9'] => Some(b"l1".to_vec()),
        [b'l' | b'h' | b'e' | b'z' | b'g' | b'x', b'1'..=b'9'] => Some(b"s1".to_vec()),
        _ => None,
    };
    let mut errors = 0;
    for version in [2, 3] {
        let mut pair = scene.pair(version);
        for call in scene.calls.iter().filter(|call| !scene.is_kind_only(call)) {
            let mut steps = call.steps.clone();
            let mut changed = false;
            for step in &mut steps {
                let at = step
                    .iter()
                    .skip(1)
                    .position(|word| wrong_for(word).is_some());
                if let Some(at) = at {
                    step[at + 1] = wrong_for(&step[at + 1]).expect("it was found to have one");
                    changed = true;
                }
            }
            if changed {
                let what = format!("RESP{version}, wrong type: {}", call.text);
                let replies = pair.assert_same(&what, &[&encoded(&steps)]);
                errors += usize::from(replies.starts_with(b"-WRONGTYPE"));
            }
        }
    }
    assert!(errors > 150, "only {errors} calls met a wrong type");
}

#[test]
fn every_command_is_answered_as_by_redis_when_the_number_of_arguments_is_wrong() {
    let scene = Scene::start();
    let mut called = 0;
    for version in [2, 3] {
        let mut pair = scene.pair(version);
        for row in scene.commands() {
            let name: Vec<&str> = row.name.split('|').collect();
            let with = |argc: usize| {
                let mut args = name.clone();
                args.resize(argc.max(name.len()), "x");
                encode(&args)
            };
            let least = usize::try_from(row.arity.unsigned_abs()).expect("a few");
            let mut wrong = Vec::new();
            if row.arity > 0 {
                wrong.push(with(least + 1));
            }
            if least > name.len() {
                wrong.push(with(name.len()));
                wrong.push(with(least - 1));
            }
            for bytes in wrong {
                pair.assert_same(&format!("RESP{version}: {}", show(&bytes)), &[&bytes]);
                called += 1;
            }
        }
    }
    assert!(called > 500, "{called}");
}

/// Calls whose replies depend on nothing but the data and what was called before, which nobody else notices, and which
/// never wait.
fn may_be_mixed(scene: &Scene, call: &Call) -> bool {
    const UNFIT: [&str; 35] = [
        "ACL",
        "ASKING",
        "AUTH",
        "BLMOVE",
        "BLMPOP",
        "BLPOP",
        "BRPOP",
        "BRPOPLPUSH",
        "BZMPOP",
        "BZPOPMAX",
        "BZPOPMIN",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "CONFIG",
        "DEBUG",
        "EXPIRETIME",
        "FAILOVER",
        "INFO",
        "LASTSAVE",
        "LATENCY",
        "LOLWUT",
        "MEMORY",
        "MIGRATE",
        "MODULE",
        "PEXPIRETIME",
        "PFSELFTEST",
        "PTTL",
        "REPLICAOF",
        "SAVE",
        "SHUTDOWN",
        "SLAVEOF",
        "SLOWLOG",
        "TTL",
        "XINFO",
    ];
    let is_fit = |step: &Vec<Vec<u8>>| !UNFIT.iter().any(|name| step[0] == name.as_bytes());
    !scene.is_kind_only(call) && call.steps.iter().all(is_fit)
}

#[test]
fn random_pipelines_cut_anywhere_are_answered_as_by_redis() {
    const SEEDS: u64 = 60;
    let scene = Scene::start();
    let calls: Vec<&Call> = scene
        .calls
        .iter()
        .filter(|call| may_be_mixed(&scene, call))
        .collect();
    assert!(calls.len() > 250, "{}", calls.len());
    let mut pairs = [scene.pair(2), scene.pair(3)];
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for _ in 0..random.usize(2..80) {
            // Now and then the reads that are answered from what is kept, so that they meet writes.
            let kept = random.u8(..4) == 0;
            let is_kept =
                |call: &&&Call| call.text.starts_with("GET s1 ;") || call.text.starts_with("MGET");
            let call = if kept {
                let kept: Vec<&&Call> = calls.iter().filter(is_kept).collect();
                kept[random.usize(..kept.len())]
            } else {
                calls[random.usize(..calls.len())]
            };
            bytes.extend(encoded(&call.steps));
        }
        let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
        let longest = [3, 40, 4000][random.usize(..3)];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=longest).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        let pair = &mut pairs[random.usize(..2)];
        pair.assert_same(&format!("seed {seed}: {}", show(&bytes)), &pieces);
    }
}

/// Bytes as a broken client might send them: a pipeline with something flipped, left out, put in or cut off.
fn broken(random: &mut fastrand::Rng) -> Vec<u8> {
    const BYTES: &[u8] = b"\r\n*$:+-0123456789\"'\\ \0\xff_%>abc";
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..6) {
        bytes.extend(match random.u8(..7) {
            0 => encode_line("SET s1 v"),
            1 => encode_line("GET s1"),
            2 => b"PING\r\n".to_vec(),
            3 => b"set s1 \"two words\"\r\n".to_vec(),
            4 => encode_line("INCR n1"),
            5 => encode_line("MGET s1 n1 nil"),
            _ => encode(&["ECHO", "*1\r\n$4\r\nPING\r\n"]),
        });
    }
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        let byte = BYTES[random.usize(..BYTES.len())];
        match random.u8(..4) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}

#[test]
fn broken_bytes_are_answered_as_by_redis_and_disturb_nobody_else() {
    const SEEDS: u64 = 300;
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut bystander = proxy.resp();
    let mut refused = 0;
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = broken(&mut random);
        let ask = |port: u16| {
            let mut client = RespClient::connect(port);
            assert_eq!(client.line("FLUSHALL"), Reply::ok());
            assert_eq!(client.line("MSET s1 v n1 1"), Reply::ok());
            // Both are sent all of it, and the end: what was complete is answered, then the connection ends.
            let _ = client.try_send(&bytes);
            client.finish_sending();
            client.bytes_until_closed()
        };
        let expected = ask(redis.port());
        bystander.send(&encode_line("INCR others"));
        let got = ask(proxy.resp_port);
        assert!(
            got == expected,
            "seed {seed}: {}\n  Redis says {}\n  we say     {}",
            show(&bytes),
            show(&expected),
            show(&got)
        );
        assert!(matches!(bystander.reply(), Reply::Int(_)), "seed {seed}");
        let error = b"-ERR Protocol error";
        refused += usize::from(got.windows(error.len()).any(|part| part == error));
    }
    assert!(refused > 50, "only {refused} were refused");
}
