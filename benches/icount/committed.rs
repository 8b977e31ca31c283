//! The figures that are committed, and the judgement on new ones.

use crate::load::Protocol;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// A hit may become so much dearer before it is a failure: what is allowed to differ between compilers and libraries.
const DEARER_MAX: f64 = 1.10;
/// Beside it, for the small counts of system calls: what a few more or fewer turns of the loop make out.
const CALLS_LEEWAY: f64 = 0.02;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/icount/figures.txt");
const HEAD: &str = "# What one cache hit costs, as `make icount` counts it; `UPDATE=1 make icount` writes this file.
# `http` repeats its head from request to request, `http-new` changes it each time. 50 clients at once.
# protocol  pipeline  what  per hit
";

/// What a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    protocol: &'static str,
    depth: usize,
    what: &'static str,
}

const INSTRUCTIONS: &str = "instructions";
const SYSTEM_CALLS: &str = "system-calls";

impl Figure {
    pub fn instructions(protocol: Protocol, depth: usize) -> Figure {
        Figure {
            protocol: protocol.name(),
            depth,
            what: INSTRUCTIONS,
        }
    }

    pub fn system_calls(protocol: Protocol, depth: usize) -> Figure {
        Figure {
            what: SYSTEM_CALLS,
            ..Figure::instructions(protocol, depth)
        }
    }

    fn written(self, value: f64) -> String {
        match self.what {
            INSTRUCTIONS => format!("{value:.0}"),
            _ => format!("{value:.3}"),
        }
    }

    fn bound(self, committed: f64) -> f64 {
        let leeway = if self.what == SYSTEM_CALLS {
            CALLS_LEEWAY
        } else {
            0.0
        };
        committed * DEARER_MAX + leeway
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.protocol, self.depth, self.what)
    }
}

/// The figures of the file, by what they are of.
pub struct Committed(BTreeMap<String, String>);

impl Committed {
    pub fn read() -> Result<Committed, String> {
        let text = fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?;
        let rows = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| {
                let (figure, value) = line.rsplit_once(' ').ok_or(format!("{FILE}: {line:?}"))?;
                Ok((figure.trim().to_owned(), value.to_owned()))
            });
        rows.collect::<Result<_, String>>().map(Committed)
    }

    /// Prints what was counted beside what is committed, and remembers it; whether it is within the bound.
    pub fn judge(&mut self, figure: Figure, counted: f64, detail: &str) -> bool {
        let written = figure.written(counted);
        let committed = self.0.insert(figure.to_string(), written.clone());
        let bound = committed
            .as_ref()
            .and_then(|value| value.parse().ok())
            .map(|value| figure.bound(value));
        let (verdict, within) = match bound {
            None => ("no figure is committed".to_owned(), true),
            Some(bound) if counted <= bound => (format!("at most {}", figure.written(bound)), true),
            Some(bound) => (
                format!("at most {}: EXCEEDED", figure.written(bound)),
                false,
            ),
        };
        println!("icount: {figure}: {written} per hit{detail}, {verdict}");
        within
    }

    pub fn write(&self) -> Result<(), String> {
        let rows: String = self
            .0
            .iter()
            .map(|(figure, value)| format!("{figure} {value}\n"))
            .collect();
        fs::write(FILE, format!("{HEAD}{rows}")).map_err(|e| format!("{FILE}: {e}"))
    }
}
