//! What a cache hit costs: instructions in user space, counted by callgrind (without noise, and a gate for CI), and
//! system calls, counted by strace.
//!
//! The release proxy runs under the tool twice, in front of a redis-server of its own, serving N1 and then N2 hits;
//! (C2 - C1) / (N2 - N1) is the cost of one hit, with start and loading cancelled out. Every reply is compared byte by
//! byte. Instructions of the kernel are not in the figure. It never passes without having counted: an absent tool is
//! said, a wrong reply or a count above the gate ends it with exit code 1.
//!
//! `make icount`, or with settings from the environment: `P=1,16,64` (pipeline depths), `PROTO=http` (printed, never
//! gated), `GATE=450` (instructions per RESP hit, applied where the depth is 16).

mod load;
mod servers;

use load::{Load, Protocol};
use servers::{Proxy, Redis, Tool, Workdir};
use std::process::ExitCode;

/// Instructions allowed per RESP hit at [`GATED_DEPTH`]. Beside it: redis-server 3,500, a minimal C server 152.
const GATE_DEFAULT: u64 = 450;
const GATED_DEPTH: usize = 16;
/// Connections when instructions are counted; of system calls also the figure of one alone is told, which is the most.
const CONNECTIONS: usize = 50;
/// Hits in the two runs, rounded down to whole rounds of all connections.
const HITS: [usize; 2] = [32_000, 160_000];
/// The same when system calls are counted.
const HITS_TRACED: [usize; 2] = [1_600, 33_600];
/// Pipeline depths for which system calls are counted.
const DEPTHS_TRACED: [usize; 2] = [1, 16];

fn main() -> ExitCode {
    let instructions = if servers::has("valgrind") {
        measure()
    } else {
        println!(
            "icount: SKIPPED, no instructions were counted: valgrind is not installed (apt-get install valgrind)"
        );
        Ok(true)
    };
    let calls = match servers::has("strace") {
        true => protocol().and_then(trace),
        false => {
            println!(
                "icount: SKIPPED, no system calls were counted: strace is not installed (apt-get install strace)"
            );
            Ok(())
        }
    };
    match (instructions, calls) {
        (Ok(true), Ok(())) => ExitCode::SUCCESS,
        (Ok(false), Ok(())) => ExitCode::FAILURE,
        (Err(why), _) | (_, Err(why)) => {
            println!("icount: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the instructions per hit for each depth; whether all gated ones are within the gate.
fn measure() -> Result<bool, String> {
    let protocol = protocol()?;
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
        let load = Load {
            protocol,
            connections: CONNECTIONS,
            depth,
        };
        let hits = HITS.map(|hits| load.whole_rounds(hits));
        let count = |hits| run(&load, hits, Tool::Callgrind)?.instructions();
        let [fewer, more] = [count(hits[0])?, count(hits[1])?];
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

/// Prints the system calls per hit.
fn trace(protocol: Protocol) -> Result<(), String> {
    for (depth, connections) in DEPTHS_TRACED
        .into_iter()
        .flat_map(|depth| [(depth, 1), (depth, CONNECTIONS)])
    {
        let load = Load {
            protocol,
            connections,
            depth,
        };
        let hits = HITS_TRACED.map(|hits| load.whole_rounds(hits));
        let count = |hits| run(&load, hits, Tool::Strace)?.system_calls();
        let [fewer, more] = [count(hits[0])?, count(hits[1])?];
        let per_hit = |name: &str| {
            let calls = |table: &std::collections::BTreeMap<String, u64>| {
                table.get(name).copied().unwrap_or(0) as f64
            };
            (calls(&more) - calls(&fewer)) / (hits[1] - hits[0]) as f64
        };
        let named: Vec<String> = more
            .keys()
            .filter(|name| name.as_str() != "total" && per_hit(name) >= 0.005)
            .map(|name| format!("{name} {:.2}", per_hit(name)))
            .collect();
        println!(
            "icount: {:.2} system calls per {protocol} hit at pipeline {depth}, connections {connections} ({})",
            per_hit("total"),
            named.join(", ")
        );
    }
    Ok(())
}

/// A proxy that has served `hits` hits under the tool.
fn run(load: &Load, hits: usize, tool: Tool) -> Result<Proxy, String> {
    let dir = Workdir::new()?;
    let redis = Redis::start(&dir)?;
    load::fill(redis.port)?;
    let proxy = Proxy::start(dir, redis.port, tool)?;
    let port = match load.protocol {
        Protocol::Resp => proxy.resp_port,
        Protocol::Http => proxy.http_port,
    };
    load.warm(port)?;
    load.run(port, hits)?;
    Ok(proxy)
}

fn protocol() -> Result<Protocol, String> {
    match setting("PROTO", "resp").as_str() {
        "resp" => Ok(Protocol::Resp),
        "http" => Ok(Protocol::Http),
        other => Err(format!("PROTO={other}: want resp or http")),
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_string())
}
