//! The files of Unix sockets, as the keys `HTTP_SOCKET`, `RESP_SOCKET`, `SOCKET_MODE` and `SOCKET_OWNER` describe them.
//!
//! It never looks whether a user or a folder exists. O(length of the text).
#![forbid(unsafe_code)]

use super::Config;
use std::path::{Path, PathBuf};

/// Where a Unix socket is to be, and who may open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// `user`, `user:group` or `:group`; `None`: as it is made.
    pub owner: Option<String>,
}

impl Config {
    /// The Unix socket at `path`, with the mode and owner that all of them have.
    pub fn socket_file(&self, path: &Path) -> SocketFile {
        SocketFile {
            path: path.to_owned(),
            mode: self.socket_mode,
            owner: (!self.socket_owner.is_empty()).then(|| self.socket_owner.clone()),
        }
    }
}

/// Permission bits in octal digits, with or without a zero before them.
pub(super) fn parse_mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && mode <= 0o777).then_some(mode)
}

/// Whether this is `user`, `user:group`, `:group` or nothing.
pub(super) fn is_owner(text: &str) -> bool {
    let is_name = |name: &str| {
        let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        name.bytes().all(in_name)
    };
    match text.split_once(':') {
        Some((user, group)) => !group.is_empty() && is_name(user) && is_name(group),
        None => is_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_owners_are_names() {
        for (text, mode) in [
            ("600", Some(0o600)),
            ("0770", Some(0o770)),
            ("777", Some(0o777)),
            ("1777", None),
            ("8", None),
            ("+77", None),
            ("", None),
            ("rw", None),
        ] {
            assert_eq!(parse_mode(text), mode, "{text}");
        }
        for good in ["", "redis", "redis:redis", ":www-data", "0:0"] {
            assert!(is_owner(good), "{good}");
        }
        for bad in ["redis:", "a b", "a:b:c", "x/y", ":"] {
            assert!(!is_owner(bad), "{bad}");
        }
    }
}
