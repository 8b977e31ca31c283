//! `REDIS_URL`: where Redis is and as whom to speak to it.
//!
//! It never repeats the text in an error, because any part of it may be the password. O(length of the text).
#![forbid(unsafe_code)]

use super::RedisUrl;
use super::value::all_digits;
use crate::secret::Secret;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Reads `redis[s]://[user][:password@]host[:port][/database]`. The error says what is wrong.
pub(super) fn parse(text: &str) -> Result<RedisUrl, String> {
    let say = |what: &str| Err(what.to_string());
    let (tls, rest) = match text.split_once("://") {
        Some(("redis", rest)) => (false, rest),
        Some(("rediss", rest)) => (true, rest),
        Some(("unix" | "redis+unix", rest)) => return parse_unix(rest),
        _ => return say("does not begin with redis:// or unix://"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user_info, place) = match authority.rsplit_once('@') {
        Some((user_info, place)) => (Some(user_info), place),
        None => (None, authority),
    };
    // A password with a slash that was not encoded ends up as half a host: say so rather than "no such host".
    if path.contains('@') || authority.contains(['?', '#']) || path.contains(['?', '#', '/']) {
        return say(
            "the characters / ? # in a user or password must be percent-encoded, and nothing follows the database",
        );
    }
    let (username, password) = credentials(user_info)?;
    let (host, port) = split_host_port(place)?;
    let port = match port {
        None => 6379,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && all_digits(port) => number,
            _ => return say("its port is not a number from 1 to 65535"),
        },
    };
    let db = match path {
        "" => 0,
        digits => database(digits)?,
    };
    Ok(RedisUrl {
        host,
        port,
        socket: None,
        tls,
        db,
        username,
        password,
    })
}

/// The rest of `unix://[user][:password@]/path[?db=database]`.
fn parse_unix(rest: &str) -> Result<RedisUrl, String> {
    let say = |what: &str| Err(what.to_string());
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    // The path begins at the first slash, unless a password with one was not encoded.
    let Some(slash) = before.find('/') else {
        return say("there is no path of a socket, as in unix:///run/redis.sock");
    };
    let (authority, path) = before.split_at(slash);
    let user_info = match authority {
        "" => None,
        _ => match authority.strip_suffix('@') {
            Some(info) => Some(info),
            None => return say("a Unix socket has no host: want unix:///run/redis.sock"),
        },
    };
    if path.contains(['@', '#']) {
        return say("the characters / ? # @ must be percent-encoded");
    }
    let (username, password) = credentials(user_info)?;
    let path = percent_decode(path)?;
    if path.ends_with('/') {
        return say("its path is that of a folder");
    }
    let db = match query {
        None => 0,
        Some(query) => match query.strip_prefix("db=") {
            Some(digits) => database(digits)?,
            None => return say("nothing but ?db= follows the path"),
        },
    };
    Ok(RedisUrl {
        host: String::new(),
        port: 0,
        socket: Some(PathBuf::from(path)),
        tls: false,
        db,
        username,
        password,
    })
}

/// `user:password`, `:password` or nothing, apart and decoded.
fn credentials(user_info: Option<&str>) -> Result<(Option<String>, Option<Secret>), String> {
    let Some(info) = user_info else {
        return Ok((None, None));
    };
    let say = |what: &str| Err(what.to_string());
    let Some((user, password)) = info.split_once(':') else {
        return say("a user without a password (for a password alone write :password@)");
    };
    if password.is_empty() {
        return say("the password is empty");
    }
    let user = percent_decode(user)?;
    let user = (!user.is_empty()).then_some(user);
    let password = Zeroizing::new(percent_decode(password)?);
    Ok((user, Some(Secret::new(&password))))
}

fn database(digits: &str) -> Result<u32, String> {
    let number = digits
        .parse::<u32>()
        .ok()
        .filter(|db| all_digits(digits) && *db <= i32::MAX as u32);
    number.ok_or("its database is not a number from 0 to 2147483647".to_string())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, apart.
pub(super) fn split_host_port(place: &str) -> Result<(String, Option<&str>), String> {
    let say = |what: &str| Err(what.to_string());
    if let Some(inner) = place.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return say("a [ without a ]");
        };
        if host.parse::<core::net::Ipv6Addr>().is_err() {
            return say("there is no IPv6 address between the brackets");
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host.to_string(), Some(port))),
            None if after.is_empty() => Ok((host.to_string(), None)),
            None => say("something other than a port follows the ]"),
        };
    }
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return say("an IPv6 address needs brackets, as in redis://[::1]:6379");
    }
    if host.is_empty() {
        return say("there is no host");
    }
    // Underscores are no part of host names, but compose services have them.
    match host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    {
        true => Ok((host.to_string(), port)),
        false => say("its host has characters that no host name has"),
    }
}

/// Undoes `%40`. The result must be UTF-8 without NUL.
fn percent_decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(
                "a % that no two hexadecimal digits follow (write %25 for a percent sign)"
                    .to_string(),
            );
        };
        bytes.push(
            u8::try_from(high * 16 + low).expect("two digits to the base of 16 make one byte"),
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("its user or password is not UTF-8 text".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_gives_host_port_database_user_and_password() {
        let check = |text: &str,
                     host: &str,
                     port: u16,
                     db: u32,
                     user: Option<&str>,
                     password: Option<&str>| {
            let url = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let got = (
                url.host.as_str(),
                url.port,
                url.db,
                url.username.as_deref(),
                url.password.as_ref().map(Secret::text),
            );
            assert_eq!(got, (host, port, db, user, password), "{text}");
        };
        check("redis://127.0.0.1:6379/0", "127.0.0.1", 6379, 0, None, None);
        check("redis://cache", "cache", 6379, 0, None, None);
        check("redis://cache/", "cache", 6379, 0, None, None);
        check(
            "redis://my_redis.internal:7000/15",
            "my_redis.internal",
            7000,
            15,
            None,
            None,
        );
        check("redis://:secret@h", "h", 6379, 0, None, Some("secret"));
        check(
            "redis://app:p%40ss%3A%2F@h:1/2",
            "h",
            1,
            2,
            Some("app"),
            Some("p@ss:/"),
        );
        check("redis://app:a:b@h", "h", 6379, 0, Some("app"), Some("a:b"));
        check("redis://[::1]", "::1", 6379, 0, None, None);
        check(
            "redis://app:pw@[2001:db8::1]:7000/3",
            "2001:db8::1",
            7000,
            3,
            Some("app"),
            Some("pw"),
        );
    }

    #[test]
    fn a_bad_redis_url_is_refused_with_its_reason_and_without_its_text() {
        let check = |text: &str, reason: &str| {
            let why = parse(text).expect_err(text);
            assert_eq!(why, reason, "{text}");
            assert!(!why.contains("sesame"), "{text}: {why}");
        };
        let scheme = "does not begin with redis:// or unix://";
        check("", scheme);
        check("127.0.0.1:6379", scheme);
        check("http://h", scheme);
        let host = "a Unix socket has no host: want unix:///run/redis.sock";
        check("unix://run/redis.sock", host);
        check("unix://:sesame@h/run/redis.sock", host);
        check(
            "unix://",
            "there is no path of a socket, as in unix:///run/redis.sock",
        );
        check("unix:///run/", "its path is that of a folder");
        check(
            "unix:///s?db=",
            "its database is not a number from 0 to 2147483647",
        );
        check("unix:///s?pass=sesame", "nothing but ?db= follows the path");
        check(
            "unix://:ses/ame@/run/s",
            "a Unix socket has no host: want unix:///run/redis.sock",
        );
        check("redis://", "there is no host");
        check("redis://:6379", "there is no host");
        check(
            "redis://h h",
            "its host has characters that no host name has",
        );
        let brackets = "an IPv6 address needs brackets, as in redis://[::1]:6379";
        check("redis://::1", brackets);
        check("redis://[::1", "a [ without a ]");
        check(
            "redis://[h]",
            "there is no IPv6 address between the brackets",
        );
        check(
            "redis://[::1]6379",
            "something other than a port follows the ]",
        );
        let port = "its port is not a number from 1 to 65535";
        check("redis://h:", port);
        check("redis://h:0", port);
        check("redis://h:65536", port);
        check("redis://h:+1", port);
        let db = "its database is not a number from 0 to 2147483647";
        check("redis://h/x", db);
        check("redis://h/-1", db);
        check("redis://h/4294967295", db);
        let encoded = "the characters / ? # in a user or password must be percent-encoded, and nothing follows the \
                       database";
        check("redis://h/0/1", encoded);
        check("redis://h/0?timeout=1", encoded);
        check("redis://:sesame/x@h", encoded);
        check("redis://:sesame#x@h", encoded);
        check(
            "redis://sesame@h",
            "a user without a password (for a password alone write :password@)",
        );
        check("redis://app:@h", "the password is empty");
        let percent = "a % that no two hexadecimal digits follow (write %25 for a percent sign)";
        check("redis://:sesame%4@h", percent);
        check("redis://:sesame%zz@h", percent);
        let utf8 = "its user or password is not UTF-8 text";
        check("redis://:sesame%ff@h", utf8);
        check("redis://:sesame%00@h", utf8);
    }

    #[test]
    fn a_unix_url_gives_the_path_of_a_socket() {
        let check =
            |text: &str, path: &str, db: u32, user: Option<&str>, password: Option<&str>| {
                let url = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
                let got = (
                    url.socket.as_deref().and_then(|path| path.to_str()),
                    url.db,
                    url.username.as_deref(),
                    url.password.as_ref().map(Secret::text),
                );
                assert_eq!(got, (Some(path), db, user, password), "{text}");
            };
        check("unix:///run/redis.sock", "/run/redis.sock", 0, None, None);
        check("redis+unix:///s?db=3", "/s", 3, None, None);
        check("unix://:sesame@/s", "/s", 0, None, Some("sesame"));
        check(
            "unix://app:p%40ss%2F@/a%20b?db=1",
            "/a b",
            1,
            Some("app"),
            Some("p@ss/"),
        );
        let url = parse("unix://app:sesame@/run/s?db=2").expect("a good url");
        assert_eq!(format!("{url:?}"), "unix://app:***@/run/s?db=2");
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = parse("redis://app:sesame@[::1]:7000/3").expect("a good url");
        assert_eq!(url.to_string(), "redis://app:***@[::1]:7000/3");
        assert_eq!(format!("{url:?}"), "redis://app:***@[::1]:7000/3");
    }
}
