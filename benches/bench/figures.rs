//! What rounds showed, and what else the machine did meanwhile.

use crate::load::Outcome;
use hdrhistogram::Histogram;
use std::fs;

/// From this share of its core on the generator, not the server, may be what limits.
const GENERATOR_FULL: f64 = 0.97;

/// One run of one server.
pub struct Round {
    pub outcome: Outcome,
    pub server_cpu_ns: u64,
    /// Of the Redis behind the server.
    pub behind_cpu_ns: u64,
    pub generator_cpu_ns: u64,
}

/// All rounds of one server under one load.
#[derive(Default)]
pub struct Figures {
    per_sec: Vec<f64>,
    cpu_us: Vec<f64>,
    behind_us: Vec<f64>,
    generator_share: Vec<f64>,
    latency_us: Option<Histogram<u64>>,
    /// Why there is nothing to tell of it.
    failed: Option<String>,
}

impl Figures {
    pub fn fail(&mut self, why: String) {
        self.failed = Some(why.chars().take(60).collect());
    }

    pub fn add(&mut self, round: Round) {
        let secs = round.outcome.elapsed.as_secs_f64();
        let replies = round.outcome.replies.max(1) as f64;
        self.per_sec.push(replies / secs);
        self.cpu_us.push(round.server_cpu_ns as f64 / 1e3 / replies);
        self.behind_us
            .push(round.behind_cpu_ns as f64 / 1e3 / replies);
        self.generator_share
            .push(round.generator_cpu_ns as f64 / 1e9 / secs);
        match &mut self.latency_us {
            Some(all) => all
                .add(round.outcome.latency_us)
                .expect("all are of one form"),
            none => *none = Some(round.outcome.latency_us),
        }
    }

    pub fn generator_was_full(&self) -> bool {
        median(&self.generator_share) > GENERATOR_FULL
    }

    /// Throughput, its ratio to the yardstick's in the same rounds, CPU and latency.
    pub fn closed_row(&self, yardstick: Option<&Figures>) -> String {
        if let Some(why) = &self.failed {
            return format!("FAILED: {why} | - | - | - | -");
        }
        let ratio = yardstick.map_or("-".to_string(), |other| {
            ratio(&self.per_sec, &other.per_sec)
        });
        format!(
            "{:.0}{} | {ratio} | {:.2} | {} | {}",
            median(&self.per_sec),
            if self.generator_was_full() { " *" } else { "" },
            median(&self.cpu_us),
            self.quantile(0.5),
            self.quantile(0.99)
        )
    }

    /// What the server and the Redis behind it use, and the one over the other in the same rounds.
    pub fn upstream_row(&self) -> String {
        format!(
            "{:.0} | {:.2} | {:.2} | {}",
            median(&self.per_sec),
            median(&self.cpu_us),
            median(&self.behind_us),
            ratio(&self.cpu_us, &self.behind_us)
        )
    }

    /// Latencies from the due time, and CPU.
    pub fn open_row(&self) -> String {
        if let Some(why) = &self.failed {
            return format!("FAILED: {why} | - | - | - | -");
        }
        let highest = self.latency_us.as_ref().map_or(0, Histogram::max);
        format!(
            "{} | {} | {} | {highest} | {:.2}",
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
            median(&self.cpu_us)
        )
    }

    fn quantile(&self, quantile: f64) -> u64 {
        self.latency_us
            .as_ref()
            .map_or(0, |all| all.value_at_quantile(quantile))
    }
}

/// The median of the one over the other, round by round, with the lowest and the highest.
fn ratio(these: &[f64], those: &[f64]) -> String {
    let ratios: Vec<f64> = these.iter().zip(those).map(|(a, b)| a / b).collect();
    let (low, high) = ratios
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), ratio| {
            (low.min(*ratio), high.max(*ratio))
        });
    format!("{:.2} ({low:.2} to {high:.2})", median(&ratios))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What this process has used of a core, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let line = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or(0)
}

/// The machine's CPU time by kind, from `/proc/stat`.
pub struct Noise {
    total: u64,
    stolen: u64,
}

impl Noise {
    pub fn now() -> Noise {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let columns: Vec<u64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|column| column.parse().ok())
            .collect();
        Noise {
            total: columns.iter().sum(),
            stolen: columns.get(7).copied().unwrap_or(0),
        }
    }

    /// In words: how much of the machine its host took since, and how many wanted a core at last.
    pub fn since(&self) -> String {
        let now = Noise::now();
        let stolen = (now.stolen - self.stolen) as f64 / (now.total - self.total).max(1) as f64;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().next().unwrap_or("?").to_string();
        format!(
            "noise: {:.1}% stolen by the host, load {load}",
            100.0 * stolen
        )
    }
}
