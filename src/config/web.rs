//! Origins and host names of web pages, as the keys `HTTP_ALLOWED_*` list them.
//!
//! It takes only what a browser could send, so that an entry which could never match is found at the start and not
//! when a page is refused. It never resolves a name. O(length of the text).
#![forbid(unsafe_code)]

use super::url::split_host_port;
use super::value::{all_digits, is_ip};

/// The origins between the commas; `*` stands alone. `None` if one of them is none.
pub(super) fn parse_origins(text: &str) -> Option<Vec<String>> {
    if text == "*" {
        return Some(vec![text.to_string()]);
    }
    parse_list(text, is_origin)
}

/// The hosts between the commas, each with a port or without. `None` if one of them is none.
pub(super) fn parse_hosts(text: &str) -> Option<Vec<String>> {
    parse_list(text, is_host)
}

/// One host without a port, or none. `None` if it is neither.
pub(super) fn parse_host(text: &str) -> Option<Option<String>> {
    let is_bare = |text: &str| split_host_port(text).is_ok_and(|(_, port)| port.is_none());
    match text {
        "" => Some(None),
        host => (is_ip(host) || is_bare(host)).then(|| Some(host.to_string())),
    }
}

fn parse_list(text: &str, is_item: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(str::trim)
        .map(|item| is_item(item).then(|| item.to_string()))
        .collect()
}

/// Whether a browser could send this as an Origin: nothing behind the host but a port, and not the scheme's own one,
/// which browsers leave out. `null` is what any page can make itself be, so it is no origin to trust.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let in_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let says_own_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => authority.ends_with(":80"),
        "https" => authority.ends_with(":443"),
        _ => false,
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(in_scheme)
        && is_host(authority)
        && !says_own_port
}

/// Whether this is `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_host(text: &str) -> bool {
    let is_port = |port: &str| all_digits(port) && port.parse::<u16>().is_ok_and(|p| p > 0);
    split_host_port(text).is_ok_and(|(_, port)| port.is_none_or(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|list| list.iter().map(ToString::to_string).collect());
            assert_eq!(parse_origins(text), expected, "{text}");
        };
        check("", Some(&[]));
        check("*", Some(&["*"]));
        check(
            "https://a.example, http://localhost:3000,http://[::1]:81,chrome-extension://abc",
            Some(&[
                "https://a.example",
                "http://localhost:3000",
                "http://[::1]:81",
                "chrome-extension://abc",
            ]),
        );
        for wrong in [
            "*,https://a",
            "a.example",
            "https://a/",
            "https://a.example/path",
            "https://a:443",
            "http://a:80",
            "https://a:0",
            "https://u@a",
            "https://",
            "://a",
            "1://a",
            "null",
            "https://a,",
            "https://a https://b",
            "https://::1",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn hosts_are_taken_with_a_port_or_without() {
        let hosts = parse_hosts("cache.example, localhost:6000,[::1],127.0.0.1:1");
        let expected = ["cache.example", "localhost:6000", "[::1]", "127.0.0.1:1"];
        assert_eq!(hosts, Some(expected.map(String::from).to_vec()));
        assert_eq!(parse_hosts(""), Some(Vec::new()));
        for wrong in ["*", "http://a", "a/", "a:", "a:x", "::1", "a,,b", "a b"] {
            assert_eq!(parse_hosts(wrong), None, "{wrong}");
        }
    }
}
