//! Who is let in and what nobody may do, as far as the configuration tells.
//!
//! Invariant: what listens beyond this machine asks for a password, or somebody has said that it need not.
#![forbid(unsafe_code)]

use super::{ClientAuth, Config};

/// How a secret is shown; so nobody has it for one.
pub(super) const MASK: &str = "***";

/// Keys that hold a door shut: changed by whoever may write the configuration, and by no command or request.
pub(super) const BY_FILE_ONLY: [&str; 13] = [
    "REDIS_TLS_CA_FILE",
    "REDIS_TLS_CERT_FILE",
    "REDIS_TLS_KEY_FILE",
    "REDIS_TLS_SERVER_NAME",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "TLS_CLIENT_CERTS",
    "TLS_MIN_VERSION",
    "CLIENT_PASSWORD",
    "ADMIN_PASSWORD",
    "DENY_COMMANDS",
    "AUTH_DELAY_MS",
];

impl Config {
    /// Whether a client must say a password before it is served.
    pub fn demands_password(&self) -> bool {
        let of_redis = self.client_auth == ClientAuth::Redis && self.redis_url.password.is_some();
        self.client_password.is_some() || of_redis
    }

    /// The first address of `BIND` that others than this machine can reach.
    pub fn bound_beyond_loopback(&self) -> Option<&str> {
        let beyond = |address: &&String| {
            // They are addresses or this one name: the configuration takes no others.
            !(*address == "localhost" || address.starts_with("127.") || *address == "::1")
        };
        self.bind.iter().find(beyond).map(String::as_str)
    }

    /// What is wrong with listening where it is to listen.
    pub(super) fn unguarded(&self) -> Option<String> {
        if self.demands_password() || self.demands_certificates() || self.allow_unauthenticated {
            return None;
        }
        let address = self.bound_beyond_loopback()?;
        Some(format!(
            "BIND has {address}, which others can reach, and no password is asked for: set CLIENT_PASSWORD, or \
             ALLOW_UNAUTHENTICATED=yes if something else keeps strangers out"
        ))
    }
}

/// Commands in lower case, each alone or as `container|subcommand`, which may be written with a space. `None`: one is no name, or GET, which is what the
/// proxy is for: its hits are given without a look at any list.
pub(super) fn parse_commands(text: &str) -> Option<Vec<String>> {
    let is_word = |word: &str| {
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !word.is_empty() && word.bytes().all(is_letter)
    };
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = name.to_ascii_lowercase().replacen(' ', "|", 1);
            let fits = match name.split_once('|') {
                Some((container, sub)) => is_word(container) && is_word(sub),
                None => is_word(&name) && name != "get",
            };
            fits.then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Sources};

    #[test]
    fn commands_are_names_in_any_case_of_letters() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|names| names.iter().map(|n| n.to_string()).collect());
            assert_eq!(parse_commands(text), expected, "{text}");
        };
        check("", Some(&[]));
        check("FLUSHALL, Config|Set,", Some(&["flushall", "config|set"]));
        check("config SET,keys", Some(&["config|set", "keys"]));
        check("ft.search,json.set", Some(&["ft.search", "json.set"]));
        check("GET", None);
        check("config set x", None);
        check("config|", None);
        check("|set", None);
        check("config|set|x", None);
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        let check = |bind: &str, expected: Option<&str>| {
            let config = Config {
                bind: bind.split(',').map(str::to_owned).collect(),
                ..Config::default()
            };
            assert_eq!(config.bound_beyond_loopback(), expected, "{bind}");
        };
        check("localhost", None);
        check("127.0.0.1,::1,127.8.8.8", None);
        check("localhost,0.0.0.0", Some("0.0.0.0"));
        check("::", Some("::"));
        check("10.0.0.7,192.0.2.1", Some("10.0.0.7"));
    }

    fn load(env: &[&str]) -> Result<Loaded, Vec<String>> {
        let pairs: Vec<(String, String)> = env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let sources = Sources {
            file: None,
            env: &pairs,
            memory_limit: None,
            read_file: &|_| Ok("from the file\n".to_owned()),
        };
        Config::load(&sources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn refused(env: &[&str], expected: &str) {
        assert_eq!(load(env).expect_err("refused"), [expected], "{env:?}");
    }

    #[test]
    fn what_others_can_reach_asks_for_a_password_or_somebody_says_that_it_need_not() {
        let open = |address: &str| {
            format!(
                "environment: BIND has {address}, which others can reach, and no password is asked for: set \
                 CLIENT_PASSWORD, or ALLOW_UNAUTHENTICATED=yes if something else keeps strangers out"
            )
        };
        let url = "REDIS_URL=redis://:sesame@db";
        refused(&["BIND=0.0.0.0"], &open("0.0.0.0"));
        refused(&["BIND=localhost,::"], &open("::"));
        refused(
            &["BIND=10.0.0.7", url, "CLIENT_AUTH=none"],
            &open("10.0.0.7"),
        );
        for env in [
            &["BIND=10.0.0.7", url][..],
            &["BIND=10.0.0.7", "CLIENT_PASSWORD=sesame"],
            &["BIND=10.0.0.7", "CLIENT_PASSWORD_FILE=/run/secret"],
            &["BIND=10.0.0.7", "ALLOW_UNAUTHENTICATED=yes"],
            &["BIND=127.0.0.1,::1,localhost,127.1.2.3"],
        ] {
            assert!(load(env).is_ok(), "{env:?}");
        }
    }

    #[test]
    fn the_clients_password_is_never_shown() {
        let loaded = load(&["CLIENT_PASSWORD=sesame"]).expect("it is right");
        let text = format!("{loaded:?}");
        assert!(text.contains(MASK) && !text.contains("sesame"), "{text}");
        refused(
            &["CLIENT_PASSWORD=***"],
            "environment: CLIENT_PASSWORD: that is how a secret is shown, not one",
        );
        let file = load(&["CLIENT_PASSWORD_FILE=/run/secret"]).expect("it is right");
        let password = file.config.client_password.expect("it is in the file");
        assert_eq!(password.text(), "from the file");
    }
}
