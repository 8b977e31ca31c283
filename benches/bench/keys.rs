//! The keys of a run: their names, their values, and the order in which they are asked for.

use fastrand::Rng;

/// How many draws are made before the run and gone through in a circle, so that drawing costs the generator nothing.
const DRAWS: usize = 1 << 18;

/// How often each key is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All alike.
    Uniform,
    /// The n-th key in proportion to 1/n (Zipf's law, exponent 0.99 as in YCSB).
    Zipfian,
}

/// The keys, and the generator of everything random in a run. The same seed draws the same keys.
#[derive(Debug)]
pub struct Keys {
    pub count: usize,
    value_bytes: usize,
    draws: Vec<u32>,
    at: usize,
    random: Rng,
}

impl Keys {
    pub fn new(count: usize, value_bytes: usize, spread: Spread) -> Keys {
        let mut random = Rng::with_seed(7);
        let draws = match spread {
            Spread::Uniform => (0..DRAWS).map(|_| random.u32(..count as u32)).collect(),
            Spread::Zipfian => zipfian(count, &mut random),
        };
        Keys {
            count,
            value_bytes,
            draws,
            at: 0,
            random,
        }
    }

    /// The next key to ask for.
    pub fn draw(&mut self) -> usize {
        self.at = (self.at + 1) % DRAWS;
        self.draws[self.at] as usize
    }

    /// A waiting time with mean 1, of arrivals that know nothing of each other.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }

    pub fn name(key: usize) -> String {
        format!("key:{key:012}")
    }

    /// Differs from key to key in every part, so that a reply to another key cannot pass for the right one.
    pub fn value(&self, key: usize) -> Vec<u8> {
        let name = Keys::name(key).into_bytes();
        let filler = (0..).map(|i| b'a' + ((key * 7 + i * 3) % 26) as u8);
        name.into_iter()
            .chain(filler)
            .take(self.value_bytes)
            .collect()
    }
}

/// By inverting the distribution function. The ranks are scattered over the keys, as popular keys are in life.
fn zipfian(count: usize, random: &mut Rng) -> Vec<u32> {
    let mut reached = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            reached += (rank as f64).powf(-0.99);
            reached
        })
        .collect();
    let mut key_of_rank: Vec<u32> = (0..count as u32).collect();
    random.shuffle(&mut key_of_rank);
    (0..DRAWS)
        .map(|_| {
            let at = random.f64() * reached;
            let rank = sums.partition_point(|sum| *sum < at).min(count - 1);
            key_of_rank[rank]
        })
        .collect()
}
