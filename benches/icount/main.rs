//! User-space instructions per cache hit, counted by callgrind: a figure without noise, and a gate for CI.
//!
//! The release proxy runs under `valgrind --tool=callgrind` twice, in front of a redis-server of its own, serving N1 and
//! then N2 hits over 50 connections; (I2 - I1) / (N2 - N1) is the cost of one hit, with start and loading cancelled out.
//! Every reply is compared byte by byte. What the kernel does is not in the figure. It never passes without having
//! counted: an absent valgrind is said, a wrong reply or a count above the gate ends it with exit code 1.
//!
//! `make icount`, or with settings from the environment: `P=1,16,64` (pipeline depths), `PROTO=http` (printed, never
//! gated), `GATE=450` (instructions per RESP hit, applied where the depth is 16).

mod load;
mod servers;

use load::{Load, Protocol};
use servers::{Proxy, Redis, Workdir};
use std::process::ExitCode;

/// Instructions allowed per RESP hit at [`GATED_DEPTH`]. Beside it: redis-server 3,500, a minimal C server 152.
const GATE_DEFAULT: u64 = 450;
const GATED_DEPTH: usize = 16;
/// Hits in the two runs, rounded down to whole rounds of all connections.
const HITS: [usize; 2] = [32_000, 160_000];

fn main() -> ExitCode {
    if !servers::has("valgrind") {
        println!(
            "icount: SKIPPED, nothing was counted: valgrind is not installed (apt-get install valgrind)"
        );
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("icount: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a figure for each depth; whether all gated ones are within the gate.
fn measure() -> Result<bool, String> {
    let protocol = match setting("PROTO", "resp").as_str() {
        "resp" => Protocol::Resp,
        "http" => Protocol::Http,
        other => return Err(format!("PROTO={other}: want resp or http")),
    };
    let gate: u64 = setting("GATE", &GATE_DEFAULT.to_string())
        .parse()
        .map_err(|_| "GATE is not a number")?;
    let mut within = true;
    for depth in setting("P", &GATED_DEPTH.to_string()).split(',') {
        let depth: usize = depth
            .parse()
            .ok()
            .filter(|d| (1..=1000).contains(d))
            .ok_or("P is not a list of depths")?;
        let load = Load { protocol, depth };
        let hits = HITS.map(|hits| load.whole_rounds(hits));
        let [fewer, more] = [count(&load, hits[0])?, count(&load, hits[1])?];
        let each = more.saturating_sub(fewer) / (hits[1] - hits[0]) as u64;
        let gated = protocol == Protocol::Resp && depth == GATED_DEPTH;
        let verdict = match (gated, each <= gate) {
            (false, _) => "not gated".to_string(),
            (true, true) => format!("gate {gate}: passed"),
            (true, false) => format!("gate {gate}: EXCEEDED"),
        };
        println!(
            "icount: {each} user instructions per {protocol} hit at pipeline {depth} ({verdict})"
        );
        within &= !gated || each <= gate;
    }
    Ok(within)
}

/// Instructions of a whole life of the proxy that serves `hits` hits.
fn count(load: &Load, hits: usize) -> Result<u64, String> {
    let dir = Workdir::new()?;
    let redis = Redis::start(&dir)?;
    load::fill(redis.port)?;
    let proxy = Proxy::start(&dir, redis.port)?;
    let port = match load.protocol {
        Protocol::Resp => proxy.resp_port,
        Protocol::Http => proxy.http_port,
    };
    load.warm(port)?;
    load.run(port, hits)?;
    proxy.stop_and_count()
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_string())
}
