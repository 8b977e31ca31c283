//! Many writers and readers of versions that only grow: no reader of one proxy ever sees one go back.

use crate::support::coherent::{SLACK, Watched};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode};
use crate::support::{PATIENCE, eventually};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: usize = 3;
const WRITERS: usize = 8;
const READERS: usize = 8;
const PROBES: usize = 300;
const BOUND: Duration = Duration::from_millis(3000);

/// The newest version of each key that any client of the proxy was told of. Whoever asks later is told no older one.
type Told = [AtomicU64; KEYS];

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn number(reply: &Reply) -> u64 {
    match reply {
        Reply::Int(n) => u64::try_from(*n).expect("versions are positive"),
        Reply::Bulk(text) => String::from_utf8_lossy(text)
            .parse()
            .expect("a version is a number"),
        Reply::NullBulk => 0,
        other => panic!("no version: {other:?}"),
    }
}

fn read(client: &mut RespClient, key: usize, told: &Told) -> u64 {
    // Looked at before the question is sent, so that what it says was told earlier.
    let least = told[key].load(Ordering::SeqCst);
    let version = number(&client.call(&["GET", &format!("k{key}")]));
    assert!(version >= least, "k{key}: {version} after {least}");
    told[key].fetch_max(version, Ordering::SeqCst);
    version
}

fn write(client: &mut RespClient, key: usize, round: usize) -> u64 {
    let name = format!("k{key}");
    let script = "return redis.call('INCR', ARGV[1])";
    let reply = match round % 3 {
        0 => client.call(&["EVAL", script, "0", &name]),
        _ => client.call(&["INCR", &name]),
    };
    number(&reply)
}

#[test]
fn no_reader_sees_a_version_go_back_while_eight_write() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("VERIFY_SAMPLE", 1)
        .start_tracking();
    let told = Told::default();
    let over = AtomicBool::new(false);
    show("with nobody else", &lags(&redis, &proxy));
    thread::scope(|scope| {
        let stop = StopAtEnd(&over);
        for number in 0..WRITERS {
            let mut client = if number % 2 == 0 {
                redis.client()
            } else {
                proxy.resp()
            };
            let (told, over) = (&told, &over);
            scope.spawn(move || {
                for round in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = (number + round) % KEYS;
                    let version = write(&mut client, key, round);
                    if number % 2 == 1 {
                        // Its reply has passed the proxy: from now on nobody there reads less.
                        told[key].fetch_max(version, Ordering::SeqCst);
                    }
                    // So that there are hits too.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for number in 0..READERS {
            let mut client = proxy.resp();
            let (told, over) = (&told, &over);
            scope.spawn(move || {
                for round in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    read(&mut client, (number + round) % KEYS, told);
                }
            });
        }
        let under_load = lags(&redis, &proxy);
        drop(stop);
        show("under load", &under_load);
    });
    assert!(proxy.counter(info::HITS) > 0 && proxy.counter(info::PUSHES) > 0);
    no_checked_hit_was_wrong(&proxy);
    for key in 0..KEYS {
        let name = format!("k{key}");
        let last = redis.call(&["GET", &name]);
        eventually("the last version is read", PATIENCE, || {
            proxy.resp().call(&["GET", &name]) == last
        });
    }
}

/// Every difference found was explained by a change that Redis told of.
fn no_checked_hit_was_wrong(proxy: &Proxy) {
    let figure = |name: &str| proxy.counter(&format!("nearcache_{name}"));
    let pings = figure("ping_count");
    // What differs is judged after the next PING or two.
    eventually("all checks are judged", PATIENCE, || {
        figure("ping_count") >= pings + 3
    });
    // Under load most of what is checked has changed meanwhile, which counts for nothing.
    let mut reader = proxy.resp();
    eventually("some hits are checked", PATIENCE, || {
        reader.call(&["GET", "k0"]);
        figure("verify_checks") > 0
    });
    assert_eq!(figure("verify_mismatches"), 0);
}

/// How long after Redis's reply to a foreign write its value was read, sorted.
fn lags(redis: &RedisServer, proxy: &Proxy) -> Vec<Duration> {
    let (mut direct, mut client) = (redis.client(), proxy.resp());
    let mut lags: Vec<Duration> = (0..PROBES).map(|_| lag(&mut direct, &mut client)).collect();
    lags.sort();
    lags
}

fn show(when: &str, lags: &[Duration]) {
    println!(
        "a foreign write is read after, {when}: p50 {:?}, p99 {:?}, max {:?} ({} writes)",
        lags[lags.len() / 2],
        lags[lags.len() * 99 / 100],
        lags[lags.len() - 1],
        lags.len(),
    );
}

/// Makes a hit of a key, changes it past the proxy, and asks until the change shows.
fn lag(direct: &mut RespClient, client: &mut RespClient) -> Duration {
    // A script's reply comes when the pushes of before are handled: what is kept now stays kept.
    client.call(&["EVAL", "return 0", "0"]);
    client.call(&["GET", "probe"]);
    client.call(&["GET", "probe"]);
    let version = number(&direct.call(&["INCR", "probe"]));
    let written = Instant::now();
    loop {
        let asked = written.elapsed();
        if number(&client.call(&["GET", "probe"])) >= version {
            return written.elapsed();
        }
        assert!(asked < BOUND + SLACK, "old {asked:?} after the write");
    }
}

#[test]
fn foreign_writes_are_seen_while_ten_thousand_others_pass_each_second() {
    const BATCH: usize = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("VERIFY_SAMPLE", 1)
        .start_tracking();
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let pushes = thread::scope(|scope| {
        let stop = StopAtEnd(&over);
        let (redis, over) = (&redis, &over);
        scope.spawn(move || {
            let mut direct = redis.client();
            let mut due = Instant::now();
            for round in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let batch: Vec<u8> = (0..BATCH)
                    .flat_map(|n| encode(&["SET", &format!("noise:{n}"), &round.to_string()]))
                    .collect();
                direct.send(&batch);
                direct.replies(BATCH);
                due += PAUSE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        eventually("others write", PATIENCE, || {
            proxy.counter(info::PUSHES) > 10 * BATCH as u64
        });
        let lags = lags(redis, &proxy);
        drop(stop);
        show("with 10,000 others in a second", &lags);
        proxy.counter(info::PUSHES)
    });
    let per_sec = pushes as f64 / began.elapsed().as_secs_f64();
    println!("{pushes} pushes, {per_sec:.0} in a second");
    // Each of them was heard of, one by one.
    let (mut client, last) = (proxy.resp(), redis.call(&["GET", "noise:0"]));
    eventually("the last value is read", PATIENCE, || {
        client.line("GET noise:0") == last
    });
    no_checked_hit_was_wrong(&proxy);
}

#[test]
fn two_proxies_follow_each_other() {
    let redis = RedisServer::start();
    let proxies = [Proxy::tracking(&redis), Proxy::tracking(&redis)];
    let mut watched = [Watched::by(&proxies[0]), Watched::by(&proxies[1])];
    redis.call(&["SET", "k", "0"]);
    for round in 1..=30 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let (old, new) = (
            Reply::bulk((round - 1).to_string()),
            Reply::bulk(round.to_string()),
        );
        watched[here].warm("k", &old);
        let mut writer = proxies[here].resp();
        watched[there].sees("k", old, new.clone(), || {
            assert_eq!(writer.call(&["SET", "k", &round.to_string()]), Reply::ok());
        });
        watched[here].stays("k", &new);
    }
}
