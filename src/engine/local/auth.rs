//! AUTH: whether a client has the credentials that this proxy itself has.
#![forbid(unsafe_code)]

use super::SYNTAX;
use crate::engine::Engine;
use crate::protocol::resp::request::Request;

const NO_PASSWORD: &[u8] =
    b"ERR AUTH <password> called without any password configured for the default user. \
Are you sure your configuration is correct?";
pub(super) const WRONG_PASSWORD: &[u8] =
    b"WRONGPASS invalid username-password pair or user is disabled.";

impl Engine {
    pub(super) fn auth(&mut self, ix: usize, request: &Request<'_>) {
        let (user, password) = match request.argc() {
            2 => (&b"default"[..], request.args().nth(1).unwrap_or_default()),
            3 => (
                request.args().nth(1).unwrap_or_default(),
                request.args().nth(2).unwrap_or_default(),
            ),
            _ => return self.reply_error(ix, SYNTAX),
        };
        if request.argc() == 2 && self.config.redis_url.password.is_none() {
            return self.reply_error(ix, NO_PASSWORD);
        }
        if self.credentials_match(user, password) {
            self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
        } else {
            self.reply_error(ix, WRONG_PASSWORD);
        }
    }

    /// Whether these are the credentials this proxy itself has. Without a password in `REDIS_URL` the default user needs
    /// none, as in Redis. Compared in a time that depends on the lengths only.
    pub(super) fn credentials_match(&self, user: &[u8], password: &[u8]) -> bool {
        let url = &self.config.redis_url;
        let user_is_right = same(
            url.username.as_deref().unwrap_or("default").as_bytes(),
            user,
        );
        let password_is_right = url
            .password
            .as_ref()
            .is_none_or(|ours| same(ours.as_bytes(), password));
        user_is_right & password_is_right
    }
}

fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
    ours.len() == theirs.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_the_same_only_when_every_byte_is() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secres"));
        assert!(!same(b"secret", b"secre"));
        assert!(!same(b"", b"x"));
    }
}
