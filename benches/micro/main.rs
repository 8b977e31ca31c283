//! What the parts cost by themselves: the parsers, the cache and the timing wheel, in nanoseconds per call and in the
//! longest pause of one call. For finding out where a change of `make icount` comes from; nothing is asserted here, for
//! times depend on the machine (the tests of each part count its work instead).
//!
//! `make micro`, or with `ONLY=cache` (or `parser`, `wheel`, `pauses`).

mod cache;
mod parser;
mod wheel;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Each figure is the least of so many runs: what disturbs a run makes it longer, never shorter.
const RUNS: usize = 7;

fn main() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let parts: [(&str, fn()); 4] = [
        ("parser", parser::run),
        ("cache", cache::run),
        ("wheel", wheel::run),
        ("pauses", cache::pauses),
    ];
    println!("| what | ns each |\n|---|---|");
    for (name, run) in parts {
        if only.is_empty() || only == name {
            run();
        }
    }
}

/// Times `n` calls together and prints what one takes.
fn each<T>(what: &str, n: usize, mut call: impl FnMut(usize) -> T) {
    let time = || {
        let begun = Instant::now();
        for i in 0..n {
            black_box(call(i));
        }
        begun.elapsed()
    };
    let least = std::iter::repeat_with(time).take(RUNS).min();
    print(what, least.unwrap_or_default().as_nanos() as f64 / n as f64);
}

/// Times every call and prints what one took on average and the longest took.
fn longest(what: &str, calls: impl Iterator<Item = Duration>) {
    let (mut n, mut sum, mut longest) = (0u32, Duration::ZERO, Duration::ZERO);
    for took in calls {
        (n, sum, longest) = (n + 1, sum + took, longest.max(took));
    }
    let mean = sum.as_nanos() as f64 / f64::from(n.max(1));
    println!(
        "| {what} | {mean:.0}, the longest of {n}: {:.0} us |",
        longest.as_nanos() as f64 / 1e3
    );
}

fn print(what: &str, ns: f64) {
    println!("| {what} | {ns:.1} |");
}

/// How long `call` takes.
fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = call();
    (begun.elapsed(), result)
}
