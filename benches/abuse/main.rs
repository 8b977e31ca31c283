//! What abuse costs those who do none, measured by anybody on any machine: `make abuse`.
//!
//! For each case of `tests/support/abuse.rs` a fresh proxy with default settings: its memory before, at its worst and
//! afterwards, and the 99th percentile of a well-behaved client's reads before and meanwhile. Nothing is asserted here;
//! the tests assert memory and counts.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::abuse::{CASES, HOT, prepare};
use support::proxy::Proxy;
use support::redis_server::RedisServer;
use support::resp::Reply;

/// How long the well-behaved client is measured at least, before and with each case.
const MEASURED: Duration = Duration::from_secs(2);
const MIB: f64 = (1 << 20) as f64;

fn main() {
    println!(
        "{:<58} {:>21}  {:>19}  reads/s",
        "case", "MiB before/at/after", "p99 us before/with"
    );
    for case in CASES {
        let redis = RedisServer::start();
        let proxy = Proxy::to(&redis).start();
        prepare(&proxy);
        let (quiet, _) = reads(&proxy, || std::thread::sleep(MEASURED));
        let before = proxy.resident_bytes() as f64 / MIB;
        proxy.forget_peak();
        let (busy, rate) = reads(&proxy, || {
            let since = Instant::now();
            let burden = (case.act)(&proxy);
            std::thread::sleep(MEASURED.saturating_sub(since.elapsed()));
            drop(burden);
        });
        let at = proxy.resident_peak_bytes() as f64 / MIB;
        // What is freed in the background has the time for it.
        std::thread::sleep(Duration::from_millis(500));
        let after = proxy.resident_bytes() as f64 / MIB;
        println!(
            "{:<58} {before:>6.0} {at:>6.0} {after:>6.0}   {quiet:>9.0} {busy:>9.0}  {rate:>8.0}",
            case.name
        );
    }
}

/// The 99th percentile of a read's time in microseconds while `act` runs, and reads per second.
fn reads(proxy: &Proxy, act: impl FnOnce()) -> (f64, f64) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = proxy.resp();
            let expected = Reply::bulk("v".repeat(10));
            let (mut times, began) = (Vec::new(), Instant::now());
            while !over.load(Ordering::Relaxed) {
                let since = Instant::now();
                assert_eq!(client.call(&["GET", HOT]), expected);
                times.push(since.elapsed());
            }
            (times, began.elapsed())
        });
        act();
        over.store(true, Ordering::Relaxed);
        let (mut times, took) = reader.join().expect("who does no harm is answered");
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100].as_secs_f64() * 1e6;
        (p99, times.len() as f64 / took.as_secs_f64())
    })
}
