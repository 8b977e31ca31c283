//! What a request must carry where Redis needs a password: Basic (RFC 7617) or Bearer (RFC 6750) authorization.
//!
//! The bearer token is the password itself. Basic credentials are compared as they are sent, in base64, so nothing of a
//! peer's is decoded. Every comparison takes a time that depends on lengths only.
#![forbid(unsafe_code)]

use crate::secret::{base64, same};
use std::fmt;
use zeroize::Zeroizing;

/// The credentials that are right.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `user:password` in base64, for each name the user may be given.
    basic: Vec<Zeroizing<Vec<u8>>>,
    bearer: Vec<Zeroizing<Vec<u8>>>,
}

impl Credentials {
    /// Those of `REDIS_URL`. Without a user there it is Redis's `default`, which Basic may also leave empty.
    pub fn new(user: Option<&str>, password: &str) -> Credentials {
        let users: &[&str] = match &user {
            Some(user) => &[user],
            None => &["default", ""],
        };
        let basic = users
            .iter()
            .map(|user| Zeroizing::new(format!("{user}:{password}")))
            .map(|pair| Zeroizing::new(base64(pair.as_bytes())));
        Credentials {
            basic: basic.collect(),
            bearer: vec![Zeroizing::new(password.as_bytes().to_vec())],
        }
    }

    /// Either these or those are right.
    pub fn or(mut self, other: Credentials) -> Credentials {
        self.basic.extend(other.basic);
        self.bearer.extend(other.bearer);
        self
    }

    /// Whether the Authorization field holds them.
    pub fn are_in(&self, authorization: Option<&[u8]>) -> bool {
        let field = authorization.unwrap_or_default();
        let scheme_end = field.iter().position(|byte| *byte == b' ');
        let (scheme, rest) = field.split_at(scheme_end.unwrap_or(field.len()));
        let token = rest.trim_ascii();
        let is_one_of = |all: &[Zeroizing<Vec<u8>>]| {
            all.iter()
                .fold(false, |found, ours| found | same(ours, token))
        };
        if scheme.eq_ignore_ascii_case(b"basic") {
            is_one_of(&self.basic)
        } else {
            scheme.eq_ignore_ascii_case(b"bearer") && is_one_of(&self.bearer)
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(credentials: &Credentials, field: &str, expected: bool) {
        assert_eq!(
            credentials.are_in(Some(field.as_bytes())),
            expected,
            "{field}"
        );
    }

    #[test]
    fn basic_and_bearer_are_taken_and_nothing_else_is() {
        let ours = Credentials::new(None, "secret");
        check(&ours, "Basic ZGVmYXVsdDpzZWNyZXQ=", true);
        check(&ours, "basic  OnNlY3JldA==", true);
        check(&ours, "Bearer secret", true);
        check(&ours, "BEARER secret", true);
        check(&ours, "Bearer secre", false);
        check(&ours, "Bearer Secret", false);
        check(&ours, "Bearer", false);
        check(&ours, "Bearer ", false);
        check(&ours, "Basic secret", false);
        check(&ours, "Basic bm9ib2R5OnNlY3JldA==", false);
        check(&ours, "Digest secret", false);
        check(&ours, "secret", false);
        check(&ours, "", false);
        assert!(!ours.are_in(None));
    }

    #[test]
    fn of_two_either_is_right_but_no_mixture() {
        let ours = Credentials::new(Some("app"), "secret").or(Credentials::new(None, "sesame"));
        check(&ours, "Bearer secret", true);
        check(&ours, "Bearer sesame", true);
        check(&ours, "Basic YXBwOnNlY3JldA==", true);
        check(&ours, "Basic ZGVmYXVsdDpzZXNhbWU=", true);
        check(&ours, "Basic OnNlc2FtZQ==", true);
        check(&ours, "Basic YXBwOnNlc2FtZQ==", false);
        check(&ours, "Basic ZGVmYXVsdDpzZWNyZXQ=", false);
    }

    #[test]
    fn a_user_of_the_url_is_the_only_one() {
        let ours = Credentials::new(Some("app"), "secret");
        check(&ours, "Basic YXBwOnNlY3JldA==", true);
        check(&ours, "Basic ZGVmYXVsdDpzZWNyZXQ=", false);
        check(&ours, "Basic OnNlY3JldA==", false);
        check(&ours, "Bearer secret", true);
        assert_eq!(format!("{ours:?}"), "Credentials(***)");
    }
}
