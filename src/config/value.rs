//! Reading and writing the value of one key.
//!
//! What it is: text to typed value by the row's [`Kind`], and back to the text `--check` shows. It never prints what
//! a secret row was given, not even in an error. Invariant: [`apply`] stores nothing that is outside the row's range.
//! Costs: O(length of the text).
#![forbid(unsafe_code)]

use super::row::{Kind, Row, TimeUnit};
use super::{Coherence, Config, LogLevel, doors, fraction, prefixes, socket, url, web};
use crate::prefix::Rule;
use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// The most an `auto` size takes, however much memory there is.
const AUTO_MOST: u64 = 256 << 20;
/// Longest `Cache-Control` worth sending with each reply.
const HEADER_MAX: usize = 200;

/// Stores `text` as the value of `row` in `config` and returns how `--check` shows it, or says what is wrong.
/// `memory_limit` is what `auto` sizes go by. A [`Kind::FileOf`] row stores nothing: its text is a file's name.
pub fn apply(
    row: &Row,
    text: &str,
    memory_limit: Option<u64>,
    config: &mut Config,
) -> Result<String, String> {
    let wrong = || format!("{}={text}: want {}", row.name, allowed(&row.kind));
    match &row.kind {
        Kind::Port(set) => {
            let port = match text {
                "off" => None,
                number => Some(
                    number
                        .parse::<u16>()
                        .ok()
                        .filter(|&p| p > 0 && all_digits(number))
                        .ok_or_else(wrong)?,
                ),
            };
            set(config, port);
            Ok(port.map_or("off".to_string(), |p| p.to_string()))
        }
        Kind::Count { least, most, set } => {
            let number = text
                .parse::<u64>()
                .ok()
                .filter(|n| all_digits(text) && (*least..=*most).contains(n));
            let number = usize::try_from(number.ok_or_else(wrong)?).map_err(|_| wrong())?;
            set(config, number);
            Ok(number.to_string())
        }
        Kind::Size {
            auto_percent: Some(percent),
            set,
            ..
        } if text == "auto" => {
            let share = memory_limit.map_or(u64::MAX, |limit| limit / 100 * percent);
            let bytes = usize::try_from(share.min(AUTO_MOST))
                .expect("256 MiB fits every usize this is built for");
            set(config, bytes);
            Ok(show_size(bytes as u64))
        }
        Kind::Size {
            least, most, set, ..
        } => {
            let bytes = parse_size(text)
                .filter(|n| (*least..=*most).contains(n))
                .ok_or_else(wrong)?;
            set(config, usize::try_from(bytes).map_err(|_| wrong())?);
            Ok(show_size(bytes))
        }
        Kind::Time {
            unit,
            least,
            most,
            set,
        } => {
            let time = parse_time(text, *unit)
                .filter(|t| (*least..=*most).contains(t))
                .ok_or_else(wrong)?;
            set(config, time);
            Ok(show_time(time, *unit))
        }
        Kind::Fraction(set) => {
            let millionths = fraction::parse(text).ok_or_else(wrong)?;
            set(config, millionths);
            Ok(fraction::show(millionths))
        }
        Kind::Addresses(set) => {
            let names: Vec<String> = text
                .split(',')
                .map(|name| name.trim().to_string())
                .collect();
            if !names.iter().all(|name| name == "localhost" || is_ip(name)) {
                return Err(wrong());
            }
            set(config, names);
            Ok(text.to_string())
        }
        Kind::Url(set) => {
            let url = url::parse(text)
                .map_err(|why| format!("{}: {why}; want {}", row.name, allowed(&row.kind)))?;
            let shown = url.to_string();
            set(config, url);
            Ok(shown)
        }
        Kind::Secret(set) => {
            if text == doors::MASK {
                return Err(format!(
                    "{}: that is how a secret is shown, not one",
                    row.name
                ));
            }
            set(config, (!text.is_empty()).then(|| Secret::new(text)));
            Ok(if text.is_empty() { "" } else { doors::MASK }.to_string())
        }
        Kind::Commands(set) => {
            let names = doors::parse_commands(text).ok_or_else(wrong)?;
            let shown = names.join(",");
            set(config, names);
            Ok(shown)
        }
        Kind::FileOf(_) => Ok(text.to_string()),
        Kind::Path(set) => {
            set(config, (!text.is_empty()).then(|| PathBuf::from(text)));
            Ok(text.to_string())
        }
        Kind::Header(set) => {
            let visible = text.bytes().all(|b| matches!(b, b' '..=b'~'));
            if text.is_empty() || !visible || text.len() > HEADER_MAX {
                return Err(wrong());
            }
            set(
                config,
                if text == "off" {
                    String::new()
                } else {
                    text.to_string()
                },
            );
            Ok(text.to_string())
        }
        Kind::Origins(set) => {
            set(config, web::parse_origins(text).ok_or_else(wrong)?);
            Ok(text.to_string())
        }
        Kind::Hosts(set) => {
            set(config, web::parse_hosts(text).ok_or_else(wrong)?);
            Ok(text.to_string())
        }
        Kind::Host(set) => {
            set(config, web::parse_host(text).ok_or_else(wrong)?);
            Ok(text.to_string())
        }
        Kind::Coherence(set) => match text {
            "tracking" => {
                set(config, Coherence::Tracking);
                Ok(text.to_string())
            }
            "ttl" => {
                set(config, Coherence::Ttl);
                Ok(text.to_string())
            }
            "off" => {
                set(config, Coherence::Off);
                Ok(text.to_string())
            }
            _ => Err(wrong()),
        },
        Kind::Choice { words, set } => {
            if !words.contains(&text) {
                return Err(wrong());
            }
            set(config, text);
            Ok(text.to_string())
        }
        Kind::Prefixes { nested, set } => {
            let prefixes: Vec<String> = prefixes::items(text).map(str::to_owned).collect();
            let begins = |a: &String| prefixes.iter().any(|b| a != b && a.starts_with(b.as_str()));
            if !nested && prefixes.iter().any(begins) {
                // Redis refuses overlapping prefixes, in the middle of a handshake.
                return Err(wrong());
            }
            set(config, prefixes);
            Ok(text.to_string())
        }
        Kind::Rules(set) => {
            let rules: Option<Vec<Rule>> = prefixes::items(text).map(prefixes::rule).collect();
            set(config, rules.ok_or_else(wrong)?);
            Ok(text.to_string())
        }
        Kind::Mode(set) => {
            let mode = socket::parse_mode(text).ok_or_else(wrong)?;
            set(config, mode);
            Ok(format!("{mode:o}"))
        }
        Kind::Owner(set) => {
            if !socket::is_owner(text) {
                return Err(wrong());
            }
            set(config, text.to_string());
            Ok(text.to_string())
        }
        Kind::Level(set) => {
            let level = match text {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                _ => return Err(wrong()),
            };
            set(config, level);
            Ok(text.to_string())
        }
    }
}

/// What a key of this kind takes, as messages and tables say it.
pub fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Port(_) => "a port from 1 to 65535, or off".to_string(),
        Kind::Count { least, most, .. } => format!("a whole number from {least} to {most}"),
        Kind::Size {
            least,
            most,
            auto_percent,
            ..
        } => {
            let range = format!("a size from {} to {}", show_size(*least), show_size(*most));
            auto_percent.map_or(range.clone(), |percent| {
                format!(
                    "{range}, or auto: 256MiB, or {percent}% of the memory limit if that is less"
                )
            })
        }
        Kind::Time {
            least, most, unit, ..
        } => {
            let bare = if *unit == TimeUnit::Secs {
                "seconds"
            } else {
                "milliseconds"
            };
            format!(
                "a time from {} to {} (a bare number is {bare})",
                show_round(*least),
                show_round(*most)
            )
        }
        Kind::Fraction(_) => "a number from 0 to 1 with at most six decimals".to_string(),
        Kind::Addresses(_) => "localhost or IP addresses, separated by commas".to_string(),
        Kind::Url(_) => "redis[s]://[user][:password@]host[:port][/database], or \
             unix://[user][:password@]/path[?db=database]"
            .to_string(),
        Kind::Secret(_) => "any text, or nothing".to_string(),
        Kind::Commands(_) => {
            "names of commands, without or with a subcommand, but not GET, separated by commas"
                .to_string()
        }
        Kind::FileOf(key) => format!("the name of a file whose first line is the {key}"),
        Kind::Path(_) => "the name of a file".to_string(),
        Kind::Header(_) => format!("visible ASCII, at most {HEADER_MAX} characters, or off"),
        Kind::Coherence(_) => "tracking, ttl or off".to_string(),
        Kind::Choice { words, .. } => words.join(" or "),
        Kind::Prefixes { nested: false, .. } => {
            "beginnings of key names, separated by commas, none the beginning of another"
                .to_string()
        }
        Kind::Prefixes { nested: true, .. } => {
            "beginnings of key names, separated by commas".to_string()
        }
        Kind::Rules(_) => {
            "beginnings of key names, separated by commas, each with or without =seconds"
                .to_string()
        }
        Kind::Origins(_) => {
            "scheme://host[:port] as browsers write them, separated by commas, or * or nothing"
                .to_string()
        }
        Kind::Hosts(_) => "host[:port], separated by commas, or nothing".to_string(),
        Kind::Mode(_) => "permission bits in octal, at most 777".to_string(),
        Kind::Owner(_) => "user, user:group or :group, names or numbers, or nothing".to_string(),
        Kind::Host(_) => "the name or the address of a host, or nothing".to_string(),
        Kind::Level(_) => "error, warn, info or debug".to_string(),
    }
}

pub(super) fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether `text` is an IP address. (`core::net`: addresses as values, without anything that could open a socket.)
pub fn is_ip(text: &str) -> bool {
    text.parse::<core::net::IpAddr>().is_ok()
}

/// Splits `1.5GiB` into billionths of one and the unit in small letters. `None` when no number leads, or one too large.
fn split_number(text: &str) -> Option<(u128, String)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let billionths = format!("{fraction:0<9}").parse::<u128>().ok()?;
    let whole = whole.parse::<u64>().ok()?;
    Some((
        u128::from(whole) * 1_000_000_000 + billionths,
        unit.trim_start().to_ascii_lowercase(),
    ))
}

/// A number of bytes: `65536`, `64k`, `64KB`, `64KiB` (all the same: units are powers of 1024), `1.5GiB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (billionths, unit) = split_number(text)?;
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let scaled = billionths.checked_mul(1 << shift)?;
    u64::try_from(scaled / 1_000_000_000)
        .ok()
        .filter(|_| scaled % 1_000_000_000 == 0 || shift > 0)
}

/// A length of time: `60` and `1.5` in `unit`, else as its own unit says (`us`, `ms`, `s`, `m`, `h`, `d`).
pub fn parse_time(text: &str, unit: TimeUnit) -> Option<Duration> {
    let (billionths, suffix) = split_number(text)?;
    let nanos_each: u128 = match (suffix.as_str(), unit) {
        ("us", _) => 1_000,
        ("ms", _) | ("", TimeUnit::Millis) => 1_000_000,
        ("s", _) | ("", TimeUnit::Secs) => 1_000_000_000,
        ("m", _) => 60 * 1_000_000_000,
        ("h", _) => 3600 * 1_000_000_000,
        ("d", _) => 86_400 * 1_000_000_000,
        _ => return None,
    };
    let nanos = billionths.checked_mul(nanos_each)? / 1_000_000_000;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A size in the largest unit that needs no fraction.
pub fn show_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
    {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A time as its key would take it: bare when the key's unit needs no fraction, else in the unit that needs none.
fn show_time(time: Duration, unit: TimeUnit) -> String {
    let micros = time.as_micros();
    match unit {
        TimeUnit::Secs if micros.is_multiple_of(1_000_000) => (micros / 1_000_000).to_string(),
        TimeUnit::Millis if micros.is_multiple_of(1_000) => (micros / 1_000).to_string(),
        _ if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        _ => format!("{micros}us"),
    }
}

/// A limit of a range, in its roundest unit.
fn show_round(time: Duration) -> String {
    let ms = time.as_millis();
    match [(86_400_000, "d"), (3_600_000, "h"), (1000, "s")]
        .iter()
        .find(|(each, _)| ms > 0 && ms.is_multiple_of(*each))
    {
        Some((each, unit)) => format!("{}{unit}", ms / each),
        None if ms == 0 => "0".to_string(),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_of_1024_and_fractions_that_come_out_even() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(parse_size(text), expected, "{text:?}");
        check("0", Some(0));
        check("65536", Some(65536));
        check("64k", Some(65536));
        check("64KB", Some(65536));
        check("64KiB", Some(65536));
        check("256MiB", Some(256 << 20));
        check("256 MiB", Some(256 << 20));
        check("1.5g", Some(3 << 29));
        check("2t", Some(2 << 40));
        check("1.0", Some(1));
        check("1.5", None);
        check("", None);
        check("k", None);
        check("-1", None);
        check("+1", None);
        check("1e3", None);
        check("1..5k", None);
        check(".5k", None);
        check("5.k", None);
        check("18446744073709551616", None);
        check("18446744073709551615t", None);
        check("1x", None);
    }

    #[test]
    fn times_are_in_the_unit_of_the_key_unless_they_name_one() {
        let check = |text: &str, unit: TimeUnit, expected_ms: Option<u64>| {
            assert_eq!(
                parse_time(text, unit),
                expected_ms.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("60", TimeUnit::Secs, Some(60_000));
        check("60", TimeUnit::Millis, Some(60));
        check("1.5", TimeUnit::Secs, Some(1500));
        check("500ms", TimeUnit::Secs, Some(500));
        check("10s", TimeUnit::Millis, Some(10_000));
        check("2m", TimeUnit::Millis, Some(120_000));
        check("1h", TimeUnit::Secs, Some(3_600_000));
        check("1d", TimeUnit::Secs, Some(86_400_000));
        check("2000us", TimeUnit::Secs, Some(2));
        check("", TimeUnit::Secs, None);
        check("-1", TimeUnit::Secs, None);
        check("5 minutes", TimeUnit::Secs, None);
        check("99999999999999999999", TimeUnit::Secs, None);
        check("18446744073709551615d", TimeUnit::Secs, None);
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_value() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, 3 << 29, 1 << 40, (1 << 40) + 1] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for unit in [TimeUnit::Secs, TimeUnit::Millis] {
            for us in [0, 1, 999, 1000, 1_500_000, 60_000_000, 3_600_000_000] {
                let time = Duration::from_micros(us);
                assert_eq!(parse_time(&show_time(time, unit), unit), Some(time));
            }
        }
    }
}
