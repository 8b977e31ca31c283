//! Beginnings of key names, as the keys that list them have them.
//!
//! It never looks at what they begin; O(length of the text).
#![forbid(unsafe_code)]

use super::row::TimeUnit;
use super::value::parse_time;
use crate::prefix::{Keep, Rule};

/// The parts between commas, without the white space around them; empty ones are passed over.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// `prefix`, or `prefix=time`.
pub(super) fn rule(item: &str) -> Option<Rule> {
    let Some((prefix, time)) = item.rsplit_once('=') else {
        return Some(Rule {
            prefix: item.to_owned(),
            keep: Keep::Yes,
        });
    };
    let ttl = parse_time(time, TimeUnit::Secs)?;
    (!prefix.is_empty() && !ttl.is_zero()).then(|| Rule {
        prefix: prefix.to_owned(),
        keep: Keep::AtMost(ttl),
    })
}
