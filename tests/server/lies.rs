//! What the system says is not so: a clock that jumps, a machine that slept, a name that leads elsewhere or nowhere.
//!
//! `tests/support/shim.c`, compiled with the C compiler that Rust links with, tells the real binary what a test wants.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::relay::Relay;
use crate::support::resp::Reply;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use std::process::Command;

const DAY: i64 = 24 * 3600;

/// The shim, for as long as this lives.
struct Shim {
    directory: Scratch,
}

impl Shim {
    fn compile() -> Shim {
        let directory = Scratch::new("shim");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/shim.c");
        let out = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o", "shim.so", source, "-ldl"])
            .current_dir(directory.path())
            .output()
            .expect("the C compiler that Rust links with");
        let words = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words}");
        Shim { directory }
    }

    fn under(&self, proxy: ProxyBuilder) -> ProxyBuilder {
        let path = self.directory.path().join("shim.so");
        proxy.env("LD_PRELOAD", path.display())
    }
}

/// Seconds since 1970 as the proxy's HTTP says them.
fn date_of(proxy: &Proxy) -> i64 {
    let answer = proxy.http().get("k");
    let date = answer.header("date").expect("every answer has one");
    let parsed = httpdate::parse_http_date(date).expect("it is one");
    let since = parsed.duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("it is after 1970").as_secs()).expect("it is now, more or less")
}

fn system_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("it is after 1970").as_secs()).expect("it is now, more or less")
}

#[test]
fn a_wall_clock_that_jumps_changes_the_date_and_nothing_else() {
    let redis = RedisServer::start();
    let shim = Shim::compile();
    let proxy = shim
        .under(Proxy::to(&redis).env("CACHE_TTL_SECS", "1h"))
        .tracking()
        .start_tracking();
    let (mut watched, mut client) = (Watched::by(&proxy), proxy.resp());
    redis.call(&["SET", "k", "v"]);
    watched.warm("k", &Reply::bulk("v"));
    for wrong_by in [DAY, -2 * DAY, 400 * DAY, 0] {
        proxy.put_file("clock", &format!("{wrong_by} 0"));
        eventually("the date follows", PATIENCE, || {
            (date_of(&proxy) - system_secs() - wrong_by).abs() < 60
        });
        // What was kept before is kept, is as old as it is, and what others write is seen.
        let answer = proxy.http().get("k");
        assert!(answer.is_hit(), "{answer:?}");
        let age = answer.header("age").and_then(|age| age.parse::<u32>().ok());
        assert!(age.is_some_and(|age| age < 600), "{answer:?}");
        assert_eq!(watched.get("k"), Reply::bulk("v"));
        // A life that is given as an instant is Redis's to judge.
        let at = (system_secs() + 2).to_string();
        assert_eq!(
            client.call(&["SET", "brief", "x", "EXAT", &at]),
            Reply::ok()
        );
        let far = (system_secs() + 1000).to_string();
        assert_eq!(
            client.call(&["SET", "long", "x", "EXAT", &far]),
            Reply::ok()
        );
        assert_eq!(watched.get("long"), Reply::bulk("x"));
        eventually("its time is over", PATIENCE, || {
            watched.get("brief") == Reply::NullBulk
        });
        watched.warm("long", &Reply::bulk("x"));
        watched.sees("k", Reply::bulk("v"), Reply::bulk("w"), || {
            redis.call(&["SET", "k", "w"]);
        });
        watched.sees("k", Reply::bulk("w"), Reply::bulk("v"), || {
            redis.call(&["SET", "k", "v"]);
        });
        watched.warm("k", &Reply::bulk("v"));
    }
}

#[test]
fn after_an_hour_of_sleep_nothing_of_before_is_answered_and_all_works() {
    let redis = RedisServer::start();
    let shim = Shim::compile();
    // Without tracking only the time to live ends what is kept.
    let proxy = shim
        .under(Proxy::to(&redis).env("CACHE_TTL_SECS", 1800))
        .lost_is_an_error()
        .start();
    let mut client = proxy.resp();
    for nap in 1..=3 {
        let (old, new) = (format!("old{nap}"), format!("new{nap}"));
        assert_eq!(client.call(&["SET", "k", &old]), Reply::ok());
        eventually("it is kept", PATIENCE, || {
            let (hits, _) = proxy.hits_and_misses_of(|| {
                assert_eq!(client.line("GET k"), Reply::bulk(&old));
            });
            hits == 1
        });
        redis.call(&["SET", "k", &new]);
        assert_eq!(client.line("GET k"), Reply::bulk(&old), "nobody tells");
        proxy.put_file("clock", &format!("0 {}", nap * 3600));
        // The loop reads the clock once a turn, and idle HTTP clients and links go now.
        assert_eq!(client.line("ECHO x"), Reply::bulk("x"));
        assert_eq!(client.line("GET k"), Reply::bulk(&new));
        eventually("commands are passed on", PATIENCE, || {
            matches!(client.line("INCR n"), Reply::Int(_))
        });
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_and_one_that_leads_nowhere_is_asked_again() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    first.call(&["MSET", "k", "first", "gone", "here"]);
    second.call(&["SET", "k", "second"]);
    let near = Relay::to(first.port());
    let far = Relay::at([127, 0, 0, 2], near.port(), second.port());
    let shim = Shim::compile();
    let mut proxy = shim
        .under(Proxy::to(&first))
        .env("REDIS_URL", format!("redis://redis.test:{}/0", near.port()))
        .env("REDIS_CONNECT_TIMEOUT_MS", 300)
        .file("names", "127.0.0.1")
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let (mut watched, mut client) = (Watched::by(&proxy), proxy.resp());
    watched.warm("k", &Reply::bulk("first"));
    assert_eq!(watched.get("gone"), Reply::bulk("here"));
    // The machine is gone and its name leads nowhere yet.
    proxy.put_file("names", "none");
    near.refuse(true);
    near.cut_all();
    proxy.await_redis("away");
    assert!(watched.get("k").is_own_error());
    assert_eq!(proxy.http().get("k").status, 503);
    assert!(proxy.stderr().contains("redis.test"), "{}", proxy.stderr());
    proxy.put_file("names", "127.0.0.2");
    proxy.await_coherence("tracking");
    watched.recovers("k", &Reply::bulk("second"), &Reply::bulk("second"));
    watched.recovers("gone", &Reply::NullBulk, &Reply::NullBulk);
    eventually("commands reach it too", PATIENCE, || {
        client.line("SET written second") == Reply::ok()
    });
    assert_eq!(second.call(&["GET", "written"]), Reply::bulk("second"));
    assert_eq!(first.call(&["EXISTS", "written"]), Reply::Int(0));
    // A name server that does not answer: nobody waits for it but what asks it.
    proxy.put_file("names", "hang");
    far.cut_all();
    proxy.await_redis("away");
    for _ in 0..10 {
        assert_eq!(client.line("ECHO x"), Reply::bulk("x"));
        assert!(watched.get("k").is_own_error());
    }
    proxy.put_file("names", "127.0.0.2");
    proxy.await_coherence("tracking");
    watched.recovers("k", &Reply::bulk("second"), &Reply::bulk("second"));
    // It ends in time while one is awaited.
    proxy.put_file("names", "hang");
    far.cut_all();
    proxy.await_redis("away");
    drop((watched, client));
    proxy.stop();
}
