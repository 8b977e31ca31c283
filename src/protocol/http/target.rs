//! The request target's four forms (RFC 9112 section 3.2) and the syntax of a host.
#![forbid(unsafe_code)]

use super::{Method, Refusal, octets};

/// A request target taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// The path; `*` for the asterisk form, empty for the authority form of CONNECT.
    pub path: &'b [u8],
    /// What follows the first `?`.
    pub query: Option<&'b [u8]>,
    /// Host and port of the absolute and the authority form: they stand in for the Host field's.
    pub authority: Option<&'b [u8]>,
}

/// Takes a target apart whose bytes are all of the class `TARGET`.
#[inline]
pub(super) fn parse_target(method: Method, target: &[u8]) -> Result<Target<'_>, Refusal> {
    if method == Method::Connect {
        return match is_host(target, Port::Needed) {
            true => Ok(Target {
                path: b"",
                query: None,
                authority: Some(target),
            }),
            false => Err(Refusal::Target),
        };
    }
    if target.first() == Some(&b'/') {
        let (path, query) = split_query(target);
        return Ok(Target {
            path,
            query,
            authority: None,
        });
    }
    if target == b"*" {
        return match method {
            Method::Options => Ok(Target {
                path: target,
                query: None,
                authority: None,
            }),
            _ => Err(Refusal::Target),
        };
    }
    absolute_form(target)
}

fn absolute_form(target: &[u8]) -> Result<Target<'_>, Refusal> {
    let rest = strip_scheme(target).ok_or(Refusal::Target)?;
    let end = rest
        .iter()
        .position(|&byte| byte == b'/' || byte == b'?')
        .unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // User information in an http URI is to be treated as an error (RFC 9110 section 4.2.4); `@` is no host character.
    if !is_host(authority, Port::Optional) {
        return Err(Refusal::Target);
    }
    let (path, query) = split_query(rest);
    Ok(Target {
        path: if path.is_empty() { b"/" } else { path },
        query,
        authority: Some(authority),
    })
}

/// What follows `http://` or `https://`; schemes are case-insensitive (RFC 3986 section 3.1).
pub(super) fn strip_scheme(uri: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"]
        .into_iter()
        .find_map(|scheme| {
            let (head, rest) = uri.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        })
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// Whether a host must name its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// `host` or `host:port`.
    Optional,
    /// `host:port`.
    Needed,
}

/// Whether `bytes` are a host with a port as RFC 9110 section 7.2 writes them. An empty host is none: http URIs have one
/// (section 4.2.1).
pub(super) fn is_host(bytes: &[u8], port: Port) -> bool {
    let (name_is_good, behind) = match bytes.strip_prefix(b"[") {
        // IPv6 addresses are all of the IP literals that exist; a zone (`%eth0`) is not for the wire.
        Some(literal) => match literal.iter().position(|&byte| byte == b']') {
            Some(end) => (is_ipv6(&literal[..end]), &literal[end + 1..]),
            None => return false,
        },
        None => {
            let (name, behind) = bytes.split_at(reg_name_bytes(bytes));
            (!name.is_empty(), behind)
        }
    };
    let port_is_good = match behind {
        [] | [b':'] => port == Port::Optional,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
                    <= 65535
        }
        _ => false,
    };
    name_is_good && port_is_good
}

/// A host's name and what follows the colon of its port.
pub(super) fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match host.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(at) if host[at] == b':' => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    }
}

/// Whether `bytes` are an IPv6 address (RFC 3986 section 3.2.2). The core may not name `std::net`, which would know.
fn is_ipv6(bytes: &[u8]) -> bool {
    let (left, right) = match bytes.windows(2).position(|pair| pair == b"::") {
        Some(at) => (&bytes[..at], Some(&bytes[at + 2..])),
        None => (bytes, None),
    };
    match (groups(left, right.is_none()), right) {
        (Some(8), None) => true,
        (Some(left), Some(right)) => groups(right, true).is_some_and(|right| left + right < 8),
        _ => false,
    }
}

/// How many groups of 16 bits are written in `bytes`, where an IPv4 address `at_end` counts as two.
fn groups(bytes: &[u8], at_end: bool) -> Option<usize> {
    if bytes.is_empty() {
        return Some(0);
    }
    let mut count = 0;
    let mut parts = bytes.split(|&byte| byte == b':').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        if !part.is_empty() && part.len() <= 4 && part.iter().all(u8::is_ascii_hexdigit) {
            count += 1;
        } else if is_last && at_end && is_ipv4(part) {
            count += 2;
        } else {
            return None;
        }
    }
    Some(count)
}

fn is_ipv4(bytes: &[u8]) -> bool {
    let is_octet = |part: &[u8]| match part {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] if rest.len() <= 2 && part.iter().all(u8::is_ascii_digit) => {
            part.iter()
                .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
                <= 255
        }
        _ => false,
    };
    bytes.split(|&byte| byte == b'.').count() == 4
        && bytes.split(|&byte| byte == b'.').all(is_octet)
}

/// The length of the name at the start of `bytes`, up to what cannot be part of one: a port's colon, or a fault.
#[inline]
fn reg_name_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if octets::is(byte, octets::REG_NAME) {
            at += 1;
        } else if let Some([b'%', high, low]) = bytes.get(at..at + 3)
            && high.is_ascii_hexdigit()
            && low.is_ascii_hexdigit()
        {
            at += 3;
        } else {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_and_ports_and_nothing_else() {
        for good in [
            "localhost",
            "localhost:6000",
            "a.b-c_d~e",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:6000",
            "[::ffff:1.2.3.4]",
            "x:",
            "x:0",
            "x:65535",
            "%41b",
            "a,b",
        ] {
            assert!(is_host(good.as_bytes(), Port::Optional), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "x:65536",
            "x:1x",
            "x:-1",
            "x:+1",
            "x:000080",
            "[::1",
            "::1",
            "[]",
            "[g::]",
            "[fe80::1%25eth0]",
            "%4",
            "%zz",
            "a:b:1",
            "a#",
            "a\"",
            "http://x",
            "\u{e9}",
            "[::1]x",
        ] {
            assert!(!is_host(bad.as_bytes(), Port::Optional), "{bad}");
        }
        assert!(
            is_host(b"x:443", Port::Needed)
                && !is_host(b"x", Port::Needed)
                && !is_host(b"x:", Port::Needed)
        );
    }

    #[test]
    fn addresses_are_read_as_the_standard_library_reads_them() {
        let mut rng = fastrand::Rng::with_seed(3);
        let parts = [
            "::",
            ":",
            "0",
            "ffff",
            "12345",
            "1.2.3.4",
            "255.256.0.1",
            "01.2.3.4",
            "1.2.3",
            ".",
            "g",
            "a",
        ];
        let mut good = 0;
        for _ in 0..200_000 {
            let text: String = (0..rng.usize(1..14))
                .map(|_| parts[rng.usize(..parts.len())])
                .collect();
            let expected = text.parse::<std::net::Ipv6Addr>().is_ok();
            assert_eq!(is_ipv6(text.as_bytes()), expected, "{text}");
            good += usize::from(expected);
        }
        assert!(good > 500, "{good}");
    }

    #[test]
    fn the_four_forms_come_apart() {
        let get = |target: &'static str| parse_target(Method::Get, target.as_bytes());
        let parts =
            |path: &'static str, query: Option<&'static str>, authority: Option<&'static str>| {
                Ok(Target {
                    path: path.as_bytes(),
                    query: query.map(str::as_bytes),
                    authority: authority.map(str::as_bytes),
                })
            };
        assert_eq!(get("/get?key=a?b"), parts("/get", Some("key=a?b"), None));
        assert_eq!(get("//x/get"), parts("//x/get", None, None));
        assert_eq!(
            get("http://h:1/get?key=a"),
            parts("/get", Some("key=a"), Some("h:1"))
        );
        assert_eq!(get("HTTPS://h?key=a"), parts("/", Some("key=a"), Some("h")));
        assert_eq!(
            get("http://[::1]:6000"),
            parts("/", None, Some("[::1]:6000"))
        );
        for bad in [
            "*",
            "get",
            "h:1",
            "http://",
            "http:///get",
            "http://u@h/",
            "http://u:p@h/",
            "ftp://h/",
            "http:/h",
            "?key=a",
        ] {
            assert_eq!(get(bad), Err(Refusal::Target), "{bad}");
        }
        assert_eq!(parse_target(Method::Options, b"*"), parts("*", None, None));
        assert_eq!(
            parse_target(Method::Connect, b"h:443"),
            parts("", None, Some("h:443"))
        );
        assert_eq!(parse_target(Method::Connect, b"/get"), Err(Refusal::Target));
    }
}
