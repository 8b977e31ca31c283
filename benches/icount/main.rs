//! What a cache hit costs: instructions in user space, counted by callgrind, and system calls, counted by strace; both
//! without noise, so that a change of either is a change of the code.
//!
//! The release proxy runs under the tool twice, in front of a redis-server of its own, serving N1 and then N2 hits;
//! (C2 - C1) / (N2 - N1) is the cost of one hit, with start and loading cancelled out. Every reply is compared byte by
//! byte. Instructions of the kernel are not in the figure. Each figure is compared with the one that is committed in
//! `figures.txt`: when a hit has become more than a tenth dearer, or a tool counted nothing, the exit code is 1. An
//! absent tool is said. `UPDATE=1 make icount` writes the figures anew.
//!
//! `make icount`, or with settings from the environment: `ONLY=resp` (or `http`, `http-new`), `P=1,64` (only these
//! pipeline depths).

mod committed;
mod load;
mod servers;

use committed::{Committed, Figure};
use load::{Load, Protocol};
use servers::{Proxy, Redis, Tool, Workdir};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What is counted: protocols and pipeline depths.
const CELLS: [(Protocol, usize); 7] = [
    (Protocol::Resp, 1),
    (Protocol::Resp, 16),
    (Protocol::Resp, 64),
    (Protocol::Http, 1),
    (Protocol::Http, 16),
    (Protocol::HttpNew, 1),
    (Protocol::HttpNew, 16),
];
/// Clients that are busy at once.
const CONNECTIONS: usize = 50;
/// Hits in the two runs, rounded down to whole rounds of all connections.
const HITS: [usize; 2] = [16_000, 64_000];
/// The same when system calls are counted.
const HITS_TRACED: [usize; 2] = [3_200, 19_200];

fn main() -> ExitCode {
    match count() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("icount: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Counts every cell that was asked for; whether none is too dear.
fn count() -> Result<bool, String> {
    let updates = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let mut committed = Committed::read()?;
    let (has_valgrind, has_strace) = (servers::has("valgrind"), servers::has("strace"));
    for (tool, is_there) in [("valgrind", has_valgrind), ("strace", has_strace)] {
        if !is_there {
            println!(
                "icount: SKIPPED what {tool} counts: it is not installed (apt-get install {tool})"
            );
        }
    }
    let mut within = true;
    for (protocol, depth) in wanted()? {
        let load = Load {
            protocol,
            connections: CONNECTIONS,
            depth,
            sent: Cell::new(0),
        };
        if has_valgrind {
            let count =
                |hits| Ok::<_, String>(run(&load, hits, Tool::Callgrind)?.instructions()? as f64);
            let each = slope(&load, HITS, count)?;
            within &= committed.judge(Figure::instructions(protocol, depth), each, "");
        }
        if has_strace {
            let mut tables = Vec::new();
            let each = slope(&load, HITS_TRACED, |hits| {
                let table = run(&load, hits, Tool::Strace)?.system_calls()?;
                // Not those of waiting threads: how often they sleep is the scheduler's doing.
                let of_threads = table.get("futex").copied().unwrap_or(0);
                let total = table
                    .get("total")
                    .copied()
                    .unwrap_or(0)
                    .saturating_sub(of_threads) as f64;
                tables.push(table);
                Ok(total)
            })?;
            let names = names(&tables, &load);
            within &= committed.judge(Figure::system_calls(protocol, depth), each, &names);
        }
    }
    if updates {
        committed.write()?;
        println!("icount: the figures are written anew");
        return Ok(true);
    }
    Ok(within)
}

/// The cost of one hit: what the second run cost more than the first, by the hits it had more.
fn slope(
    load: &Load,
    hits: [usize; 2],
    mut count: impl FnMut(usize) -> Result<f64, String>,
) -> Result<f64, String> {
    let [fewer, more] = hits.map(|hits| load.whole_rounds(hits));
    let (first, second) = (count(fewer)?, count(more)?);
    let each = (second - first) / (more - fewer) as f64;
    match each > 0.0 {
        true => Ok(each),
        false => Err("more hits did not cost more: nothing was counted".to_owned()),
    }
}

/// How often each call was made per hit.
fn names(tables: &[BTreeMap<String, u64>], load: &Load) -> String {
    let [first, second] = tables else {
        return String::new();
    };
    let [fewer, more] = HITS_TRACED.map(|hits| load.whole_rounds(hits));
    let per_hit = |name: &String| {
        let of = |table: &BTreeMap<String, u64>| table.get(name).copied().unwrap_or(0) as f64;
        (of(second) - of(first)) / (more - fewer) as f64
    };
    let named: Vec<String> = second
        .keys()
        .filter(|name| !["total", "futex"].contains(&name.as_str()) && per_hit(name) >= 0.001)
        .map(|name| format!("{name} {:.3}", per_hit(name)))
        .collect();
    format!(" ({})", named.join(", "))
}

/// A proxy that has served `hits` hits under the tool.
fn run(load: &Load, hits: usize, tool: Tool) -> Result<Proxy, String> {
    let dir = Workdir::new()?;
    let redis = Redis::start(&dir)?;
    load::fill(redis.port)?;
    let proxy = Proxy::start(dir, redis.port, tool)?;
    let port = match load.protocol {
        Protocol::Resp => proxy.resp_port,
        Protocol::Http | Protocol::HttpNew => proxy.http_port,
    };
    load.warm(port)?;
    load.run(port, hits)?;
    Ok(proxy)
}

/// The cells that the environment asks for; all without a word.
fn wanted() -> Result<Vec<(Protocol, usize)>, String> {
    let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (only, depths) = (setting("ONLY"), setting("P"));
    let cells: Vec<(Protocol, usize)> = CELLS
        .into_iter()
        .filter(|(protocol, depth)| {
            only.as_ref().is_none_or(|only| *only == protocol.name())
                && depths
                    .as_ref()
                    .is_none_or(|list| list.split(',').any(|at| at == depth.to_string()))
        })
        .collect();
    match cells.is_empty() {
        true => Err("ONLY and P leave nothing to count".to_owned()),
        false => Ok(cells),
    }
}
