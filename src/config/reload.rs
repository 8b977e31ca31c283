//! What a running process makes of a configuration that was read again.
//!
//! Keys whose row says `reloadable` are taken over, the others stay as they are until the next start, and both are told.
//! It never reads anything itself, and what does not load changes nothing: it does not come here.
#![forbid(unsafe_code)]

use super::rows::row;
use super::value::apply;
use super::{Config, Loaded, Setting};

/// A key that is set to something else than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub name: &'static str,
    /// What is in force, as it may be printed.
    pub old: String,
    /// What was read.
    pub new: String,
    /// Whether it is in force now. If not, it will be after a restart.
    pub is_taken: bool,
}

impl Loaded {
    /// Takes over from `read` what a running process can take, and says what differs, in the order of the rows.
    ///
    /// # Errors
    /// What is wrong with what would be in force then, although `read` as a whole is right; nothing is taken.
    pub fn take_reloadable(&mut self, read: &Loaded) -> Result<Vec<Change>, String> {
        let mut next = self.clone();
        let changes = next.take_each(read);
        if let Some(why) = next.config.unguarded() {
            return Err(format!("until a restart this would be in force: {why}"));
        }
        *self = next;
        Ok(changes)
    }

    fn take_each(&mut self, read: &Loaded) -> Vec<Change> {
        let mut changes = Vec::new();
        let url_differs = self.config.redis_url != read.config.redis_url;
        let password = &read.config.client_password;
        let password_differs = self.config.client_password != *password;
        let admins_differs = self.config.admin_password != read.config.admin_password;
        for (running, new) in self.settings.iter_mut().zip(&read.settings) {
            let is_password = running.name == "CLIENT_PASSWORD";
            let masked = running.name == "REDIS_URL" && url_differs
                || running.name == "ADMIN_PASSWORD" && admins_differs
                || is_password && password_differs;
            if running.shown == new.shown && !masked {
                continue;
            }
            let row = row(running.name).expect("settings are made from rows");
            // What was printed is what the key takes, and has just been loaded.
            let is_taken = if is_password {
                // It is not shown; and who takes it away opens a door to everybody, which is for a start to do.
                if password.is_some() {
                    self.config.client_password.clone_from(password);
                }
                password.is_some()
            } else if url_differs && running.name.starts_with("REDIS_TLS_") {
                // It belongs to the Redis that the next start will speak to.
                false
            } else {
                row.reloadable && apply(row, &new.shown, None, &mut self.config).is_ok()
            };
            changes.push(Change {
                name: running.name,
                old: running.shown.clone(),
                new: new.shown.clone(),
                is_taken,
            });
            if is_taken {
                running.clone_from(new);
            }
        }
        changes
    }
}

impl Loaded {
    /// Takes over one setting that was made with [`Config::with`].
    pub fn take_setting(&mut self, setting: &Setting) {
        let Some(row) = row(setting.name) else { return };
        if apply(row, &setting.shown, None, &mut self.config).is_ok()
            && let Some(old) = self
                .settings
                .iter_mut()
                .find(|old| old.name == setting.name)
        {
            old.clone_from(setting);
        }
    }
}

impl Config {
    /// The same with another value of one key, which a running process can take, and how it is shown.
    ///
    /// # Errors
    /// One line: there is no such key, it needs a restart, or the value does not fit it or another one.
    pub fn with(&self, name: &str, value: &str) -> Result<(Config, Setting), String> {
        let name = name.to_ascii_uppercase();
        let Some(row) = row(&name) else {
            return Err(super::load::unknown(&name));
        };
        if super::doors::BY_FILE_ONLY.contains(&row.name) {
            return Err(format!(
                "{} is changed where it is configured, and by SIGHUP, only",
                row.name
            ));
        }
        if !row.reloadable {
            return Err(format!("{} cannot be changed while running", row.name));
        }
        if value == "auto" {
            return Err(format!("{}: auto is for the start; say how much", row.name));
        }
        let mut config = self.clone();
        let shown = apply(row, value, None, &mut config)?;
        let largest = config.cache_max_value_bytes.max(config.cache_max_key_bytes);
        if largest > config.cache_max_bytes {
            return Err(
                "CACHE_MAX_VALUE_BYTES and CACHE_MAX_KEY_BYTES cannot be more than CACHE_MAX_BYTES"
                    .to_owned(),
            );
        }
        let setting = Setting {
            name: row.name,
            shown,
            origin: "an operator, while running".to_owned(),
        };
        Ok((config, setting))
    }

    /// Whether `other` keeps other keys, or some of them for a shorter time: what is kept already may not be.
    pub fn keeps_less_than(&self, other: &Config) -> bool {
        self.cache_prefixes != other.cache_prefixes
            || self.bypass_prefixes != other.bypass_prefixes
            || self.cache_ttl < other.cache_ttl
            || self.cache_negative_ttl < other.cache_negative_ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::config::rows::ROWS;

    fn load(file: &str) -> Loaded {
        let sources = Sources {
            file: Some(("env.local", file)),
            env: &[],
            memory_limit: None,
            read_file: &|_| Err("unused".to_string()),
        };
        Config::load(&sources).expect("it is right")
    }

    fn told(running: &mut Loaded, file: &str) -> Vec<String> {
        let changes = running.take_reloadable(&load(file)).expect("it is safe");
        let told = |change: &Change| {
            let rest = match change.is_taken {
                true => "",
                false => " needs a restart",
            };
            format!("{}: {} -> {}{rest}", change.name, change.old, change.new)
        };
        changes.iter().map(told).collect()
    }

    #[test]
    fn what_can_be_taken_is_and_the_rest_is_told_each_time() {
        let mut running = load("");
        let file = "CACHE_TTL_SECS=1.5\nREDIS_WORKERS=9\nBYPASS_PREFIXES=lock:,flag:\n";
        let changes = told(&mut running, file);
        let restart = "REDIS_WORKERS: 2 -> 9 needs a restart";
        let expected = [
            "BYPASS_PREFIXES:  -> lock:,flag:",
            "CACHE_TTL_SECS: 60 -> 1500ms",
            restart,
        ];
        assert_eq!(changes, expected);
        assert_eq!(running.config.cache_ttl.as_millis(), 1500);
        assert_eq!(running.config.bypass_prefixes, ["lock:", "flag:"]);
        assert_eq!(running.config.redis_workers, 2);
        assert_eq!(told(&mut running, file), [restart]);
        let back = told(&mut running, "");
        assert_eq!(back.len(), 2);
        assert_eq!(running.config, Config::default());
    }

    #[test]
    fn a_password_that_changes_is_told_and_not_shown() {
        let mut running = load("REDIS_URL=redis://:before@h\n");
        let changes = told(&mut running, "REDIS_URL=redis://:after@h\n");
        let [change] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert!(change.ends_with("needs a restart"), "{change}");
        assert!(
            !change.contains("before") && !change.contains("after"),
            "{change}"
        );
    }

    #[test]
    fn what_belongs_to_another_redis_waits_with_it() {
        let mut running = load("REDIS_URL=rediss://before\n");
        let ca = "REDIS_TLS_CA_FILE=/etc/ca.pem\n";
        let changes = told(&mut running, &format!("REDIS_URL=rediss://after\n{ca}"));
        assert!(
            changes.iter().all(|change| change.ends_with("a restart")),
            "{changes:?}"
        );
        let taken = told(&mut running, &format!("REDIS_URL=rediss://before\n{ca}"));
        assert_eq!(taken, ["REDIS_TLS_CA_FILE:  -> /etc/ca.pem"]);
    }

    #[test]
    fn what_would_let_strangers_in_until_the_restart_is_refused_whole() {
        let tls = "BIND=0.0.0.0\nHTTP_PORT=off\nRESP_PORT=off\nTLS_RESP_PORT=6381\nTLS_CERT_FILE=c\nTLS_KEY_FILE=k\n";
        let running = load(&format!("{tls}TLS_CLIENT_CA_FILE=ca\n"));
        for instead in [
            "REDIS_URL=redis://:password@h\n",
            "ALLOW_UNAUTHENTICATED=yes\n",
        ] {
            let mut next = running.clone();
            let refused = next.take_reloadable(&load(&format!("{tls}{instead}CACHE_TTL_SECS=9\n")));
            let why = refused.expect_err("it is a door for everybody");
            assert!(why.contains("BIND has 0.0.0.0"), "{why}");
            assert_eq!(next.config, running.config);
        }
    }

    #[test]
    fn every_value_that_can_be_taken_is_read_again_as_it_is_shown() {
        let defaults = load("");
        for (row, setting) in ROWS.iter().zip(&defaults.settings) {
            let mut config = Config::default();
            if row.reloadable {
                apply(row, &setting.shown, None, &mut config).expect(row.name);
                assert_eq!(config, defaults.config, "{}", row.name);
            }
        }
    }

    #[test]
    fn what_keeps_less_is_told_from_what_keeps_more() {
        let base = load("CACHE_TTL_SECS=10\nBYPASS_PREFIXES=a\n").config;
        let check = |file: &str, expected: bool| {
            assert_eq!(load(file).config.keeps_less_than(&base), expected, "{file}");
        };
        check("CACHE_TTL_SECS=10\nBYPASS_PREFIXES=a\n", false);
        check("CACHE_TTL_SECS=11\nBYPASS_PREFIXES=a\n", false);
        check("CACHE_TTL_SECS=9\nBYPASS_PREFIXES=a\n", true);
        check("CACHE_TTL_SECS=10\n", true);
        check(
            "CACHE_TTL_SECS=10\nBYPASS_PREFIXES=a\nCACHE_NEGATIVE_TTL_SECS=1\n",
            true,
        );
    }
}
