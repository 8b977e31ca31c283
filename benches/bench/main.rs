//! How fast nearcache is beside what it stands in front of, measured by anybody on any machine: `make bench`.
//!
//! Rounds are interleaved: in each round every server is run once under every load, one at a time, the others held
//! still; so what disturbs the machine for a while disturbs all. Ratios are taken within a round, and their median is
//! told with the lowest and highest of them. CPU per request is that of all threads of the server. Every reply is
//! compared byte by byte; a wrong one ends everything with exit code 1.
//!
//! Settings from the environment: `PROTO=resp,http`, `P=1,16,64` (pipeline depths), `ROUNDS=9`, `SECONDS_EACH=0.5`,
//! `CONNECTIONS=50`, `KEYS=1000`, `VALUE=64` (bytes), `SPREAD=uniform|zipfian`, `RATE=20000` (requests per second: an
//! open loop, latencies instead of throughput).

mod figures;
mod keys;
mod load;
mod peers;
#[path = "../icount/servers.rs"]
#[allow(dead_code)] // what counts instructions is not used here
mod servers;

use figures::{Figures, Noise};
use keys::{Keys, Spread};
use load::{Pace, Protocol, Script};
use peers::Peer;
use std::process::ExitCode;
use std::time::Duration;

/// What is asked for.
struct Settings {
    protocols: Vec<Protocol>,
    paces: Vec<Pace>,
    rounds: usize,
    each: Duration,
    connections: usize,
    keys: usize,
    value_bytes: usize,
    spread: Spread,
}

fn main() -> ExitCode {
    match settings().and_then(|settings| compare(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("bench: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(settings: &Settings) -> Result<(), String> {
    peers::pin_generator();
    println!(
        "{} keys ({}), values of {} bytes, {} connections, {} rounds of {:?}",
        settings.keys,
        match settings.spread {
            Spread::Uniform => "uniform",
            Spread::Zipfian => "zipfian",
        },
        settings.value_bytes,
        settings.connections,
        settings.rounds,
        settings.each
    );
    for protocol in &settings.protocols {
        let mut keys = Keys::new(settings.keys, settings.value_bytes, settings.spread);
        let peers = peers::start(*protocol, &keys)?;
        let scripts: Vec<Script> = peers
            .iter()
            .map(|peer| Script::new(&peer.target, &keys))
            .collect();
        for (peer, script) in peers.iter().zip(&scripts) {
            load::warm(script, &keys).map_err(|why| format!("{}: {why}", peer.name))?;
            // Twice: what is remembered of a value at its first reading is there at the second.
            load::warm(script, &keys).map_err(|why| format!("{}: {why}", peer.name))?;
            peer.let_run(false);
        }
        for pace in &settings.paces {
            let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
            let noise = Noise::now();
            for _ in 0..settings.rounds {
                for ((peer, script), figures) in peers.iter().zip(&scripts).zip(&mut figures) {
                    peer.let_run(true);
                    let result = round(peer, script, &mut keys, *pace, settings);
                    peer.let_run(false);
                    figures.add(result.map_err(|why| format!("{}: {why}", peer.name))?);
                }
            }
            print(*protocol, *pace, &peers, &figures, &noise.since());
        }
    }
    Ok(())
}

fn round(
    peer: &Peer,
    script: &Script,
    keys: &mut Keys,
    pace: Pace,
    settings: &Settings,
) -> Result<figures::Round, String> {
    // A moment for what the server does on being woken, and for the connections of the round before to go.
    load::run(script, keys, settings.connections, pace, settings.each / 10)?;
    let (server, generator) = (peer.cpu_ns(), figures::own_cpu_ns());
    let outcome = load::run(script, keys, settings.connections, pace, settings.each)?;
    Ok(figures::Round {
        server_cpu_ns: peer.cpu_ns() - server,
        generator_cpu_ns: figures::own_cpu_ns() - generator,
        outcome,
    })
}

fn print(protocol: Protocol, pace: Pace, peers: &[Peer], figures: &[Figures], noise: &str) {
    let title = match pace {
        Pace::Closed { depth } => format!("{protocol}, pipeline {depth}"),
        Pace::Open { rate } => format!("{protocol}, {rate:.0} requests per second (open loop)"),
    };
    println!("\n{title} ({noise})\n");
    let yardstick = figures.get(1);
    let beside = peers.get(1).map_or("-", |peer| peer.name);
    match pace {
        Pace::Closed { .. } => {
            println!(
                "| server | requests/s | over {beside} (lowest to highest) | CPU us per request | p50 us | p99 us |"
            );
            println!("|---|---|---|---|---|---|");
        }
        Pace::Open { .. } => {
            println!("| server | p50 us | p99 us | p99.9 us | highest us | CPU us per request |");
            println!("|---|---|---|---|---|---|");
        }
    }
    for (peer, figures) in peers.iter().zip(figures) {
        match pace {
            Pace::Closed { .. } => {
                println!("| {} | {} |", peer.name, figures.closed_row(yardstick))
            }
            Pace::Open { .. } => println!("| {} | {} |", peer.name, figures.open_row()),
        }
    }
    if figures.iter().any(Figures::generator_was_full) {
        println!(
            "\n`*`: the generator used all of its core, so the server could do more; the CPU per request holds."
        );
    }
}

fn settings() -> Result<Settings, String> {
    let protocols = setting("PROTO", "resp,http")
        .split(',')
        .map(|name| match name {
            "resp" => Ok(Protocol::Resp),
            "http" => Ok(Protocol::Http),
            other => Err(format!("PROTO={other}: want resp or http")),
        })
        .collect::<Result<_, _>>()?;
    let rate: f64 = number("RATE", "0")?;
    let paces = if rate > 0.0 {
        vec![Pace::Open { rate }]
    } else {
        setting("P", "1,16,64")
            .split(',')
            .map(|depth| match depth.parse() {
                Ok(depth @ 1..=1000) => Ok(Pace::Closed { depth }),
                _ => Err(format!("P={depth}: want depths of 1 to 1000")),
            })
            .collect::<Result<_, _>>()?
    };
    let spread = match setting("SPREAD", "uniform").as_str() {
        "uniform" => Spread::Uniform,
        "zipfian" => Spread::Zipfian,
        other => return Err(format!("SPREAD={other}: want uniform or zipfian")),
    };
    Ok(Settings {
        protocols,
        paces,
        rounds: number::<usize>("ROUNDS", "9")?.max(1),
        each: Duration::from_secs_f64(number::<f64>("SECONDS_EACH", "0.5")?.clamp(0.05, 600.0)),
        connections: number::<usize>("CONNECTIONS", "50")?.clamp(1, 10_000),
        keys: number::<usize>("KEYS", "1000")?.clamp(1, 20_000_000),
        value_bytes: number::<usize>("VALUE", "64")?.clamp(1, 1 << 20),
        spread,
    })
}

fn number<T: std::str::FromStr>(name: &str, default: &str) -> Result<T, String> {
    let text = setting(name, default);
    text.parse()
        .map_err(|_| format!("{name}={text} is not a number"))
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_string())
}
