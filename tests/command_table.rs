//! The command table against a live redis-server: our static table is that of Redis 7.0, our keys are those that the
//! server finds (COMMAND GETKEYS), and no key ever changes that we did not say a call touches.
//!
//! The server listens on a socket in a directory of its own, so nothing collides; both are gone at the end.

use nearcache::command::Effect;
use nearcache::command::keys::Touch;
use nearcache::command::row::{REPLY_DEPTH_MAX, Row, rows_from_reply};
use nearcache::command::table::{Table, builtin_rows};
use nearcache::protocol::Parse;
use nearcache::protocol::resp::value::{Value, decode};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server {
    process: Child,
    dir: PathBuf,
}

impl Server {
    fn start(name: &str) -> Server {
        let dir = std::env::temp_dir().join(format!("nearcache-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server");
        let process = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
                "socket",
                "--dir",
            ])
            .arg(&dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed by this test");
        Server { process, dir }
    }

    fn connect(&self) -> Connection {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(stream) = UnixStream::connect(self.dir.join("socket")) {
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .expect("a time-out is set");
                return Connection {
                    stream,
                    bytes: Vec::new(),
                };
            }
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

struct Connection {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Connection {
    fn send(&mut self, args: &[&[u8]]) {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).expect("the server reads");
    }

    /// The next reply or push, as `look` sees it.
    fn read<T>(&mut self, look: impl FnOnce(&Value<'_>) -> T) -> T {
        loop {
            match decode(&self.bytes, REPLY_DEPTH_MAX) {
                Parse::Done((value, len)) => {
                    let seen = look(&value);
                    self.bytes.drain(..len);
                    return seen;
                }
                Parse::More => {
                    let mut buf = [0; 65536];
                    let n = self
                        .stream
                        .read(&mut buf)
                        .expect("the server answers in time");
                    assert!(n > 0, "the server closed the connection");
                    self.bytes.extend_from_slice(&buf[..n]);
                }
                Parse::Bad(()) => panic!("no reply: {:?}", String::from_utf8_lossy(&self.bytes)),
            }
        }
    }

    fn call<T>(&mut self, args: &[&[u8]], look: impl FnOnce(&Value<'_>) -> T) -> T {
        self.send(args);
        self.read(look)
    }

    /// A call that must succeed, written in words.
    fn run(&mut self, call: &str) {
        let args: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        self.call(&args, |reply| assert_eq!(reply.as_error(), None, "{call}"));
    }

    fn rows(&mut self) -> Vec<Row> {
        let mut rows = self.call(&[b"COMMAND"], |reply| {
            rows_from_reply(reply).expect("a command table")
        });
        sort(&mut rows);
        rows
    }
}

/// Redis lists commands in the order of its hash table.
fn sort(rows: &mut [Row]) {
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows.iter_mut().for_each(|row| sort(&mut row.subcommands));
}

struct Sample {
    args: Vec<Vec<u8>>,
    is_run: bool,
    text: String,
}

impl Sample {
    fn args(&self) -> Vec<&[u8]> {
        self.args.iter().map(Vec::as_slice).collect()
    }
}

fn samples(dump: &[u8]) -> Vec<Sample> {
    let lines = include_str!("command_table/samples.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let call = line.strip_prefix('-').unwrap_or(line);
            let arg = |word: &str| match word {
                "<dump>" => dump.to_vec(),
                "\"\"" => Vec::new(),
                _ => word.as_bytes().to_vec(),
            };
            Sample {
                args: call.split(' ').map(arg).collect(),
                is_run: !line.starts_with('-'),
                text: line.to_owned(),
            }
        })
        .collect()
}

const DATA: [&str; 21] = [
    "FLUSHALL",
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
    "SELECT 1",
    "FLUSHDB",
    "SELECT 0",
    "UNWATCH",
];

/// What our table says a call touches; `None` for everything.
fn touched(table: &Table, args: &[&[u8]]) -> Option<BTreeSet<Vec<u8>>> {
    let mut keys = BTreeSet::new();
    let spec = table.find(args.iter().copied());
    let touch = spec.touch(args.iter().copied(), args.len(), &mut |key| {
        keys.insert(key.to_vec());
    });
    (touch == Touch::Keys).then_some(keys)
}

#[test]
fn the_static_table_is_that_of_redis_7_0() {
    let server = Server::start("static");
    let mut connection = server.connect();
    let is_7_0 = connection.call(&[b"INFO", b"server"], |reply| {
        let text = reply.as_bytes().expect("INFO is text");
        text.windows(18).any(|part| part == b"redis_version:7.0.")
    });
    let rows = connection.rows();
    if is_7_0 {
        let mut ours = builtin_rows();
        sort(&mut ours);
        for (our, row) in ours.iter().zip(&rows) {
            assert_eq!(our, row);
        }
        assert_eq!(ours.len(), rows.len());
    }
    connection.run("HELLO 3");
    assert_eq!(connection.rows(), rows, "RESP3 says the same");
    Table::from_rows(rows).check();
}

#[test]
fn the_keys_of_a_call_are_those_that_redis_finds() {
    let server = Server::start("keys");
    let mut connection = server.connect();
    let rows = connection.rows();
    let table = Table::from_rows(rows.clone());
    let samples = samples(b"dump");

    let with_keys = rows
        .iter()
        .flat_map(|row| std::iter::once(row).chain(&row.subcommands));
    for row in with_keys.filter(|row| row.key_specs.iter().flatten().next().is_some()) {
        let is_sampled = |sample: &Sample| {
            let spec = table.find(sample.args().into_iter());
            spec.name() == row.name
        };
        assert!(samples.iter().any(is_sampled), "no sample of {}", row.name);
    }

    let mut with_all = BTreeSet::new();
    for sample in &samples {
        let args = sample.args();
        let spec = table.find(args.iter().copied());
        assert!(
            spec.is_known() && spec.arity_ok(args.len()),
            "{}",
            sample.text
        );
        let mut request: Vec<&[u8]> = vec![b"COMMAND", b"GETKEYS"];
        request.extend(&args);
        let theirs: BTreeSet<Vec<u8>> = connection.call(&request, |reply| {
            match (reply.as_array(), reply.as_error()) {
                (Some(keys), _) => keys
                    .iter()
                    .map(|key| key.as_bytes().expect("a key").to_vec())
                    .collect(),
                (None, Some(b"ERR The command has no key arguments")) => BTreeSet::new(),
                // COMMAND GETKEYS itself wants a call of two words or more.
                (None, Some(_)) if args.len() == 1 => BTreeSet::new(),
                _ => panic!("{}: {reply:?}", sample.text),
            }
        });
        match touched(&table, &args) {
            // Of several STOREs Redis reports one: it is enough that none of its keys is missing.
            Some(ours) if sample.text.matches("STORE").count() > 1 => {
                assert!(ours.is_superset(&theirs), "{}", sample.text);
            }
            Some(ours) => assert_eq!(ours, theirs, "{}", sample.text),
            None => {
                with_all.insert(spec.name());
            }
        }
    }
    let expected = [
        "dbsize",
        "eval",
        "eval_ro",
        "evalsha",
        "evalsha_ro",
        "fcall",
        "fcall_ro",
        "flushall",
        "flushdb",
        "keys",
        "migrate",
        "randomkey",
        "scan",
        "sort",
        "sort_ro",
    ];
    assert_eq!(with_all.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn nothing_changes_that_a_call_is_not_said_to_write() {
    let server = Server::start("changes");
    let mut connection = server.connect();
    let mut tracking = server.connect();
    tracking.run("HELLO 3");
    tracking.run("CLIENT TRACKING ON BCAST");
    let table = Table::from_rows(connection.rows());
    DATA.iter().for_each(|call| connection.run(call));
    let dump = connection.call(&[b"DUMP", b"s1"], |reply| {
        reply.as_bytes().expect("a dump").to_vec()
    });
    let mut writes_seen = 0;
    for sample in samples(&dump).iter().filter(|sample| sample.is_run) {
        DATA.iter().for_each(|call| connection.run(call));
        changes(&mut tracking);
        let args = sample.args();
        connection.call(&args, |reply| {
            assert_eq!(reply.as_error(), None, "{}", sample.text)
        });

        let spec = table.find(args.iter().copied());
        let effect = spec.effect(args.iter().copied(), args.len());
        let may_write = matches!(effect, Effect::Write | Effect::Everything);
        let Some(changed) = changes(&mut tracking) else {
            assert_eq!(
                effect,
                Effect::Everything,
                "{} changed everything",
                sample.text
            );
            continue;
        };
        assert!(
            may_write || changed.is_empty(),
            "{} changed {changed:?}",
            sample.text
        );
        writes_seen += usize::from(!changed.is_empty());
        if let Some(touched) = touched(&table, &args) {
            assert!(
                changed.is_subset(&touched),
                "{} changed {changed:?}, not only {touched:?}",
                sample.text
            );
        }
    }
    assert!(
        writes_seen > 90,
        "only {writes_seen} samples changed a key: the data does not fit them"
    );
}

/// The keys that tracking has reported since the last call; `None` for all.
fn changes(tracking: &mut Connection) -> Option<BTreeSet<Vec<u8>>> {
    tracking.send(&[b"PING"]);
    let mut changed = Some(BTreeSet::new());
    loop {
        let is_pong = tracking.read(|value| {
            let Value::Push(push) = value else {
                return true;
            };
            assert_eq!(push[0].as_bytes(), Some(&b"invalidate"[..]));
            match (push[1].as_array(), &mut changed) {
                (Some(keys), Some(changed)) => {
                    changed.extend(
                        keys.iter()
                            .map(|key| key.as_bytes().expect("a key").to_vec()),
                    );
                }
                _ => changed = None,
            }
            false
        });
        if is_pong {
            return changed;
        }
    }
}
