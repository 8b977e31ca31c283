//! What the keys of TLS mean, and what they say together.
//!
//! It reads no file: whether a certificate is one is found out by whoever may block (`tls/files.rs`).
#![forbid(unsafe_code)]

use super::Config;

/// Whether a client must show a certificate of `TLS_CLIENT_CA_FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCerts {
    /// Or it is refused.
    Required,
    /// Only what it shows must be right.
    Optional,
}

/// The oldest version of TLS that clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, and 1.3 where the client has it.
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// A key, the port that it gives, and where that is opened.
pub(super) type PortRow<'a> = (&'static str, Option<u16>, &'a [String]);

/// What is wrong with the whole: the keys it concerns, the one to blame first, and what to say.
pub(super) type Fault = (&'static [&'static str], String);

impl Config {
    /// All TCP ports.
    pub(super) fn ports(&self) -> [PortRow<'_>; 6] {
        [
            ("HTTP_PORT", self.http_port, &self.bind),
            ("RESP_PORT", self.resp_port, &self.bind),
            ("ADMIN_PORT", self.admin_port, &self.admin_bind),
            ("PROBE_PORT", self.probe_port, &self.probe_bind),
            ("TLS_HTTP_PORT", self.tls_http_port, &self.bind),
            ("TLS_RESP_PORT", self.tls_resp_port, &self.bind),
        ]
    }

    /// Whether nobody gets in without a certificate.
    pub(super) fn demands_certificates(&self) -> bool {
        (self.http_port, self.resp_port) == (None, None)
            && self.tls_client_ca_file.is_some()
            && self.tls_client_certs == ClientCerts::Required
    }

    /// What no single key of TLS can get wrong.
    pub(super) fn tls_faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = Vec::new();
        let mut fault = |keys, text: &str| faults.push((keys, text.to_owned()));
        let has_port = self.tls_http_port.or(self.tls_resp_port).is_some();
        match (self.tls_cert_file.is_some(), self.tls_key_file.is_some()) {
            (false, false) if has_port => fault(
                &["TLS_RESP_PORT", "TLS_HTTP_PORT"],
                "a port for TLS needs a certificate: set TLS_CERT_FILE and TLS_KEY_FILE",
            ),
            (true, false) => fault(
                &["TLS_CERT_FILE"],
                "TLS_CERT_FILE needs TLS_KEY_FILE beside it",
            ),
            (false, true) => fault(
                &["TLS_KEY_FILE"],
                "TLS_KEY_FILE needs TLS_CERT_FILE beside it",
            ),
            (false, false) | (true, true) => {}
        }
        let files = (
            self.redis_tls_cert_file.is_some(),
            self.redis_tls_key_file.is_some(),
        );
        match files {
            (true, false) => fault(
                &["REDIS_TLS_CERT_FILE"],
                "REDIS_TLS_CERT_FILE needs REDIS_TLS_KEY_FILE beside it",
            ),
            (false, true) => fault(
                &["REDIS_TLS_KEY_FILE"],
                "REDIS_TLS_KEY_FILE needs REDIS_TLS_CERT_FILE beside it",
            ),
            (false, false) | (true, true) => {}
        }
        let has_any = self.redis_tls_ca_file.is_some()
            || self.redis_tls_server_name.is_some()
            || files != (false, false);
        if has_any && !self.redis_url.tls {
            // Somebody believes that nobody can listen.
            fault(
                &[
                    "REDIS_TLS_CA_FILE",
                    "REDIS_TLS_CERT_FILE",
                    "REDIS_TLS_KEY_FILE",
                    "REDIS_TLS_SERVER_NAME",
                ],
                "REDIS_TLS_* is set, but REDIS_URL is not for TLS: write rediss://",
            );
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn load(env: &[&str]) -> Result<(), Vec<String>> {
        let pairs: Vec<(String, String)> = env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let sources = Sources {
            file: None,
            env: &pairs,
            memory_limit: None,
            read_file: &|_| Err("unused".to_owned()),
        };
        let loaded = Config::load(&sources);
        loaded
            .map(drop)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn refused(env: &[&str], expected: &[&str]) {
        assert_eq!(load(env).expect_err("refused"), expected, "{env:?}");
    }

    #[test]
    fn keys_of_tls_that_do_not_go_together_are_refused() {
        let (cert, key) = ("TLS_CERT_FILE=/c.pem", "TLS_KEY_FILE=/c.key");
        let lonely =
            "environment: a port for TLS needs a certificate: set TLS_CERT_FILE and TLS_KEY_FILE";
        refused(&["TLS_RESP_PORT=6381"], &[lonely]);
        refused(&["TLS_HTTP_PORT=6381"], &[lonely]);
        refused(
            &[cert],
            &["environment: TLS_CERT_FILE needs TLS_KEY_FILE beside it"],
        );
        refused(
            &[key],
            &["environment: TLS_KEY_FILE needs TLS_CERT_FILE beside it"],
        );
        let same = "environment: RESP_PORT and TLS_RESP_PORT are both 6380; give each its own";
        refused(&["TLS_RESP_PORT=6380", cert, key], &[same]);
        let plain =
            "environment: REDIS_TLS_* is set, but REDIS_URL is not for TLS: write rediss://";
        for one in ["REDIS_TLS_CA_FILE=/ca.pem", "REDIS_TLS_SERVER_NAME=db"] {
            refused(&["REDIS_URL=redis://db", one], &[plain]);
        }
        let url = "REDIS_URL=rediss://db";
        let needs = "environment: REDIS_TLS_CERT_FILE needs REDIS_TLS_KEY_FILE beside it";
        refused(&[url, "REDIS_TLS_CERT_FILE=/c.pem"], &[needs]);
        let needs = "environment: REDIS_TLS_KEY_FILE needs REDIS_TLS_CERT_FILE beside it";
        refused(&[url, "REDIS_TLS_KEY_FILE=/c.key"], &[needs]);
        let name = "environment: REDIS_TLS_SERVER_NAME=db:1: want the name or the address of a host, or nothing";
        refused(&[url, "REDIS_TLS_SERVER_NAME=db:1"], &[name]);
        let itself = "environment: REDIS_URL is rediss://localhost:6381/0: this proxy itself (TLS_RESP_PORT); name the Redis \
                      behind it";
        refused(
            &[
                "REDIS_URL=rediss://localhost:6381",
                "TLS_RESP_PORT=6381",
                cert,
                key,
            ],
            &[itself],
        );
    }

    #[test]
    fn who_must_show_a_certificate_needs_no_password() {
        let tls = [
            "TLS_RESP_PORT=6381",
            "TLS_CERT_FILE=/c.pem",
            "TLS_KEY_FILE=/c.key",
            "TLS_CLIENT_CA_FILE=/ca.pem",
        ];
        let open = "environment: BIND has 10.0.0.7, which others can reach, and no password is asked for: set \
                    CLIENT_PASSWORD, or ALLOW_UNAUTHENTICATED=yes if something else keeps strangers out";
        let bound = [&tls[..], &["BIND=10.0.0.7"]].concat();
        refused(&bound, &[open]);
        let only = [&bound[..], &["RESP_PORT=off", "HTTP_PORT=off"]].concat();
        assert_eq!(load(&only), Ok(()));
        refused(
            &[&only[..], &["TLS_CLIENT_CERTS=optional"]].concat(),
            &[open],
        );
    }

    #[test]
    fn a_url_for_tls_says_so_and_keeps_its_password() {
        let url = crate::config::url::parse("rediss://:sesame@h").expect("a good url");
        assert!(url.tls);
        assert_eq!(url.to_string(), "rediss://:***@h:6379/0");
    }
}
