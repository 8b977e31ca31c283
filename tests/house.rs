//! The rules of the house, as tests: who may name whom, what the core never touches, tables that agree with their rows.
//!
//! It reads the sources as text and compiles nothing. `UPDATE=1 cargo test --test house` (`make tables`) writes
//! `env.local` and the README's table anew; [`EDGES`] is kept by hand, and a failure prints it ready to paste.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that may call the kernel, block and read the clock. All others are core.
const SHELL: &[&str] = &[
    "main",
    "lib",
    "reactor",
    "transport",
    "tls",
    "socket",
    "process",
    "fetcher",
    "helper",
    "survey",
    "mischief",
];

/// Which module names which, outside tests. What is not here is refused, and so is what is here but not used.
const EDGES: &[(&str, &[&str])] = &[
    ("cache", &["time", "wheel"]),
    (
        "client",
        &["buffer", "command", "engine", "outbox", "protocol", "time"],
    ),
    ("command", &["protocol"]),
    ("config", &["prefix", "secret"]),
    (
        "engine",
        &[
            "buffer", "cache", "client", "command", "config", "fetch", "hash", "insight",
            "keyname", "link", "log", "outbox", "prefix", "protocol", "secret", "session", "stats",
            "time", "tracking", "wheel",
        ],
    ),
    ("fetch", &["engine", "hash", "time"]),
    (
        "fetcher",
        &[
            "config", "fetch", "mischief", "protocol", "secret", "socket", "time", "tls",
        ],
    ),
    (
        "fuzzing",
        &[
            "cache", "config", "engine", "fetch", "protocol", "time", "wheel",
        ],
    ),
    ("helper", &["config", "log", "socket", "time"]),
    ("insight", &["hash", "time"]),
    ("keyname", &["config"]),
    (
        "link",
        &["command", "engine", "outbox", "protocol", "session", "time"],
    ),
    ("log", &["config", "time"]),
    (
        "main",
        &[
            "config", "helper", "process", "reactor", "socket", "survey", "tls",
        ],
    ),
    ("protocol", &["fuzzing", "secret"]),
    (
        "reactor",
        &[
            "client",
            "config",
            "engine",
            "fetch",
            "fetcher",
            "helper",
            "mischief",
            "process",
            "socket",
            "time",
            "tls",
            "transport",
        ],
    ),
    ("session", &["protocol"]),
    ("socket", &["time"]),
    ("survey", &["command", "config", "protocol", "tls"]),
    ("tls", &["config", "engine", "socket", "time"]),
    ("tracking", &["time"]),
    ("transport", &["socket", "tls"]),
    ("wheel", &["time"]),
];

/// Files that may be longer than [`LINES_MAX`], each with the reason.
const LONG_FILES: &[(&str, &str)] = &[(
    "src/config/rows.rs",
    "one list, and nothing but a list, of every key in the order of the table",
)];
const LINES_MAX: usize = 700;

/// Crates that core code never names.
const CRATES_FORBIDDEN_IN_CORE: &[&str] = &["mio", "redis", "libc", "signal_hook"];
/// Names that core code never has. (`std::{` would hide the others behind a brace.)
const NAMES_FORBIDDEN_IN_CORE: &[&str] = &[
    "std::net",
    "std::thread",
    "std::sync",
    "std::fs",
    "std::env",
    "std::os",
    "std::process",
    "std::{",
    "Instant",
    "SystemTime",
];
/// The exceptions: a peer's address is told to the engine and kept with the client; `Arc` is here only a counted
/// reference to bytes that never change, as an outbox and the cache share them.
const ALLOWED_IN_CORE: &[(&str, &str)] = &[
    ("engine", "std::net::SocketAddr"),
    (
        "client",
        "std::net::{SocketAddr, SocketAddrV4, SocketAddrV6}",
    ),
    ("cache", "std::sync::Arc"),
    ("client", "std::sync::Arc"),
    ("command", "std::sync::Arc"),
    ("engine", "std::sync::Arc"),
    ("fuzzing", "std::net::{Ipv4Addr, SocketAddr}"),
    ("fuzzing", "std::sync::Arc"),
    ("outbox", "std::sync::Arc"),
    ("secret", "std::sync::Arc"),
];

struct Source {
    path: PathBuf,
    /// The first component below `src`, without `.rs`.
    module: String,
    text: String,
    /// Without comments, string contents and `#[cfg(test)]` modules.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut all: Vec<Source> = rust_files(&src)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is readable");
            let below = path.strip_prefix(&src).expect("it was found below src");
            let first = below
                .components()
                .next()
                .expect("a file has a name")
                .as_os_str()
                .to_string_lossy();
            let module = first.trim_end_matches(".rs").to_string();
            let code = code_of(&text);
            Source {
                path,
                module,
                text,
                code,
            }
        })
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        all.len() > 15,
        "only {} source files found: the tests below would show nothing",
        all.len()
    );
    all
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return files;
    };
    for entry in entries {
        let path = entry.expect("a folder of the checkout is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The text without comments, without what stands between quotes, and without test modules: a rough lexer, enough for
/// looking up names. Test modules are taken to end where a `}` stands in the column of their `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let bare = without_comments_and_strings(text);
    let mut out = String::new();
    let mut skip_until: Option<String> = None;
    for line in bare.lines() {
        if let Some(end) = &skip_until {
            if line == end {
                skip_until = None;
            }
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim_start().starts_with("#[cfg(test)]") {
            skip_until = Some(format!("{indent}}}"));
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        if rest.starts_with(b"//") {
            i += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            i += text[i..].find("*/").map_or(rest.len(), |at| at + 2);
        } else if let Some(length) = raw_string(rest) {
            out.extend(b"\"\"");
            i += length;
        } else if rest[0] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += 1 + usize::from(rest[end] == b'\\');
            }
            out.extend(b"\"\"");
            i += (end + 1).min(rest.len());
        } else if rest.starts_with(b"'\"'") || rest.starts_with(b"'{'") || rest.starts_with(b"'}'")
        {
            i += 3;
        } else {
            out.push(rest[0]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The length of the raw string that begins here (`r"…"`, `r#"…"#`, `br"…"`), if one does.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let start = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r")?;
    let hashes = start.iter().take_while(|&&b| b == b'#').count();
    if start.get(hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let body = &start[hashes + 1..];
    let end = body
        .windows(close.len())
        .position(|w| w == close.as_slice())?;
    Some(rest.len() - body.len() + end + close.len())
}

/// Whether `name` stands in `code` as a whole word or path.
fn names(code: &str, name: &str) -> bool {
    occurrences(code, name).next().is_some()
}

/// Whether `code` names the crate: `use redis;` or `redis::...`, but not a local, a field or a module called so.
fn names_crate(code: &str, name: &str) -> bool {
    occurrences(code, name).any(|(before, after)| {
        before.ends_with("use ") || (after.starts_with("::") && !before.ends_with("::"))
    })
}

/// Each place where `name` stands free, as the code before and after it.
fn occurrences<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let free = move |(before, after): &(&str, &str)| {
        let longer_before = before.ends_with(word) || before.ends_with('.');
        let longer_after = name.ends_with(word) && after.starts_with(word);
        !longer_before && !longer_after
    };
    code.match_indices(name)
        .map(move |(at, _)| (&code[..at], &code[at + name.len()..]))
        .filter(free)
}

/// The modules of this crate that `code` names: `crate::x`, `use crate::{x, y::z}`; for main.rs, `nearcache::x`.
fn edges_of(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in ["crate::", "nearcache::"] {
        for (at, _) in source.code.match_indices(start) {
            let after = &source.code[at + start.len()..];
            match after.strip_prefix('{') {
                None => found.extend(first_word(after)),
                Some(group) => {
                    let mut depth = 0;
                    let mut item = String::new();
                    for c in group.chars() {
                        match c {
                            '}' if depth == 0 => break,
                            '{' => depth += 1,
                            '}' => depth -= 1,
                            ',' if depth == 0 => {
                                found.extend(first_word(item.trim()));
                                item.clear();
                                continue;
                            }
                            _ => {}
                        }
                        item.push(c);
                    }
                    found.extend(first_word(item.trim()));
                }
            }
        }
    }
    found.remove(&source.module);
    found
}

fn first_word(path: &str) -> Option<String> {
    let word: String = path
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

fn is_core(source: &Source) -> bool {
    !SHELL.contains(&source.module.as_str())
}

#[test]
fn modules_name_only_the_modules_the_table_allows() {
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        real.entry(source.module.clone())
            .or_default()
            .extend(edges_of(source));
    }
    real.retain(|_, to| !to.is_empty());
    for (from, to) in &real {
        let back = to.iter().find(|to| SHELL.contains(&to.as_str()));
        if let (false, Some(to)) = (SHELL.contains(&from.as_str()), back) {
            panic!("core module {from} names {to} of the shell: shell → core, never back");
        }
    }
    let table: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(from, to)| {
            (
                from.to_string(),
                to.iter().map(|to| to.to_string()).collect(),
            )
        })
        .collect();
    if real == table {
        return;
    }
    let rows: String = real
        .iter()
        .map(|(from, to)| format!("    (\"{from}\", &{:?}),\n", to.iter().collect::<Vec<_>>()))
        .collect();
    let mut differences = String::new();
    for module in real.keys().chain(table.keys()).collect::<BTreeSet<_>>() {
        let none = BTreeSet::new();
        let (used, allowed) = (
            real.get(module).unwrap_or(&none),
            table.get(module).unwrap_or(&none),
        );
        differences.extend(
            used.difference(allowed)
                .map(|to| format!("  {module} → {to} is used and not in the table\n")),
        );
        differences.extend(
            allowed
                .difference(used)
                .map(|to| format!("  {module} → {to} is in the table and not used\n")),
        );
    }
    panic!(
        "{differences}if these are meant, the table is:\nconst EDGES: &[(&str, &[&str])] = &[\n{rows}];"
    );
}

#[test]
fn the_core_names_no_socket_no_clock_no_thread_and_no_client_library() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| is_core(source)) {
        let mut code = source.code.clone();
        for (module, name) in ALLOWED_IN_CORE {
            if source.module == *module {
                code = code.replace(name, "");
            }
        }
        let crates = CRATES_FORBIDDEN_IN_CORE
            .iter()
            .filter(|name| names_crate(&code, name));
        let paths = NAMES_FORBIDDEN_IN_CORE
            .iter()
            .filter(|name| names(&code, name));
        wrong.extend(
            crates
                .chain(paths)
                .map(|name| format!("{} names {name}", source.path.display())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_scanner_sees_names_where_they_are_code_and_only_there() {
    let check = |code: &str, name: &str, expected: bool| {
        let code = code_of(code);
        let found = if name.contains("::") {
            names(&code, name)
        } else {
            names_crate(&code, name)
        };
        assert_eq!(found, expected, "{code}");
    };
    check("use mio::Poll;", "mio", true);
    check("use mio;", "mio", true);
    check("let p = redis::Client::open(u);", "redis", true);
    check(
        "// redis::Client\nlet redis = 1; c.redis_url; config::redis::x",
        "redis",
        false,
    );
    check(
        "let s = \"redis::Client\"; let t = r#\"mio::Poll \"quoted\"\"#;",
        "redis",
        false,
    );
    check("std::time::Instant::now()", "Instant::now", true);
    check("use std::net::{IpAddr};", "std::net", true);
    check("use std::{net, thread};", "std::{", true);
    check(
        "#[cfg(test)]\nmod tests {\n    use std::thread::spawn;\n}\nfn f() {}",
        "std::thread",
        false,
    );
    check(
        "#[cfg(test)]\nmod tests {\n}\nuse std::thread::spawn;",
        "std::thread",
        true,
    );
    let source = |code: &str| Source {
        path: PathBuf::new(),
        module: "engine".to_string(),
        text: String::new(),
        code: code_of(code),
    };
    let edges = edges_of(&source(
        "use crate::{config::{Config, Row}, time::Time, engine::x};\nlet h = crate::hash::f();",
    ));
    assert_eq!(
        edges.into_iter().collect::<Vec<_>>(),
        ["config", "hash", "time"]
    );
}

#[test]
fn every_core_file_forbids_unsafe_code_and_only_what_speaks_to_the_system_has_any() {
    for source in sources() {
        let name = source.path.display();
        if is_core(&source) {
            assert!(
                source.text.contains("\n#![forbid(unsafe_code)]\n"),
                "{name} does not forbid unsafe code"
            );
        }
        let mut words = source
            .code
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert!(
            matches!(source.module.as_str(), "process" | "socket")
                || !words.any(|word| word == "unsafe"),
            "{name} has unsafe code"
        );
    }
}

#[test]
fn every_file_begins_with_what_it_is() {
    for source in sources() {
        assert!(
            source.text.starts_with("//! "),
            "{} has no header",
            source.path.display()
        );
    }
}

#[test]
fn no_file_is_long_without_being_listed_with_its_reason() {
    let folders = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    let mut listed: BTreeSet<&str> = LONG_FILES.iter().map(|(path, _)| *path).collect();
    for path in folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
    {
        let lines = fs::read_to_string(&path)
            .expect("a source file is readable")
            .lines()
            .count();
        let below = path
            .strip_prefix(root())
            .expect("it was found below the root")
            .to_string_lossy()
            .into_owned();
        let known = listed.remove(below.as_str());
        assert!(
            lines <= LINES_MAX || known,
            "{below} has {lines} lines: split it by its nouns, or list it with a reason"
        );
        assert!(
            lines > LINES_MAX || !known,
            "{below} has {lines} lines and need not be listed"
        );
    }
    assert!(listed.is_empty(), "listed and not there: {listed:?}");
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // Put together here, so that this file does not name them.
    let marks = ["TO", "FIX", "XX"]
        .iter()
        .zip(["DO", "ME", "X"])
        .map(|(a, b)| format!("{a}{b}"))
        .collect::<Vec<_>>();
    let folders = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    for path in folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
    {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            let mark = marks.iter().find(|mark| words.contains(&mark.as_str()));
            assert!(mark.is_none(), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// Compares a committed text with the generated one, or writes it when `UPDATE=1`.
fn agrees(path: &Path, committed: &str, generated: &str) {
    if committed == generated {
        return;
    }
    if std::env::var("UPDATE").is_ok_and(|v| v == "1") {
        fs::write(path, generated).expect("the file can be written");
        return;
    }
    let first = committed
        .lines()
        .zip(generated.lines())
        .position(|(a, b)| a != b);
    let first = first.unwrap_or(committed.lines().count().min(generated.lines().count()));
    let line = |text: &str| text.lines().nth(first).unwrap_or("(nothing)").to_string();
    panic!(
        "{} differs from src/config/rows.rs at line {} (`make tables` writes it):\n  file {}\n  rows {}",
        path.display(),
        first + 1,
        line(committed),
        line(generated)
    );
}

#[test]
fn env_local_is_what_the_rows_print() {
    let path = root().join("env.local");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    agrees(&path, &committed, &nearcache::config::text::env_file_text());
}

#[test]
fn env_local_loads_and_sets_nothing_and_so_does_it_with_every_key_uncommented() {
    use nearcache::config::{Config, Sources};
    let load = |text: &str| {
        let read_file = |_: &str| Err("no files here".to_string());
        let sources = Sources {
            file: Some(("env.local", text)),
            env: &[],
            memory_limit: None,
            read_file: &read_file,
        };
        Config::load(&sources).expect("env.local loads").config
    };
    let text = nearcache::config::text::env_file_text();
    assert_eq!(load(&text), Config::default());
    let uncommented: String = text
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|l| !l.starts_with(' '))
                .unwrap_or(line)
                .to_string()
                + "\n"
        })
        .collect();
    assert_ne!(text, uncommented);
    assert_eq!(load(&uncommented), Config::default());
}

#[test]
fn the_table_of_the_readme_is_what_the_rows_print() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("there is a README.md");
    let (begin, end) = ("<!-- config -->\n", "<!-- /config -->");
    let (Some(from), Some(to)) = (readme.find(begin), readme.find(end)) else {
        panic!(
            "README.md has no place for the table: a line {:?} and a line {end:?}",
            begin.trim_end()
        );
    };
    let from = from + begin.len();
    let table = nearcache::config::text::markdown_table();
    agrees(
        &path,
        &readme,
        &format!("{}{table}{}", &readme[..from], &readme[to..]),
    );
}
