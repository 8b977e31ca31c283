//! From sources to a configuration, or to everything that is wrong with them.
//!
//! What it is: three steps. Gather (which names of ours does each source set, and to what), settle (the value with
//! the greatest claim wins each key), agree (what no single key can get wrong). It never stops at the first error:
//! someone who repairs a file wants the whole list. Invariant: no error repeats the value of a secret.
#![forbid(unsafe_code)]

use super::row::{Kind, Row};
use super::rows::{ROWS, row};
use super::value::{apply, is_ip, show_size};
use super::{Coherence, Config, ConfigError, Loaded, Setting, Sources};
use std::collections::HashMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// What makes a name ours for certain; it wins over the bare name, which other programs use too.
pub const PREFIX: &str = "NEARCACHE_";

/// How much claim a value has on its key: the source first, then the name used in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    source: Source,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    File,
    Environment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Alias,
    Bare,
    Prefixed,
}

/// A value that some source gives a key. It may be a secret, so it is overwritten in the end, and cannot be printed.
#[derive(Clone)]
struct Given {
    claim: Claim,
    /// `environment`, or `env.local line 3`.
    place: String,
    /// The name as it was written there.
    written: String,
    value: Zeroizing<String>,
}

impl Given {
    /// Where it came from, for people: with the name written there unless it is the key's own.
    fn origin(&self, key: &str) -> String {
        match self.written == key {
            true => self.place.clone(),
            false => format!("{} {}", self.place, self.written),
        }
    }
}

/// What was gathered so far: all that is given, by key.
#[derive(Default)]
struct Gathered {
    given: HashMap<&'static str, Vec<Given>>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Config {
    /// Makes the configuration from its sources: environment over file over defaults; within a source
    /// `NEARCACHE_<KEY>` over `<KEY>` over an alias. An empty value counts as none.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file and then of the keys. Nothing may start then.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
        let mut gathered = Gathered::default();
        if let Some((name, contents)) = sources.file {
            gather_file(name, contents, &mut gathered);
        }
        gather_environment(sources.env, &mut gathered);
        settle(gathered, sources)
    }
}

/// Reads `KEY=value` lines. The syntax is what every reader of compose's env files takes in the same way: the
/// characters on which they differ (quotes, `$`, `\`, a `#` after a space, spaces around the `=`) are refused.
fn gather_file(name: &str, contents: &str, gathered: &mut Gathered) {
    let mut first_line_of: HashMap<&str, usize> = HashMap::new();
    for (index, line) in contents.lines().enumerate() {
        let place = format!("{name} line {}", index + 1);
        let (written, value) = match parse_line(line) {
            Ok(Some(pair)) => pair,
            Ok(None) => continue,
            Err(message) => {
                gathered.errors.push(ConfigError { place, message });
                continue;
            }
        };
        if let Some(earlier) = first_line_of.insert(written, index + 1) {
            let message =
                format!("{written} is set on line {earlier} already; keep one of the two");
            gathered.errors.push(ConfigError { place, message });
            continue;
        }
        match find(written) {
            Some((row, form)) => {
                let claim = Claim {
                    source: Source::File,
                    form,
                };
                gathered.give(
                    row,
                    Given {
                        claim,
                        place,
                        written: written.to_string(),
                        value: Zeroizing::new(value.to_string()),
                    },
                );
            }
            None => gathered.errors.push(ConfigError {
                place,
                message: unknown(written),
            }),
        }
    }
}

/// One line of the file: `None` for an empty line or a comment. The value comes without the white space at its end.
pub fn parse_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.starts_with(char::is_whitespace) {
        return Err("white space before the key; begin the line with KEY=value or #".to_string());
    }
    let Some((key, value)) = line.split_once('=') else {
        return Err("no = in this line; want KEY=value, or # before a comment".to_string());
    };
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(
            "what stands before the = is no key; want KEY=value without export, quotes or spaces"
                .to_string(),
        );
    }
    let say = |what: &str| Err(format!("{key}: {what}"));
    if value.starts_with(char::is_whitespace) {
        return say("white space after the =; remove it");
    }
    if value.contains(['"', '\'', '`']) {
        return say("quotes in the value; readers of env files differ on them, write it without");
    }
    if value.contains(['$', '\\']) {
        return say(
            "$ or \\ in the value; readers of env files differ on them (in REDIS_URL write %24 and %5C)",
        );
    }
    if value.contains('#') {
        return say("# in the value; put comments on lines of their own (in REDIS_URL write %23)");
    }
    if value.chars().any(char::is_control) {
        return say("a control character in the value");
    }
    Ok(Some((key, value)))
}

/// Finds our names among all others. The bare names of the environment belong to everybody, so unknown ones are no
/// concern of ours; under our prefix an unknown name is a mistake.
fn gather_environment(env: &[(String, String)], gathered: &mut Gathered) {
    for (name, value) in env {
        let place = "environment".to_string();
        let Some((row, form)) = find(name) else {
            if name.starts_with(PREFIX) && !is_service_link(name, value) {
                gathered.errors.push(ConfigError {
                    place,
                    message: unknown(name),
                });
            }
            continue;
        };
        // Docker's links and Kubernetes' services set such variables for everything they run beside.
        if name.ends_with("_PORT") && value.starts_with("tcp://") {
            let warning = format!(
                "environment: {name}={value} is the address of some service, not a port: ignored"
            );
            gathered.warnings.push(warning);
            continue;
        }
        let claim = Claim {
            source: Source::Environment,
            form,
        };
        gathered.give(
            row,
            Given {
                claim,
                place,
                written: name.clone(),
                value: Zeroizing::new(value.clone()),
            },
        );
    }
}

/// Whether this variable describes a service that is itself called nearcache: an orchestrator puts
/// `NEARCACHE_SERVICE_HOST`, `NEARCACHE_PORT_6380_TCP_ADDR` and the like into every container beside it.
fn is_service_link(name: &str, value: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest == "SERVICE_HOST"
        || rest == "SERVICE_PORT"
        || rest.starts_with("SERVICE_PORT_")
        || (rest == "PORT" && value.contains("://"))
        || rest
            .strip_prefix("PORT_")
            .is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
}

/// The row a name stands for, and in which form it names it.
fn find(name: &str) -> Option<(&'static Row, Form)> {
    let (bare, form) = match name.strip_prefix(PREFIX) {
        Some(bare) => (bare, Form::Prefixed),
        None => (name, Form::Bare),
    };
    if let Some(row) = row(bare) {
        return Some((row, form));
    }
    let row = ROWS.iter().find(|row| row.alias == Some(bare))?;
    Some((
        row,
        if form == Form::Bare {
            Form::Alias
        } else {
            form
        },
    ))
}

/// The message about a name that no row has.
pub(super) fn unknown(written: &str) -> String {
    let prefix = if written.starts_with(PREFIX) {
        PREFIX
    } else {
        ""
    };
    let bare = written.strip_prefix(PREFIX).unwrap_or(written);
    let names = ROWS
        .iter()
        .flat_map(|row| [Some(row.name), row.alias])
        .flatten();
    let nearest = nearest(&bare.to_ascii_uppercase(), names).expect("there are rows");
    format!("{written} is not a key; the nearest is {prefix}{nearest} (nearcache --help lists all)")
}

/// The candidate with the least edit distance to `text`, the first of equals. `None` without candidates.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.min_by_key(|candidate| edit_distance(text.as_bytes(), candidate.as_bytes()))
}

/// How many bytes must be inserted, deleted or replaced to make `b` of `a` (Wagner and Fischer, one row kept).
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    // Names of ours are short; what is longer than this is no misspelling, and must not cost the square of its length.
    let a = &a[..a.len().min(64)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Gathered {
    fn give(&mut self, row: &'static Row, given: Given) {
        if !given.value.is_empty() {
            self.given.entry(row.name).or_default().push(given);
        }
    }

    /// The value with the greatest claim on `row`; those it beats within its own source are worth a warning.
    fn winner(&mut self, row: &'static Row) -> Option<Given> {
        let all = self.given.remove(row.name)?;
        let winner = all.iter().max_by_key(|given| given.claim)?.clone();
        for loser in &all {
            if loser.claim < winner.claim
                && loser.claim.source == winner.claim.source
                && loser.value != winner.value
            {
                let warning = format!(
                    "{}: {} gives way to {}",
                    loser.place, loser.written, winner.written
                );
                self.warnings.push(warning);
            }
        }
        Some(winner)
    }
}

/// Gives every key its value and checks the whole.
fn settle(mut gathered: Gathered, sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let mut config = Config::blank();
    let mut settings = Vec::with_capacity(ROWS.len());
    let mut winners: HashMap<&'static str, Given> = HashMap::new();
    for row in ROWS {
        if let Some(given) = gathered.winner(row) {
            winners.insert(row.name, given);
        }
    }
    for row in ROWS {
        if let Kind::FileOf(key) = row.kind {
            read_secret(row, key, &mut winners, sources, &mut gathered.errors);
        }
    }
    for row in ROWS {
        let given = winners.get(row.name);
        let text = given.map_or(row.default, |given| given.value.as_str());
        let origin = given.map_or("default".to_string(), |given| given.origin(row.name));
        match apply(row, text, sources.memory_limit, &mut config) {
            Ok(shown) => settings.push(Setting {
                name: row.name,
                shown,
                origin,
            }),
            Err(message) => {
                // A value of ours that does not fit is a bug, found by the test that loads the defaults.
                let place = given.map_or("default".to_string(), |given| given.place.clone());
                gathered.errors.push(ConfigError { place, message });
                // What follows from a value that was refused would only confuse: the whole is checked without it.
                apply(row, row.default, sources.memory_limit, &mut config)
                    .expect("defaults fit (tested)");
            }
        }
    }
    if config.coherence == Coherence::Ttl && !winners.contains_key("CACHE_NEGATIVE_TTL_SECS") {
        // Without tracking nobody would say that a missing key has appeared.
        config.cache_negative_ttl = Duration::ZERO;
        for setting in &mut settings {
            if setting.name == "CACHE_NEGATIVE_TTL_SECS" {
                setting.shown = "0".to_owned();
            }
        }
    }
    agree(&mut config, &mut settings, &winners, &mut gathered.errors);
    match gathered.errors.is_empty() {
        true => Ok(Loaded {
            config,
            warnings: gathered.warnings,
            settings,
        }),
        false => Err(gathered.errors),
    }
}

/// Replaces a key by the first line of the file that its `*_FILE` key names, unless the key itself has more claim.
fn read_secret(
    row: &Row,
    key: &'static str,
    winners: &mut HashMap<&'static str, Given>,
    sources: &Sources<'_>,
    errors: &mut Vec<ConfigError>,
) {
    let Some(file) = winners.get(row.name).cloned() else {
        return;
    };
    if let Some(plain) = winners.get(key) {
        if plain.claim.source == file.claim.source {
            let message = format!(
                "{} and {} are both set; keep one of the two",
                plain.written, file.written
            );
            errors.push(ConfigError {
                place: file.place,
                message,
            });
            return;
        }
        if plain.claim.source > file.claim.source {
            return;
        }
    }
    let text = match (sources.read_file)(&file.value) {
        Ok(text) => Zeroizing::new(text),
        Err(why) => {
            let message = format!(
                "{}={}: cannot be read: {why}",
                file.written,
                file.value.as_str()
            );
            errors.push(ConfigError {
                place: file.place,
                message,
            });
            return;
        }
    };
    let line = text.lines().next().unwrap_or("").trim();
    if line.is_empty() {
        let message = format!(
            "{}={}: its first line is empty; want the {key} there",
            file.written,
            file.value.as_str()
        );
        errors.push(ConfigError {
            place: file.place,
            message,
        });
        return;
    }
    winners.insert(
        key,
        Given {
            value: Zeroizing::new(line.to_string()),
            ..file
        },
    );
}

/// What no single key can get wrong.
fn agree(
    config: &mut Config,
    settings: &mut [Setting],
    winners: &HashMap<&'static str, Given>,
    errors: &mut Vec<ConfigError>,
) {
    // The error is filed where the mistake was made: at the first of these keys that somebody set.
    let place = |keys: &[&str]| {
        let given = keys.iter().find_map(|key| winners.get(key));
        given.map_or(String::new(), |given| given.place.clone())
    };
    let sockets = (&config.http_socket, &config.resp_socket);
    let tls_ports = (config.tls_http_port, config.tls_resp_port);
    let has_door = sockets != (&None, &None) || tls_ports != (None, None);
    if (config.http_port, config.resp_port) == (None, None) && !has_door {
        let message =
            "HTTP_PORT and RESP_PORT are both off: nobody could connect; give one of them a port";
        errors.push(ConfigError {
            place: place(&["RESP_PORT", "HTTP_PORT"]),
            message: message.to_string(),
        });
    }
    for (name, socket) in [("HTTP_SOCKET", sockets.0), ("RESP_SOCKET", sockets.1)] {
        if socket.is_some() && *socket == config.redis_url.socket {
            errors.push(ConfigError {
                place: place(&["REDIS_URL", name]),
                message: format!(
                    "REDIS_URL is {}: this proxy itself ({name}); name the Redis behind it",
                    config.redis_url
                ),
            });
        }
    }
    if sockets.0.is_some() && sockets.0 == sockets.1 {
        errors.push(ConfigError {
            place: place(&["RESP_SOCKET", "HTTP_SOCKET"]),
            message: "HTTP_SOCKET and RESP_SOCKET are the same path; give each its own".to_string(),
        });
    }
    let ports = config.ports();
    let pairs = (1..ports.len()).flat_map(|other| (0..other).map(move |one| (one, other)));
    for (one, other) in pairs {
        let ((one, port, _), (other, same, _)) = (ports[one], ports[other]);
        if let (Some(port), true) = (port, port == same) {
            let message = format!("{one} and {other} are both {port}; give each its own");
            errors.push(ConfigError {
                place: place(&[other, one]),
                message,
            });
        }
    }
    for (name, port, bind) in ports {
        if port == Some(config.redis_url.port) && is_own_host(&config.redis_url.host, bind) {
            let message = format!(
                "REDIS_URL is {}: this proxy itself ({name}); name the Redis behind it",
                config.redis_url
            );
            errors.push(ConfigError {
                place: place(&["REDIS_URL", name, "BIND"]),
                message,
            });
        }
    }
    for (keys, message) in config.tls_faults() {
        let place = place(keys);
        errors.push(ConfigError { place, message });
    }
    if let Some(message) = config.unguarded() {
        errors.push(ConfigError {
            place: place(&["BIND", "CLIENT_AUTH"]),
            message,
        });
    }
    // A part cannot be larger than its whole. A default yields quietly, a value somebody set is refused.
    let parts: [Part; 4] = [
        (
            "CACHE_MAX_VALUE_BYTES",
            &mut config.cache_max_value_bytes,
            "CACHE_MAX_BYTES",
            config.cache_max_bytes,
        ),
        (
            "OUTBOX_MAX_BYTES",
            &mut config.outbox_max_bytes,
            "BUFFERS_MAX_BYTES",
            config.buffers_max_bytes,
        ),
        (
            "REQUEST_BYTES_MAX",
            &mut config.request_bytes_max,
            "BUFFERS_MAX_BYTES",
            config.buffers_max_bytes,
        ),
        (
            "CACHE_MAX_KEY_BYTES",
            &mut config.cache_max_key_bytes,
            "CACHE_MAX_BYTES",
            config.cache_max_bytes,
        ),
    ];
    for part in parts {
        fit(part, settings, winners, errors);
    }
    // Last, because REQUEST_BYTES_MAX may just have yielded itself.
    let requests = config.request_bytes_max;
    let shared: Part = (
        "SHARED_REQUEST_BYTES_MAX",
        &mut config.shared_request_bytes_max,
        "REQUEST_BYTES_MAX",
        requests,
    );
    fit(shared, settings, winners, errors);
}

/// A size, and the size it cannot exceed: name and value of each.
type Part<'a> = (&'static str, &'a mut usize, &'static str, usize);

fn fit(
    (name, value, whole_name, whole): Part<'_>,
    settings: &mut [Setting],
    winners: &HashMap<&'static str, Given>,
    errors: &mut Vec<ConfigError>,
) {
    if *value <= whole {
        return;
    }
    if let Some(given) = winners.get(name) {
        let (value, whole) = (show_size(*value as u64), show_size(whole as u64));
        let message = format!("{name}={value}: more than {whole_name}, which is {whole}");
        errors.push(ConfigError {
            place: given.place.clone(),
            message,
        });
        return;
    }
    *value = whole;
    if let Some(setting) = settings.iter_mut().find(|setting| setting.name == name) {
        setting.shown = show_size(whole as u64);
        setting.origin = format!("default, not above {whole_name}");
    }
}

/// Whether a connection to `host` could reach a listener on the addresses `bind`, as far as names tell.
fn is_own_host(host: &str, bind: &[String]) -> bool {
    let host = host.to_ascii_lowercase();
    let loopback =
        host == "localhost" || (is_ip(&host) && (host.starts_with("127.") || host == "::1"));
    let any = |address: &str| address == "0.0.0.0" || address == "::";
    bind.iter().any(|address| {
        let here = address == "localhost"
            || address.starts_with("127.")
            || address == "::1"
            || any(address);
        *address == host || (here && (loopback || any(&host)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_edits() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                nearest(text, ROWS.iter().map(|row| row.name)),
                Some(expected),
                "{text}"
            );
        };
        check("HTTP_PROT", "HTTP_PORT");
        check("CACHE_TTL", "CACHE_TTL_SECS");
        check("REDIS_ULR", "REDIS_URL");
        check("MAX_CONCURENT_REQUEST", "MAX_CONCURRENT_REQUESTS");
        check("RESP_PORT", "RESP_PORT");
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"", b"abc"), 3);
        assert_eq!(edit_distance(b"abc", b""), 3);
    }

    #[test]
    fn every_row_sets_a_field_of_its_own() {
        let base = Config::default();
        for row in ROWS {
            let other = match &row.kind {
                Kind::Port(_) => "1234",
                Kind::Count { .. } => "7",
                Kind::Size { .. } => "3MiB",
                Kind::Time { .. } => "77ms",
                Kind::Fraction(_) => "0.25",
                Kind::Addresses(_) => "127.0.0.9",
                Kind::Url(_) => "redis://elsewhere",
                Kind::Path(_) => "/tmp/elsewhere",
                Kind::Secret(_) => "sesame",
                Kind::Commands(_) => "flushall,config|set",
                Kind::Header(_) => "private",
                Kind::Origins(_) => "https://elsewhere",
                Kind::Hosts(_) | Kind::Host(_) => "elsewhere",
                Kind::Mode(_) => "777",
                Kind::Owner(_) => "redis:redis",
                Kind::Level(_) => "debug",
                Kind::Coherence(_) => "off",
                Kind::Choice { words, .. } => words
                    .iter()
                    .find(|word| **word != row.default)
                    .expect("there is a choice"),
                Kind::Prefixes { .. } => "user:,session:",
                Kind::Rules(_) => "user:,session:=10",
                // It stores nothing itself.
                Kind::FileOf(_) => continue,
            };
            let mut changed = base.clone();
            apply(row, other, None, &mut changed)
                .unwrap_or_else(|why| panic!("{}: {why}", row.name));
            assert_ne!(changed, base, "{} set nothing", row.name);
            apply(row, row.default, None, &mut changed)
                .unwrap_or_else(|why| panic!("{}: {why}", row.name));
            assert_eq!(changed, base, "{} set more than its field", row.name);
        }
    }
}
