//! A command as a server describes it: one row of its COMMAND reply, as plain data.
//!
//! It never judges: what a row means for us is decided in `policy.rs` and `keys.rs`. A field that is missing, or of a
//! kind nobody has heard of, is kept as "unknown", so that those who judge can be careful.
//! Invariant: a reply becomes rows whole or not at all. Costs: read once per connection to a new server; allocates freely.
#![forbid(unsafe_code)]

use super::keys::{Begin, Find};
use std::fmt;

/// One command, or one subcommand of a container such as CLIENT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In lower case; a subcommand bears its container's name too: `client|list`.
    pub name: String,
    /// How many arguments it takes, its name among them; `-n` means n or more.
    pub arity: i64,
    /// Redis's flags, such as `readonly`; unknown ones do no harm.
    pub flags: Vec<String>,
    /// First key, last key (negative: from the end) and step, the only description before Redis 7. All 0: no key.
    pub range: (i64, i64, i64),
    /// Key specifications (Redis 7). `None` if the server does not give any.
    pub key_specs: Option<Vec<KeySpec>>,
    /// The subcommands, if it is a container and the server lists them (Redis 7).
    pub subcommands: Vec<Row>,
}

/// Where some of a command's keys are, as Redis 7 specifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to begin.
    pub begin: Begin,
    /// How to go on from there.
    pub find: Find,
    /// Redis's flags, such as `RW`, `incomplete`, `not_key`.
    pub flags: Vec<String>,
}

/// Why a reply is no command table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// The reply is not an array (an error, say, because the user may not call COMMAND).
    NotAnArray,
    /// A row is not an array, or its name, arity, flags or range are not where they belong.
    MalformedRow,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableError::NotAnArray => "the reply to COMMAND is not an array",
            TableError::MalformedRow => "a row of the reply to COMMAND has an unknown shape",
        })
    }
}
