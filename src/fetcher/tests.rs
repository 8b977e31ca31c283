//! The pool against a real redis-server, and against servers that misbehave.
#![forbid(unsafe_code)]

use super::*;
use crate::fetch::{FetchId, Fetched};
use mio::{Events, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const PATIENCE: Duration = Duration::from_secs(10);

/// A redis-server of our own on loopback, killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(port: u16) -> Server {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < give_up, "redis-server answers within 10 s");
            std::thread::sleep(Duration::from_millis(5));
        }
        Server { child, port }
    }

    fn connection(&self) -> redis::Connection {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))
            .unwrap()
            .get_connection()
            .unwrap()
    }

    fn run(&self, command: &str) -> redis::Value {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        cmd.query(&mut self.connection()).unwrap()
    }

    /// Closes the workers' connections from Redis's side, as its `timeout` does, without their noticing.
    fn kill_workers(&self) -> usize {
        let mut connection = self.connection();
        let list: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query(&mut connection)
            .unwrap();
        let ids = list
            .lines()
            .filter(|line| line.contains("name=nearcache:") && line.contains(":fetch"));
        let ids: Vec<&str> = ids
            .map(|line| line.split(' ').next().unwrap().strip_prefix("id=").unwrap())
            .collect();
        for id in &ids {
            let () = redis::cmd("CLIENT")
                .arg("KILL")
                .arg("ID")
                .arg(id)
                .query(&mut connection)
                .unwrap();
        }
        ids.len()
    }

    fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

struct Pool {
    fetcher: Fetcher,
    poll: Poll,
    ids: u64,
}

impl Pool {
    fn start(port: u16, timeout_ms: u64, queue_max: usize) -> Pool {
        let config = config(port, timeout_ms, queue_max);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let fetcher = Fetcher::start(&config, None, waker).unwrap();
        Pool {
            fetcher,
            poll,
            ids: 0,
        }
    }

    fn job(&mut self, db: u32, key: &[u8]) -> Job {
        self.ids += 1;
        Job {
            id: FetchId(self.ids),
            worker: 0,
            db,
            key: key.to_vec(),
            dispatched: socket::now(),
        }
    }

    /// Completes all of `keys`, submitted in one turn; the results in the order of the keys.
    fn fetch_all(&mut self, keys: &[(u32, &[u8])]) -> Vec<Result<Fetched, FetchError>> {
        let first = self.ids + 1;
        for (db, key) in keys {
            let job = self.job(*db, key);
            self.fetcher.submit(job).expect("the queue has room");
        }
        self.fetcher.kick();
        let completions = self.wait_for(keys.len());
        (first..=self.ids)
            .map(|id| completions[&FetchId(id)].clone())
            .collect()
    }

    fn fetch(&mut self, key: &str) -> Result<Fetched, FetchError> {
        self.fetch_all(&[(0, key.as_bytes())]).remove(0)
    }

    fn wait_for(&mut self, count: usize) -> BTreeMap<FetchId, Result<Fetched, FetchError>> {
        let mut events = Events::with_capacity(8);
        let mut list = Vec::new();
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.fetcher.drain(&mut list);
            if list.len() >= count {
                break;
            }
            assert!(
                Instant::now() < give_up,
                "{} of {count} completions within 10 s",
                list.len()
            );
            self.poll
                .poll(&mut events, Some(Duration::from_secs(1)))
                .unwrap();
        }
        assert_eq!(list.len(), count, "each job is completed once");
        // Each server has another run_id; the end-to-end suite looks at what follows from it.
        list.into_iter()
            .map(|c| {
                (
                    c.id,
                    c.result.map(|fetched| Fetched {
                        run_id: None,
                        ..fetched
                    }),
                )
            })
            .collect()
    }

    /// Fetches `key` until that succeeds.
    fn fetch_until_ok(&mut self, key: &str) -> Fetched {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.fetch(key) {
                Ok(fetched) => return fetched,
                Err(e) => assert!(Instant::now() < give_up, "no recovery within 10 s: {e:?}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) {
        self.fetcher.stop(PATIENCE);
    }
}

fn config(port: u16, timeout_ms: u64, fetch_queue_max: usize) -> Config {
    Config {
        redis_url: RedisUrl {
            host: "127.0.0.1".into(),
            port,
            socket: None,
            tls: false,
            db: 0,
            username: None,
            password: None,
        },
        redis_workers: 1,
        redis_timeout: Duration::from_millis(timeout_ms),
        fetch_queue_max,
        fetch_batch_max: 64,
        ..Config::default()
    }
}

fn found(value: &str, pttl_ms: i64) -> Result<Fetched, FetchError> {
    Ok(Fetched {
        value: Some(value.as_bytes().to_vec()),
        pttl_ms: Some(pttl_ms),
        run_id: None,
    })
}

#[test]
fn replies_are_typed_and_an_error_keeps_its_slot() {
    let server = Server::start(free_port());
    server.run("SET plain one");
    server.run("SET timed two PX 60000");
    server.run("LPUSH list x");
    let mut pool = Pool::start(server.port, 3000, 1000);
    let binary = b"\r\n\0\xff key".as_slice();
    let got = pool.fetch_all(&[
        (0, b"plain"),
        (0, b"list"),
        (0, b"timed"),
        (0, b"absent"),
        (0, binary),
        (0, b""),
    ]);
    assert_eq!(got[0], found("one", -1));
    let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(
        got[1],
        Err(FetchError::Upstream(wrong_type.into())),
        "exactly as Redis sent it"
    );
    let timed = got[2].clone().unwrap();
    assert_eq!(timed.value.as_deref(), Some(b"two".as_slice()));
    assert!((1..=60_000).contains(&timed.pttl_ms.unwrap()), "{timed:?}");
    let nothing = Ok(Fetched {
        value: None,
        pttl_ms: Some(-2),
        run_id: None,
    });
    assert_eq!(got[3..], [nothing.clone(), nothing.clone(), nothing]);
    pool.stop();
}

#[test]
fn databases_are_selected_in_order_and_a_refused_one_answers_for_its_keys_only() {
    let server = Server::start(free_port());
    let mut connection = server.connection();
    for db in [0, 3] {
        let () = redis::cmd("SELECT").arg(db).query(&mut connection).unwrap();
        let () = redis::cmd("SET")
            .arg("k")
            .arg(db)
            .query(&mut connection)
            .unwrap();
    }
    let mut pool = Pool::start(server.port, 3000, 1000);
    let k = b"k".as_slice();
    let got = pool.fetch_all(&[(0, k), (3, k), (3, b"no"), (0, k), (99, k), (3, k), (99, k)]);
    let refused = Err(FetchError::Upstream("ERR DB index is out of range".into()));
    assert_eq!(got[0], found("0", -1));
    assert_eq!(got[1], found("3", -1));
    assert_eq!(got[3], found("0", -1));
    assert_eq!(got[4], refused);
    assert_eq!(got[5], found("3", -1));
    assert_eq!(got[6], refused);
    assert_eq!(
        pool.fetch("k"),
        found("0", -1),
        "after a refused SELECT the database is selected again"
    );
    pool.stop();
}

#[test]
fn a_connection_closed_while_idle_costs_no_fetch() {
    let server = Server::start(free_port());
    server.run("SET a 1");
    server.run("SET b 2");
    let mut pool = Pool::start(server.port, 3000, 1000);
    for _ in 0..5 {
        assert_eq!(
            pool.fetch_all(&[(0, b"a"), (0, b"b")]),
            [found("1", -1), found("2", -1)]
        );
        assert_eq!(
            server.kill_workers(),
            1,
            "the worker's connection has its name"
        );
    }
    assert_eq!(
        pool.fetch_all(&[(0, b"b"), (0, b"a")]),
        [found("2", -1), found("1", -1)]
    );
    pool.stop();
}

#[test]
fn a_batch_of_many_keys_is_answered_key_by_key() {
    let server = Server::start(free_port());
    let mut connection = server.connection();
    let keys: Vec<String> = (0..500).map(|i| format!("key:{i}")).collect();
    for (i, key) in keys.iter().enumerate() {
        let () = redis::cmd("SET")
            .arg(key)
            .arg("v".repeat(i * 7))
            .query(&mut connection)
            .unwrap();
    }
    let mut pool = Pool::start(server.port, 3000, 1000);
    let asked: Vec<(u32, &[u8])> = keys.iter().map(|key| (0, key.as_bytes())).collect();
    for (i, got) in pool.fetch_all(&asked).into_iter().enumerate() {
        assert_eq!(got, found(&"v".repeat(i * 7), -1));
    }
    let long = vec![b'k'; 2 * BATCH_KEY_BYTES_MAX];
    let nothing = Ok(Fetched {
        value: None,
        pttl_ms: Some(-2),
        run_id: None,
    });
    assert_eq!(
        pool.fetch_all(&[(0, &long), (0, b"key:0")]),
        [nothing, found("", -1)]
    );
    pool.stop();
}

#[test]
fn without_redis_fetches_fail_at_once_and_recover_alone() {
    let port = free_port();
    let mut pool = Pool::start(port, 3000, 1000);
    let unreachable =
        |got: Result<Fetched, FetchError>| matches!(got, Err(FetchError::Unreachable(_)));
    assert!(unreachable(pool.fetch("k")));
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(unreachable(pool.fetch("k")));
    }
    // Were there an attempt for each, with its pause before it, it would take ten seconds and more.
    assert!(begin.elapsed() < PATIENCE / 4, "no attempt per fetch");
    let server = Server::start(port);
    server.run("SET k v");
    assert_eq!(Ok(pool.fetch_until_ok("k")), found("v", -1));
    server.stop();
    assert!(
        matches!(pool.fetch("k"), Err(FetchError::Lost(_))),
        "sent on the old connection, and in vain on a new one"
    );
    assert!(unreachable(pool.fetch("k")));
    let server = Server::start(port);
    assert_eq!(
        pool.fetch_until_ok("k").value,
        None,
        "the new server is empty"
    );
    server.stop();
    pool.stop();
}

#[test]
fn who_is_told_that_redis_is_back_fails_no_fetch_any_more() {
    let port = free_port();
    let mut pool = Pool::start(port, 3000, 1000);
    for round in 0..3 {
        // Each failed attempt makes the pause before the next one longer.
        let give_up = Instant::now() + Duration::from_millis(200);
        while Instant::now() < give_up {
            assert!(pool.fetch("k").is_err());
        }
        let server = Server::start(port);
        pool.fetcher.recovered();
        let got = pool.fetch("k");
        assert!(got.is_ok(), "round {round}: {got:?}");
        server.stop();
        assert!(pool.fetch("k").is_err());
        // Too early: the attempt fails, and so do those who waited for it.
        pool.fetcher.recovered();
        assert!(pool.fetch("k").is_err());
    }
    pool.stop();
}

#[test]
fn a_wrong_password_is_reported_as_unreachable() {
    let server = Server::start(free_port());
    server.run("CONFIG SET requirepass secret");
    let mut pool = Pool::start(server.port, 3000, 1000);
    let got = pool.fetch("k");
    assert_eq!(
        got,
        Err(FetchError::Upstream(
            "NOAUTH Authentication required.".into()
        ))
    );
    pool.stop();
    let mut config = config(server.port, 3000, 1000);
    config.redis_url.password = Some(crate::secret::Secret::new("wrong"));
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let fetcher = Fetcher::start(&config, None, waker).unwrap();
    let mut pool = Pool {
        fetcher,
        poll,
        ids: 0,
    };
    match pool.fetch("k") {
        Err(FetchError::Unreachable(why)) => {
            assert!(why.contains("authentication failed"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    pool.stop();
}

#[test]
fn a_silent_server_times_the_batch_out_once_and_its_connection_is_dropped() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pool = Pool::start(silent.local_addr().unwrap().port(), 200, 1000);
    let (mut first, _) = silent.accept().unwrap();
    let begin = Instant::now();
    const KEYS: usize = 60;
    let got = pool.fetch_all(&[(0, &b"d"[..]); KEYS]);
    assert_eq!(got, vec![Err(FetchError::TimedOut); KEYS]);
    // Half of what it would be at the least if each reply had its own, and thirty times what it is.
    assert!(
        begin.elapsed() < Duration::from_millis(200 * KEYS as u64 / 2),
        "the time-out is the batch's, not each reply's"
    );
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sent = Vec::new();
    first
        .read_to_end(&mut sent)
        .expect("the connection is closed from the worker's side");
    assert!(
        sent.ends_with(b"*2\r\n$4\r\nPTTL\r\n$1\r\nd\r\n"),
        "one pipeline: {}",
        sent.escape_ascii()
    );
    // The next connection works, and a late reply on the first can reach nobody.
    let (mut second, _) = silent.accept().unwrap();
    let server = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"PTTL\r\n$1\r\nk\r\n") {
            assert_eq!(second.read(&mut byte).unwrap(), 1);
            seen.push(byte[0]);
        }
        second
            .write_all(b"-NOPERM no names\r\n-NOPERM no info\r\n$1\r\nv\r\n:-1\r\n")
            .unwrap();
        second
    });
    assert_eq!(
        pool.fetch("k"),
        found("v", -1),
        "an unnamed connection is good enough"
    );
    drop(server.join().unwrap());
    pool.stop();
}

#[test]
fn jobs_older_than_the_time_out_are_not_sent() {
    let server = Server::start(free_port());
    let mut pool = Pool::start(server.port, 500, 1000);
    let mut old = pool.job(0, b"old");
    old.dispatched = old.dispatched - Duration::from_millis(501);
    let fresh = pool.job(0, b"fresh");
    pool.fetcher.submit(old).unwrap();
    pool.fetcher.submit(fresh).unwrap();
    pool.fetcher.kick();
    let got = pool.wait_for(2);
    assert_eq!(got[&FetchId(1)], Err(FetchError::TimedOut));
    assert_eq!(
        got[&FetchId(2)],
        Ok(Fetched {
            value: None,
            pttl_ms: Some(-2),
            run_id: None,
        })
    );
    pool.stop();
}

#[test]
fn answers_received_before_a_loss_stand_and_the_rest_is_sent_once_more_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pool = Pool::start(listener.local_addr().unwrap().port(), 3000, 1000);
    let server = std::thread::spawn(move || {
        let read_to = |stream: &mut TcpStream, end: &[u8]| {
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while !seen.ends_with(end) {
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                seen.push(byte[0]);
            }
            seen
        };
        let (mut one, _) = listener.accept().unwrap();
        read_to(&mut one, b"PTTL\r\n$1\r\nc\r\n");
        // a in full, b by half: a stands.
        one.write_all(b"+OK\r\n$9\r\n# Server\n\r\n$1\r\nA\r\n:-1\r\n$1\r\nold")
            .unwrap();
        drop(one);
        let (mut two, _) = listener.accept().unwrap();
        let seen = read_to(&mut two, b"PTTL\r\n$1\r\nc\r\n");
        let seen = String::from_utf8(seen).unwrap();
        assert!(!seen.contains("$1\r\na\r\n"), "{seen}");
        assert!(
            seen.find("$1\r\nb\r\n").unwrap() < seen.find("$1\r\nc\r\n").unwrap(),
            "{seen}"
        );
        two.write_all(b"+OK\r\n$9\r\n# Server\n\r\n$1\r\nB\r\n:-1\r\n$1\r\nC\r\n:5\r\n")
            .unwrap();
        // Then the server turns bad: it closes every connection once something came.
        read_to(&mut two, b"PTTL\r\n$1\r\nd\r\n");
        drop(two);
        let (mut three, _) = listener.accept().unwrap();
        read_to(&mut three, b"PTTL\r\n$1\r\nd\r\n");
        three
            .write_all(b"-ERR max number of clients reached\r\n")
            .unwrap();
    });
    let got = pool.fetch_all(&[(0, b"a"), (0, b"b"), (0, b"c")]);
    assert_eq!(got, [found("A", -1), found("B", -1), found("C", 5)]);
    let failed = pool.fetch("d");
    assert_eq!(
        failed,
        Err(FetchError::Lost("ERR max number of clients reached".into()))
    );
    server.join().unwrap();
    pool.stop();
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pool = Pool::start(silent.local_addr().unwrap().port(), 300, 2);
    let _held = silent.accept().unwrap();
    let mut accepted = 0;
    for _ in 0..1000 {
        let job = pool.job(0, b"k");
        match pool.fetcher.submit(job.clone()) {
            Ok(()) => accepted += 1,
            Err(back) => {
                assert_eq!(back, job);
                break;
            }
        }
    }
    assert!(
        (2..=1 + 2).contains(&accepted),
        "two wait, and at most one batch was taken: {accepted}"
    );
    pool.fetcher.kick();
    let got = pool.wait_for(accepted);
    assert!(
        got.values()
            .all(|result| *result == Err(FetchError::TimedOut))
    );
    pool.stop();
}

#[cfg(debug_assertions)] // elsewhere nothing can order a panic
#[test]
fn a_panic_becomes_errors_and_a_fresh_worker() {
    let server = Server::start(free_port());
    server.run("SET k v");
    let mut pool = Pool::start(server.port, 3000, 1000);
    assert_eq!(pool.fetch("k"), found("v", -1));
    assert_eq!(
        pool.fetch_all(&[(0, Mischief::WORKER_KEY), (0, b"k")])[0],
        Err(FetchError::WorkerLost)
    );
    assert_eq!(pool.fetch("k"), found("v", -1));
    pool.stop();
}
