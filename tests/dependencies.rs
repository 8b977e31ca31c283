//! What we depend on: the licence of every crate is one we can ship, and no crate is there twice.
//!
//! `deny.toml` says the same to cargo-deny, which looks at all platforms, where it is installed.
//! It asks `cargo tree`, for this platform, offline. What it never does: look for security advisories, whose database
//! cannot be had without the network.

use std::process::Command;

/// Licences that ask for no more than their own text beside ours.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in more than one version, with the reason.
const TWICE: &[(&str, &str)] = &[];

/// The lines of `cargo tree` for everything that is built, tests and benches included.
fn tree(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo is here, it runs this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_string())
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Whether one of the alternatives of this licence expression consists of licences from the list. Older crates write
/// `/` for OR.
fn can_be_shipped(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words) == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Each of these is `None` when it is no expression.
fn any_of(words: &mut Words<'_>) -> Option<bool> {
    let mut fits = all_of(words)?;
    while words.next_if_eq(&"OR").is_some() {
        fits |= all_of(words)?;
    }
    Some(fits)
}

fn all_of(words: &mut Words<'_>) -> Option<bool> {
    let mut fits = licence(words)?;
    while words.next_if_eq(&"AND").is_some() {
        fits &= licence(words)?;
    }
    Some(fits)
}

fn licence(words: &mut Words<'_>) -> Option<bool> {
    match words.next()? {
        "(" => {
            let fits = any_of(words)?;
            words.next_if_eq(&")").map(|_| fits)
        }
        name => {
            // An exception only adds rights.
            if words.next_if_eq(&"WITH").is_some() {
                words.next()?;
            }
            Some(LICENCES.contains(&name))
        }
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let check = |text: &str, expected: bool| assert_eq!(can_be_shipped(text), expected, "{text}");
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(GPL-3.0 OR MIT) AND Unicode-3.0", true);
    check("(GPL-3.0 AND MIT) OR LGPL-2.1", false);
    check("MIT/Apache-2.0", true);
    check("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true);
    check("", false);
    check("MIT OR", false);
    check("(MIT", false);
}

#[test]
fn every_licence_can_be_shipped() {
    let lines = tree(&["--format", "{p}|{l}"]);
    assert!(lines.len() > 10, "only {} crates: {lines:?}", lines.len());
    let wrong: Vec<&String> = lines
        .iter()
        .filter(|line| {
            line.split_once('|')
                .is_none_or(|(_, licence)| !can_be_shipped(licence))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn deny_toml_allows_the_same_licences() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let text = std::fs::read_to_string(path).expect("there is a deny.toml");
    let (_, list) = text.split_once("\nallow = [").expect("it has the list");
    let (list, _) = list.split_once(']').expect("the list ends");
    let listed: Vec<&str> = list
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(listed, LICENCES);
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let crates = tree(&["--format", "{p}"]);
    let names: Vec<&str> = crates
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let twice: Vec<&str> = names
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
        .collect();
    let listed: Vec<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, listed);
}
