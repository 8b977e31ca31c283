//! How fast nearcache is beside what it stands in front of, measured by anybody on any machine: `make bench`.
//!
//! Rounds are interleaved: in each round every server is run once under every load, one at a time, the others held
//! still; so what disturbs the machine for a while disturbs all. Ratios are taken within a round, and their median is
//! told with the lowest and highest of them. CPU per request is that of all threads of the server. Every reply is
//! compared byte by byte; a wrong one ends everything with exit code 1.
//!
//! Without settings all sections are run. With one of them only what it asks for: `PROTO=resp,http` (or `set`, `miss`: what
//! goes on to Redis, and the CPU of both), `P=1,16,64` (pipeline depths), `CONNECTIONS=50`, `KEYS=1000`, `VALUE=64` (bytes), `SPREAD=uniform|zipfian`, `RATE=20000` (requests per second:
//! an open loop, latencies instead of throughput) or `RATE=half` (of what Redis serves). `ROUNDS=9`, `SECONDS_EACH=0.5` and
//! `KEYS_MANY=1000000` go with both.

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

/// What is asked for: one table for each pace.
#[derive(Clone)]
struct Settings {
    about: String,
    protocol: Protocol,
    servers: Servers,
    paces: Vec<Wanted>,
    rounds: usize,
    each: Duration,
    connections: usize,
    keys: usize,
    value_bytes: usize,
    spread: Spread,
}

impl Settings {
    /// What is passed on to Redis.
    fn relayed(self) -> Settings {
        Settings {
            about: "SET, passed on: CPU beside that of the Redis behind".to_owned(),
            servers: Servers::Upstream,
            protocol: Protocol::RespSet,
            ..self
        }
    }

    /// What Redis is asked for, each key anew.
    fn missed(self) -> Settings {
        Settings {
            about: "misses: CPU beside that of the Redis behind".to_owned(),
            servers: Servers::Upstream,
            keys: self.keys.max(100_000),
            ..self
        }
    }
}

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Servers {
    /// nearcache, its yardstick, and what else is installed.
    All,
    /// nearcache with these keys, and with a thousand of them.
    ManyAndFew,
    /// Two proxies that share the load, and one.
    TwoAndOne,
    /// nearcache in front of its Redis, both at work: what the one uses over what the other does.
    Upstream,
}

/// A pace, or how to find it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    Exactly(Pace),
    /// An open loop at half of what the yardstick serves one request at a time.
    HalfOfYardstick,
}

/// A server, what it is asked, and in which order.
struct Lane {
    peer: Peer,
    keys: Keys,
    script: Script,
}

impl Lane {
    fn new(peer: Peer, keys: Keys) -> Result<Lane, String> {
        let script = Script::new(&peer.target, &keys);
        // Twice: what is remembered of a value at its first reading is there at the second.
        for _ in 0..2 {
            load::warm(&script, &keys).map_err(|why| format!("{}: {why}", peer.name))?;
        }
        peer.let_run(false);
        Ok(Lane { peer, keys, script })
    }

    fn round(&mut self, pace: Pace, settings: &Settings) -> Result<figures::Round, String> {
        self.peer.let_run(true);
        let result = round(self, pace, settings);
        self.peer.let_run(false);
        result.map_err(|why| format!("{}: {why}", self.peer.name))
    }
}

fn main() -> ExitCode {
    let done = sections().and_then(|sections| {
        peers::pin_generator();
        sections.iter().try_for_each(compare)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("bench: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(settings: &Settings) -> Result<(), String> {
    println!(
        "\n## {}: {} keys ({:?}), values of {} bytes, {} connections, {} rounds of {:?}",
        settings.about,
        settings.keys,
        settings.spread,
        settings.value_bytes,
        settings.connections,
        settings.rounds,
        settings.each
    );
    let mut lanes = lanes(settings)?;
    for wanted in &settings.paces {
        let pace = match wanted {
            Wanted::Exactly(pace) => *pace,
            Wanted::HalfOfYardstick => {
                let yardstick = lanes.get_mut(1);
                let yardstick = yardstick.ok_or("RATE=half needs another server beside it")?;
                let found = yardstick
                    .round(Pace::Closed { depth: 1 }, settings)?
                    .outcome;
                let per_sec = found.replies as f64 / found.elapsed.as_secs_f64();
                Pace::Open {
                    rate: (per_sec / 2.0).max(1.0),
                }
            }
        };
        let mut figures: Vec<Figures> = lanes.iter().map(|_| Figures::default()).collect();
        let noise = Noise::now();
        for _ in 0..settings.rounds {
            for (n, (lane, figures)) in lanes.iter_mut().zip(&mut figures).enumerate() {
                match lane.round(pace, settings) {
                    Ok(round) => figures.add(round),
                    // Not nearcache or its yardstick: webdis answers pipelined requests in another order.
                    Err(why) if n > 1 => figures.fail(why),
                    Err(why) => return Err(why),
                }
            }
        }
        if settings.servers == Servers::Upstream {
            print_upstream(settings.protocol, pace, &figures, &noise.since());
            continue;
        }
        let names: Vec<&str> = lanes.iter().map(|lane| lane.peer.name).collect();
        print(settings.protocol, pace, &names, &figures, &noise.since());
    }
    Ok(())
}

fn lanes(settings: &Settings) -> Result<Vec<Lane>, String> {
    let keys = |count| Keys::new(count, settings.value_bytes, settings.spread);
    let all = keys(settings.keys);
    let peers = match settings.servers {
        Servers::All => peers::start(settings.protocol, &all)?,
        Servers::TwoAndOne => vec![
            peers::two(&all)?,
            peers::nearcache(settings.protocol, &all)?,
        ],
        Servers::Upstream => vec![peers::nearcache_missing(settings.protocol, &all)?],
        Servers::ManyAndFew => {
            let few = keys(1000);
            let mut peer = peers::nearcache(settings.protocol, &few)?;
            peer.name = "a thousand";
            let mut many = peers::nearcache(settings.protocol, &all)?;
            many.name = "many keys";
            return Ok(vec![Lane::new(many, all)?, Lane::new(peer, few)?]);
        }
    };
    peers
        .into_iter()
        .map(|peer| Lane::new(peer, keys(settings.keys)))
        .collect()
}

fn round(lane: &mut Lane, pace: Pace, settings: &Settings) -> Result<figures::Round, String> {
    let Lane { peer, keys, script } = lane;
    // A moment for what the server does on being woken, and for the connections of the round before to go.
    load::run(script, keys, settings.connections, pace, settings.each / 10)?;
    let (server, behind) = (peer.cpu_ns(), peer.cpu_ns_behind());
    let generator = figures::own_cpu_ns();
    let outcome = load::run(script, keys, settings.connections, pace, settings.each)?;
    Ok(figures::Round {
        server_cpu_ns: peer.cpu_ns() - server,
        behind_cpu_ns: peer.cpu_ns_behind() - behind,
        generator_cpu_ns: figures::own_cpu_ns() - generator,
        outcome,
    })
}

fn print(protocol: Protocol, pace: Pace, names: &[&str], figures: &[Figures], noise: &str) {
    let title = match pace {
        Pace::Closed { depth } => format!("{protocol}, pipeline {depth}"),
        Pace::Open { rate } => format!("{protocol}, {rate:.0} requests per second (open loop)"),
    };
    println!("\n{title} ({noise})\n");
    let yardstick = figures.get(1);
    let beside = names.get(1).unwrap_or(&"-");
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
    for (name, figures) in names.iter().zip(figures) {
        match pace {
            Pace::Closed { .. } => {
                println!("| {name} | {} |", figures.closed_row(yardstick))
            }
            Pace::Open { .. } => println!("| {name} | {} |", figures.open_row()),
        }
    }
    if figures.iter().any(Figures::generator_was_full) {
        println!(
            "\n`*`: the generator used all of its core, so the server could do more; the CPU per request holds."
        );
    }
}

fn print_upstream(protocol: Protocol, pace: Pace, figures: &[Figures], noise: &str) {
    if let Pace::Closed { depth } = pace {
        println!("\n{protocol}, pipeline {depth} ({noise})\n");
    }
    println!(
        "| requests/s | CPU us of nearcache | of its Redis | the one over the other (lowest to highest) |"
    );
    println!("|---|---|---|---|");
    for figures in figures {
        println!("| {} |", figures.upstream_row());
    }
}

/// What the environment asks for; without a word of it, all that the README has a row for.
fn sections() -> Result<Vec<Settings>, String> {
    let names = [
        "PROTO",
        "P",
        "RATE",
        "SPREAD",
        "KEYS",
        "VALUE",
        "CONNECTIONS",
    ];
    let base = Settings {
        about: "hits".to_owned(),
        protocol: Protocol::Resp,
        servers: Servers::All,
        paces: depths("1,16,64")?,
        rounds: number::<usize>("ROUNDS", "9")?.max(1),
        each: Duration::from_secs_f64(number::<f64>("SECONDS_EACH", "0.5")?.clamp(0.05, 600.0)),
        connections: number::<usize>("CONNECTIONS", "50")?.clamp(1, 10_000),
        keys: number::<usize>("KEYS", "1000")?.clamp(1, 20_000_000),
        value_bytes: number::<usize>("VALUE", "64")?.clamp(1, 1 << 20),
        spread: match setting("SPREAD", "uniform").as_str() {
            "uniform" => Spread::Uniform,
            "zipfian" => Spread::Zipfian,
            other => return Err(format!("SPREAD={other}: want uniform or zipfian")),
        },
    };
    if names.iter().all(|name| setting(name, "").is_empty()) {
        return every_section(&base);
    }
    let paces = match setting("RATE", "").as_str() {
        "" => depths(&setting("P", "1,16,64"))?,
        "half" => vec![Wanted::HalfOfYardstick],
        rate => match rate.parse() {
            Ok(rate) if rate > 0.0 => vec![Wanted::Exactly(Pace::Open { rate })],
            _ => return Err(format!("RATE={rate}: want requests per second, or half")),
        },
    };
    setting("PROTO", "resp,http")
        .split(',')
        .map(|name| {
            let with_paces = Settings {
                paces: paces.clone(),
                ..base.clone()
            };
            match name {
                "resp" => Ok(with_paces),
                "http" => Ok(Settings {
                    protocol: Protocol::Http,
                    ..with_paces
                }),
                "set" => Ok(with_paces.relayed()),
                "miss" => Ok(with_paces.missed()),
                other => Err(format!("PROTO={other}: want resp, http, set or miss")),
            }
        })
        .collect()
}

fn every_section(base: &Settings) -> Result<Vec<Settings>, String> {
    let section = |about: &str, paces: &str| -> Result<Settings, String> {
        Ok(Settings {
            about: about.to_owned(),
            paces: depths(paces)?,
            ..base.clone()
        })
    };
    let many = number::<usize>("KEYS_MANY", "1000000")?.clamp(1000, 20_000_000);
    Ok(vec![
        section("RESP hits", "1,16,64")?,
        Settings {
            protocol: Protocol::Http,
            ..section("HTTP hits", "1,16")?
        },
        Settings {
            value_bytes: 1024,
            ..section("values of 1 KiB", "16,64")?
        },
        Settings {
            value_bytes: 16 * 1024,
            ..section("values of 16 KiB", "1")?
        },
        Settings {
            paces: vec![Wanted::HalfOfYardstick],
            ..section("half of what Redis can", "1")?
        },
        Settings {
            servers: Servers::ManyAndFew,
            keys: many,
            spread: Spread::Zipfian,
            ..section("more keys than the CPU's caches hold", "16")?
        },
        Settings {
            servers: Servers::TwoAndOne,
            ..section("two proxies that share the load", "16")?
        },
        Settings {
            servers: Servers::Upstream,
            protocol: Protocol::RespSet,
            ..section(
                "relayed commands, CPU beside that of the Redis behind",
                "1,16,64",
            )?
        },
        Settings {
            servers: Servers::Upstream,
            keys: 100_000,
            ..section("misses, CPU beside that of the Redis behind", "1,16,64")?
        },
    ])
}

fn depths(list: &str) -> Result<Vec<Wanted>, String> {
    list.split(',')
        .map(|depth| match depth.parse() {
            Ok(depth @ 1..=1000) => Ok(Wanted::Exactly(Pace::Closed { depth })),
            _ => Err(format!("P={depth}: want depths of 1 to 1000")),
        })
        .collect()
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
