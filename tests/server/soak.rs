//! Everything at once, under faults, with a checker: seconds of it in every run, two minutes in CI, an hour by `make soak`
//! (`SOAK_SECONDS`).
//!
//! What is checked all the time: a key's versions never go back for a reader; nothing older than the bound is read; a
//! writer reads its own write or learns that its fate is unknown; errors are the proxy's own. What is checked at the
//! end: everything opened is closed, nothing is in flight, held, queued or paused, no timer or descriptor is left over,
//! memory is flat. (The end of the process checks the whole engine: see `Reactor::check`.)

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_millis(3000);
/// What a machine under load may add between the proxy's look at the clock and ours.
const SLACK: Duration = Duration::from_millis(2000);
const KEYS: usize = 8;
const MIB: u64 = 1 << 20;

/// What foreign writers have written, as Redis has said so.
struct Ledger {
    next: AtomicU64,
    /// By key: versions and when their write was answered; the front is older than any read has to know.
    written: Vec<Mutex<VecDeque<(u64, Instant)>>>,
    over: AtomicBool,
    reads: AtomicU64,
    values: AtomicU64,
    faults: AtomicU64,
}

impl Ledger {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The least version that a read handled now may show, were there no loss of data.
    fn due(&self, key: usize) -> u64 {
        let mut written = self.written[key].lock().expect("nobody panics with it");
        let long_ago = |at: &Instant| at.elapsed() > BOUND + SLACK;
        while written.len() > 1 && long_ago(&written[1].1) {
            written.pop_front();
        }
        let front = written.front().filter(|(_, at)| long_ago(at));
        front.map_or(0, |(version, _)| *version)
    }
}

/// A connection that is made again whenever it ends.
struct Stubborn<'a> {
    proxy: &'a Proxy,
    client: Option<RespClient>,
}

impl Stubborn<'_> {
    /// The reply, `None` where the connection ended instead.
    fn call(&mut self, args: &[&str]) -> Option<Reply> {
        if self.client.is_none() {
            self.client = RespClient::try_connect(self.proxy.resp_port);
        }
        let client = self.client.as_mut()?;
        let reply = match client.try_send(&encode(args)) {
            Ok(()) => client.try_reply(),
            Err(error) => Err(error.to_string()),
        };
        match reply {
            Ok(reply) => Some(reply),
            Err(end) => {
                assert!(!end.contains("time-out"), "{args:?} hangs: {end}");
                self.client = None;
                None
            }
        }
    }
}

fn foreign_writer(port: u16, ledger: &Ledger) {
    let mut client = None;
    while !ledger.is_over() {
        let version = ledger.next.fetch_add(1, Ordering::Relaxed);
        let key = version as usize % KEYS;
        let Some(direct) = client.as_mut() else {
            client = RespClient::try_connect(port);
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let sent = RespClient::try_send(
            direct,
            &encode(&["SET", &format!("k{key}"), &version.to_string()]),
        );
        match sent.ok().and_then(|()| direct.try_reply().ok()) {
            Some(reply) if reply == Reply::ok() => {
                let mut written = ledger.written[key].lock().expect("nobody panics with it");
                written.push_back((version, Instant::now()));
            }
            // Loading, or frozen for longer than we wait: whether it was written is not known.
            _ => client = None,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn reader(proxy: &Proxy, ledger: &Ledger, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Stubborn {
        proxy,
        client: None,
    };
    let mut seen = [0_u64; KEYS];
    while !ledger.is_over() {
        let key = random.usize(..KEYS);
        let due = ledger.due(key);
        let reply = client.call(&["GET", &format!("k{key}")]);
        ledger.reads.fetch_add(1, Ordering::Relaxed);
        match reply {
            Some(Reply::Bulk(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let version: u64 = text.parse().expect("writers write numbers");
                assert!(
                    version >= seen[key],
                    "k{key}: {version} after {}",
                    seen[key]
                );
                assert!(
                    version >= due,
                    "k{key}: {version}, though {due} is older than the bound"
                );
                seen[key] = version;
                ledger.values.fetch_add(1, Ordering::Relaxed);
            }
            // A Redis that was killed comes back empty.
            Some(Reply::NullBulk) | None => {}
            Some(error) => is_known(&error),
        }
        if random.u8(..100) == 0 {
            client.client = None;
        }
    }
}

/// An error of the proxy's, or one that Redis gives while it comes or is full.
#[track_caller]
fn is_known(error: &Reply) {
    let is_redis = |text: &str| {
        ["LOADING", "READONLY", "OOM", "EXECABORT"]
            .iter()
            .any(|word| text.starts_with(word))
    };
    assert!(error.is_own_error() || is_redis(error.error()), "{error:?}");
    thread::sleep(Duration::from_millis(2));
}

/// Writes through the proxy and reads back, in transactions and pipelines too.
fn own_writer(proxy: &Proxy, ledger: &Ledger, number: u64) {
    let mut client = Stubborn {
        proxy,
        client: None,
    };
    let key = format!("own{number}");
    for n in 1_u64.. {
        if ledger.is_over() {
            return;
        }
        let value = n.to_string();
        if n % 7 == 0 {
            let steps: [&[&str]; 4] = [
                &["MULTI"],
                &["SET", &key, &value],
                &["GET", &key],
                &["EXEC"],
            ];
            let replies: Vec<Option<Reply>> = steps.iter().map(|step| client.call(step)).collect();
            if let Some(Some(Reply::Array(of))) = replies.last() {
                assert_eq!(
                    of[1],
                    Reply::bulk(&value),
                    "what a transaction reads is its own"
                );
            }
            continue;
        }
        let set = client.call(&["SET", &key, &value]);
        match (&set, client.call(&["GET", &key])) {
            (Some(ok), Some(Reply::Bulk(read))) if *ok == Reply::ok() => {
                assert_eq!(read, value.as_bytes(), "{key} is written by nobody else");
            }
            (_, Some(error @ Reply::Error(_))) => is_known(&error),
            // Redis lost its data, or one of the two its connection.
            _ => {}
        }
        if let Some(error @ Reply::Error(_)) = &set {
            is_known(error);
        }
    }
}

/// Comes and goes, asks for much, leaves in the middle, subscribes, blocks.
fn crowd(proxy: &Proxy, ledger: &Ledger, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !ledger.is_over() {
        let Some(mut client) = RespClient::try_connect(proxy.resp_port) else {
            continue;
        };
        let bytes = match random.u8(..7) {
            0 => encode_line("GET k1").repeat(random.usize(1..500)),
            1 => encode(&["SET", "large", &"x".repeat(random.usize(..300_000))]),
            2 => encode_line("GET large").repeat(20),
            3 => encode_line("SUBSCRIBE news"),
            4 => encode_line("BLPOP nothing 0.05"),
            5 => b"*2\r\n$3\r\nGET\r\n$400000\r\nabc".to_vec(),
            _ => encode_line("MGET k1 k2 k3 missing").repeat(10),
        };
        let _ = client.try_send(&bytes);
        if random.bool() {
            let _ = client.try_reply_now();
        }
        if random.u8(..4) == 0
            && let Some(mut http) = crate::support::http::HttpClient::try_connect(proxy.http_port)
        {
            http.try_send_and_finish(b"GET /get?key=k2 HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

fn one_fault(redis: &mut RedisServer, relay: &Relay, proxy: &Proxy, random: &mut fastrand::Rng) {
    let moment = || thread::sleep(Duration::from_millis(150));
    match random.u8(..8) {
        0 => relay.cut_all(),
        1 => {
            redis.freeze();
            moment();
            redis.thaw();
        }
        2 => {
            relay.pause(Way::Down);
            moment();
            relay.resume(Way::Down);
        }
        3 => {
            relay.pause(Way::Up);
            moment();
            relay.resume(Way::Up);
        }
        4 => {
            redis.kill();
            moment();
            redis.boot();
        }
        5 => relay.cut_next_after(Way::Down, random.u64(..3000)),
        6 => {
            relay.refuse(true);
            relay.cut_all();
            moment();
            relay.refuse(false);
        }
        _ => proxy.signal("HUP"),
    }
}

fn descriptors(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .expect("it is running")
        .count()
}

#[test]
fn everything_at_once_under_faults() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(6, |text| text.parse().expect("a number"));
    let mut redis = RedisServer::start();
    let redis_port = redis.port();
    let relay = Relay::to(redis_port);
    let proxy = Proxy::through(&relay)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("REDIS_TIMEOUT_MS", 1000)
        .env("LINK_DEAD_MS", 2000)
        .env("LINK_IDLE_SECS", 2)
        .env("CACHE_MAX_BYTES", "8MiB")
        .env("BUFFERS_MAX_BYTES", "32MiB")
        .env("LOG_LEVEL", "error")
        .start_tracking();
    let ledger = Ledger {
        next: AtomicU64::new(1),
        written: (0..KEYS).map(|_| Mutex::default()).collect(),
        over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        values: AtomicU64::new(0),
        faults: AtomicU64::new(0),
    };
    let (began, mut warm) = (Instant::now(), None);
    let descriptors_before = descriptors(&proxy);
    thread::scope(|scope| {
        let (proxy, ledger) = (&proxy, &ledger);
        let _over = Over(ledger);
        scope.spawn(move || foreign_writer(redis_port, ledger));
        for seed in 0..3 {
            scope.spawn(move || reader(proxy, ledger, seed));
            scope.spawn(move || crowd(proxy, ledger, seed));
        }
        for number in 0..2 {
            scope.spawn(move || own_writer(proxy, ledger, number));
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut said = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_millis(random.u64(100..600)));
            one_fault(&mut redis, &relay, proxy, &mut random);
            ledger.faults.fetch_add(1, Ordering::Relaxed);
            if warm.is_none() && began.elapsed() > Duration::from_secs(seconds / 3) {
                warm = Some(proxy.resident_bytes());
            }
            if said.elapsed() > Duration::from_secs(60) {
                said = Instant::now();
                tell(proxy, ledger, began);
            }
        }
    });
    tell(&proxy, &ledger, began);
    assert!(
        ledger.values.load(Ordering::Relaxed) > 100,
        "something was read"
    );
    proxy.await_coherence("tracking");
    eventually("nothing is left of it", PATIENCE, || {
        let info = proxy.info();
        let number = |name: &str| info[name].parse::<u64>().expect("a number");
        let live = |of: &str| {
            number(&format!("nearcache_{of}_opened")) - number(&format!("nearcache_{of}_closed"))
        };
        assert_eq!(live("clients"), number("nearcache_clients"));
        assert_eq!(live("links"), number("nearcache_links"));
        number("nearcache_clients") == 1
            && number(info::IN_FLIGHT) == 0
            && number(info::QUEUED_NOW) == 0
            && number("nearcache_paused_now") == 0
            && number("nearcache_buffer_bytes") < 256 * 1024
            && number("nearcache_timers") <= number("nearcache_links") + 6
            && number("nearcache_links") <= 3
    });
    eventually("no descriptor is left over", PATIENCE, || {
        descriptors(&proxy) <= descriptors_before + 4
    });
    assert_eq!(proxy.counter("nearcache_verify_mismatches"), 0);
    let (warm, now) = (
        warm.expect("a third of the time is over"),
        proxy.resident_bytes(),
    );
    assert!(
        now.saturating_sub(warm) < 24 * MIB,
        "memory is not flat: {} MiB, then {}",
        warm / MIB,
        now / MIB
    );
}

/// Ends the threads of a scope also when the test fails: the scope waits for them.
struct Over<'a>(&'a Ledger);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn tell(proxy: &Proxy, ledger: &Ledger, began: Instant) {
    println!(
        "soak: {:>5} s, {} reads, {} values, {} faults, {} MiB, {} hits",
        began.elapsed().as_secs(),
        ledger.reads.load(Ordering::Relaxed),
        ledger.values.load(Ordering::Relaxed),
        ledger.faults.load(Ordering::Relaxed),
        proxy.resident_bytes() / MIB,
        proxy.counter(info::HITS),
    );
}
