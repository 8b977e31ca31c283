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

/// Prints what the usual call took, and the slowest ones. On a busy machine those are what others took of the core: then
/// the 99th percentile says more.
fn longest(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let us = |per_mille: usize| {
        let at = (took.len() * per_mille / 1000).min(took.len().saturating_sub(1));
        took.get(at)
            .map_or(0.0, |took| took.as_nanos() as f64 / 1e3)
    };
    println!(
        "| {what} | median {:.1} us, 99% {:.1} us, longest of {} {:.1} us |",
        us(500),
        us(990),
        took.len(),
        us(1000)
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
