//! What an operator may change while the proxy runs, by POST or by `NEARCACHE` with admin rights.
//!
//! Every change is logged. A setting that is changed here is in force until the next start or reload: it is written
//! nowhere. (Forgetting by prefix is `walk.rs`.)
#![forbid(unsafe_code)]

use crate::config::{Coherence, Setting};
use crate::engine::forget::{Cause, Flush};
use crate::engine::walk::Answer;
use crate::engine::{Engine, Output};
use crate::keyname::KeyName;
use crate::protocol::http::admin::Parameter;
use crate::protocol::http::route::Manner;
use tracing::warn;

/// Keys that are named in the log when they are forgotten; of more the number says enough.
const NAMED_MAX: usize = 8;

/// What is to be forgotten.
#[derive(Debug)]
pub(in crate::engine) enum What<'a> {
    /// All that is kept.
    Everything,
    /// These keys, in every database.
    Keys(Vec<&'a [u8]>),
}

impl Engine {
    /// Forgets what is named, and says what went; `None`: the answer comes when all entries have been looked at.
    pub(super) fn flush_as_asked(
        &mut self,
        ix: usize,
        manner: Manner,
        parameters: &[Parameter],
    ) -> Option<Result<String, String>> {
        let of = |wanted: &str| {
            let named = parameters
                .iter()
                .filter(move |(name, _)| name == wanted.as_bytes());
            named.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
        };
        let (keys, prefixes) = (of("key"), of("prefix"));
        let what = match (&keys[..], &prefixes[..]) {
            _ if keys.len() + prefixes.len() != parameters.len() => {
                return Some(Err(
                    "want ?key=name (one or more), or ?prefix=begin, or nothing for everything"
                        .to_owned(),
                ));
            }
            ([], []) => What::Everything,
            ([], [prefix]) => {
                self.begin_walk(ix, prefix, Answer::Http(manner));
                return None;
            }
            (_, []) => What::Keys(keys),
            _ => return Some(Err("want keys or one prefix, not both".to_owned())),
        };
        let dropped = self.forget_as_asked(&what);
        Some(Ok(format!("dropped {dropped} entries")))
    }

    /// Forgets, and says how many entries that were.
    pub(in crate::engine) fn forget_as_asked(&mut self, what: &What<'_>) -> usize {
        let before = self.cache.len();
        let mut named_keys = None;
        let words = match what {
            What::Everything => {
                self.poison_all(Flush::Asked);
                "everything".to_owned()
            }
            What::Keys(keys) => {
                for key in keys {
                    self.poison_name(self.hasher.hash(key), Cause::Asked);
                }
                let named = keys.iter().take(NAMED_MAX);
                let named: Vec<String> = named
                    .map(|key| KeyName::new(key, self.config.log_keys).to_string())
                    .collect();
                named_keys = Some(named.join(","));
                format!("{} keys", keys.len())
            }
        };
        let dropped = before - self.cache.len();
        self.say_forgotten(&words, dropped, named_keys, None);
        dropped
    }

    pub(in crate::engine) fn say_forgotten(
        &mut self,
        words: &str,
        dropped: usize,
        keys: Option<String>,
        prefix: Option<String>,
    ) {
        warn!(
            what = words,
            entries = dropped,
            keys,
            prefix,
            "admin: asked to forget"
        );
        self.note_event(
            "forgotten",
            format!("asked to forget {words}: {dropped} entries"),
        );
    }

    pub(super) fn coherence_as_asked(
        &mut self,
        parameters: &[Parameter],
    ) -> Result<String, String> {
        match parameters {
            [(name, mode)] if name == b"mode" => self.set_coherence_as_asked(mode),
            _ => Err("want ?mode=tracking, ?mode=ttl or ?mode=off".to_owned()),
        }
    }

    /// Goes over to the mode of this name.
    pub(in crate::engine) fn set_coherence_as_asked(
        &mut self,
        mode: &[u8],
    ) -> Result<String, String> {
        let mode = match mode.to_ascii_lowercase().as_slice() {
            b"tracking" => Coherence::Tracking,
            b"ttl" => Coherence::Ttl,
            b"off" => Coherence::Off,
            _ => return Err("want tracking, ttl or off".to_owned()),
        };
        self.set_coherence(mode);
        Ok(self.coherence_name().to_owned())
    }

    pub(super) fn config_as_asked(&mut self, parameters: &[Parameter]) -> Result<String, String> {
        let [(name, value)] = parameters else {
            return Err("want one setting: ?LOG_LEVEL=debug".to_owned());
        };
        let name = String::from_utf8_lossy(name);
        let value = String::from_utf8_lossy(value);
        self.set_config_as_asked(&name, &value)
    }

    /// Takes another value of a key that a running process can change.
    pub(in crate::engine) fn set_config_as_asked(
        &mut self,
        name: &str,
        value: &str,
    ) -> Result<String, String> {
        let (config, setting) = self.config.with(name, value)?;
        let line = format!("{}={}", setting.name, setting.shown);
        warn!(
            setting = setting.name,
            value = setting.shown,
            "admin: asked to set"
        );
        self.note_event("setting", line.clone());
        self.reload(config);
        let same = |old: &&mut Setting| old.name == setting.name;
        if let Some(old) = self.settings.iter_mut().find(same) {
            old.clone_from(&setting);
        }
        self.outputs.push_back(Output::Set(setting));
        Ok(line)
    }
}
