//! What a row of the configuration consists of, and how each kind is written down in one line.
//!
//! It knows no key: [`super::rows`] does. The functions here keep a row to what is particular of it.
#![forbid(unsafe_code)]

use super::{Coherence, Config, LogLevel, RedisUrl};
use crate::prefix::Rule;
use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// One key.
pub struct Row {
    /// The name, as in `env.local`; `NEARCACHE_<name>` works too, and wins.
    pub name: &'static str,
    /// An older or foreign name for the same key; it yields to `name`.
    pub alias: Option<&'static str>,
    /// What it is when nobody sets it, written as a user would.
    pub default: &'static str,
    /// What it takes, within which range, and which field it sets.
    pub kind: Kind,
    /// What it does, in one or two sentences.
    pub help: &'static str,
    /// Whether a running process takes a new value at SIGHUP (`engine/reload.rs`), or only at its next start.
    pub reloadable: bool,
}

/// What a key takes. Each carries the function that stores the value, so that types need no checking at run time.
pub enum Kind {
    /// A TCP port, or `off`.
    Port(fn(&mut Config, Option<u16>)),
    /// A whole number.
    Count {
        /// Least value allowed.
        least: u64,
        /// Greatest value allowed.
        most: u64,
        /// Stores it.
        set: fn(&mut Config, usize),
    },
    /// A number of bytes, with or without a unit (`64k`, `256MiB`).
    Size {
        /// Least value allowed.
        least: u64,
        /// Greatest value allowed.
        most: u64,
        /// For keys that take `auto`: min(256 MiB, this many hundredths of the memory limit).
        auto_percent: Option<u64>,
        /// Stores it.
        set: fn(&mut Config, usize),
    },
    /// A length of time; a bare number is in `unit`, `1.5`, `500ms`, `10s`, `2m`, `1h` work for each.
    Time {
        /// The unit the name promises.
        unit: TimeUnit,
        /// Least value allowed.
        least: Duration,
        /// Greatest value allowed.
        most: Duration,
        /// Stores it.
        set: fn(&mut Config, Duration),
    },
    /// A part of one, as a decimal fraction; stored in millionths.
    Fraction(fn(&mut Config, u32)),
    /// `localhost` or IP addresses, separated by commas.
    Addresses(fn(&mut Config, Vec<String>)),
    /// Where Redis is. A secret: it may hold a password.
    Url(fn(&mut Config, RedisUrl)),
    /// Something that is never printed, or nothing.
    Secret(fn(&mut Config, Option<Secret>)),
    /// The name of a file that holds the value of another key, for secrets.
    FileOf(&'static str),
    /// The name of a file, or nothing.
    Path(fn(&mut Config, Option<PathBuf>)),
    /// The value of an HTTP header, or `off`.
    Header(fn(&mut Config, String)),
    /// Beginnings of key names, separated by commas.
    Prefixes {
        /// Whether one may be the beginning of another.
        nested: bool,
        /// Stores them.
        set: fn(&mut Config, Vec<String>),
    },
    /// Beginnings of key names, each with or without `=` and a time to live.
    Rules(fn(&mut Config, Vec<Rule>)),
    /// Origins of web pages, `*`, or nothing.
    Origins(fn(&mut Config, Vec<String>)),
    /// Names that clients may use for this host, or nothing.
    Hosts(fn(&mut Config, Vec<String>)),
    /// One name or address of a host, or nothing.
    Host(fn(&mut Config, Option<String>)),
    /// Names of commands, separated by commas, or nothing.
    Commands(fn(&mut Config, Vec<String>)),
    /// How to stay coherent.
    Coherence(fn(&mut Config, Coherence)),
    /// One of these words.
    Choice {
        /// What may be said.
        words: &'static [&'static str],
        /// Stores what one of them means.
        set: fn(&mut Config, &str),
    },
    /// Permission bits in octal.
    Mode(fn(&mut Config, u32)),
    /// A user, a group, or both, or nothing.
    Owner(fn(&mut Config, String)),
    /// How loud the log is.
    Level(fn(&mut Config, LogLevel)),
}

/// The unit of a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// `*_SECS`.
    Secs,
    /// `*_MS`.
    Millis,
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
/// Sizes end here: far above any machine this runs on, far below where sums of sizes could overflow 64 bits.
const SIZE_MOST: u64 = 1024 * GIB;
/// Times end here, a year: sums with an instant cannot overflow.
const TIME_MOST: Duration = Duration::from_secs(365 * 24 * 3600);
pub(super) const ZERO: Duration = Duration::ZERO;
pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) const fn port(
    name: &'static str,
    default: &'static str,
    set: fn(&mut Config, Option<u16>),
    help: &'static str,
) -> Row {
    Row {
        name,
        alias: None,
        default,
        kind: Kind::Port(set),
        help,
        reloadable: false,
    }
}

pub(super) const fn count(
    name: &'static str,
    default: &'static str,
    (least, most): (u64, u64),
    set: fn(&mut Config, usize),
    help: &'static str,
) -> Row {
    Row {
        name,
        alias: None,
        default,
        kind: Kind::Count { least, most, set },
        help,
        reloadable: false,
    }
}

pub(super) const fn size(
    name: &'static str,
    default: &'static str,
    (least, most): (u64, u64),
    set: fn(&mut Config, usize),
    help: &'static str,
) -> Row {
    let kind = Kind::Size {
        least,
        most,
        auto_percent: None,
        set,
    };
    Row {
        name,
        alias: None,
        default,
        kind,
        help,
        reloadable: false,
    }
}

pub(super) const fn share(
    name: &'static str,
    percent: u64,
    set: fn(&mut Config, usize),
    help: &'static str,
) -> Row {
    let kind = Kind::Size {
        least: 64 * KIB,
        most: SIZE_MOST,
        auto_percent: Some(percent),
        set,
    };
    Row {
        name,
        alias: None,
        default: "auto",
        kind,
        help,
        reloadable: false,
    }
}

pub(super) const fn secs(
    name: &'static str,
    default: &'static str,
    least: Duration,
    set: fn(&mut Config, Duration),
    help: &'static str,
) -> Row {
    let kind = Kind::Time {
        unit: TimeUnit::Secs,
        least,
        most: TIME_MOST,
        set,
    };
    Row {
        name,
        alias: None,
        default,
        kind,
        help,
        reloadable: false,
    }
}

pub(super) const fn millis(
    name: &'static str,
    default: &'static str,
    set: fn(&mut Config, Duration),
    help: &'static str,
) -> Row {
    let kind = Kind::Time {
        unit: TimeUnit::Millis,
        least: MS,
        most: Duration::from_secs(3600),
        set,
    };
    Row {
        name,
        alias: None,
        default,
        kind,
        help,
        reloadable: false,
    }
}

pub(super) const fn other(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    help: &'static str,
) -> Row {
    Row {
        name,
        alias: None,
        default,
        kind,
        help,
        reloadable: false,
    }
}

/// A running process takes a new value of it.
pub(super) const fn live(row: Row) -> Row {
    Row {
        reloadable: true,
        ..row
    }
}

impl Row {
    /// Whether its value may hold a secret and is never printed as it came.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Url(_) | Kind::Secret(_))
    }
}
