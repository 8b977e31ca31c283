//! What is printed from the rows: `--help`, `env.local`, the README's table, `--check`.
//!
//! It never describes a key in words of its own; `tests/house.rs` holds the committed files to these functions.
#![forbid(unsafe_code)]

use super::Loaded;
use super::row::{Kind, Row};
use super::rows::ROWS;
use super::value::allowed;
use std::fmt::Write;

/// Where comments and help wrap.
const COLUMNS: usize = 100;

/// `--help`: usage, and every key with its default and range.
pub fn help_text() -> String {
    let mut out = String::from(
        "nearcache: a caching proxy for Redis that speaks HTTP and RESP\n\n\
         usage: nearcache [--config FILE] [--check | check-upstream]\n\n\
         \x20 --config FILE  read KEY=value lines from FILE (nothing is read otherwise)\n\
         \x20 --check        validate, connect nowhere, print every key with where it came from, exit\n\
         \x20 check-upstream connect to the configured Redis, say what it is and what the proxy can do with it, exit:\n\
         \x20                0 all is well, 1 it works in another way than configured, 2 it cannot be used\n\
         \x20 --help         print this, exit\n\
         \x20 --version      print the version, exit\n\n\
         Each key can be set in the environment, as KEY or as NEARCACHE_KEY (which wins), and in FILE.\n\
         The environment wins over FILE, FILE over the default.\n\
         SIGHUP reads both again; a running process takes the new values of some keys, as said with each.\n",
    );
    for row in ROWS {
        let default = if row.default.is_empty() {
            "nothing"
        } else {
            row.default
        };
        push(
            &mut out,
            format_args!("\n  {} (default: {default})\n", row.name),
        );
        wrap(&mut out, "      ", &help(row));
        wrap(&mut out, "      ", &takes(row));
    }
    out
}

/// The text of `env.local`: every key with its default, commented.
pub fn env_file_text() -> String {
    let mut out = String::from(
        "# Configuration of nearcache. Printed from the rows of src/config/rows.rs (`make tables` does it, a test compares).\n\
         # Every key stands here with its default: remove the # before a key to change it, then `make restart`, or\n\
         # SIGHUP for the keys that say so.\n\
         # The environment wins over this file (HTTP_PORT=7000 make restart), and NEARCACHE_<KEY> wins over <KEY>.\n\
         # Lines are KEY=value or begin with #. A value has no quotes, no $ \\ or #, and no spaces around it, so that\n\
         # every reader of env files (docker-compose --env-file env.local) takes it in the same way.\n",
    );
    for row in ROWS {
        out.push('\n');
        wrap(&mut out, "# ", &help(row));
        wrap(&mut out, "# ", &takes(row));
        push(&mut out, format_args!("#{}={}\n", row.name, row.default));
    }
    out
}

/// The README's table: key, default, what it takes, what it does, and whether a running process takes a new value.
pub fn markdown_table() -> String {
    let mut out =
        String::from("| key | default | takes | what it does | reload |\n|---|---|---|---|---|\n");
    for row in ROWS {
        let default = if row.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", row.default)
        };
        let reload = if row.reloadable { "yes" } else { "restart" };
        let (takes, help) = (allowed(&row.kind), help(row));
        push(
            &mut out,
            format_args!(
                "| `{}` | {default} | {takes} | {help} | {reload} |\n",
                row.name
            ),
        );
    }
    out
}

/// `--check`: the effective configuration, one `KEY=value  # origin` for each row, secrets masked.
pub fn check_text(loaded: &Loaded) -> String {
    let mut out = String::new();
    for setting in &loaded.settings {
        push(
            &mut out,
            format_args!("{}={}  # {}\n", setting.name, setting.shown, setting.origin),
        );
    }
    out
}

/// What a row takes, and when.
fn takes(row: &Row) -> String {
    let when = if row.reloadable {
        " A running process takes it at SIGHUP."
    } else {
        ""
    };
    format!("Takes {}.{when}", allowed(&row.kind))
}

/// A row's help, with its alias, where it has one.
fn help(row: &Row) -> String {
    match (row.alias, &row.kind) {
        (Some(alias), _) => format!("{} Also called {alias}.", row.help),
        (None, Kind::FileOf(key)) => format!("{} Not together with {key}.", row.help),
        (None, _) => row.help.to_string(),
    }
}

/// Writes `words` in lines of at most [`COLUMNS`] characters, each after `margin`.
fn wrap(out: &mut String, margin: &str, words: &str) {
    let mut width = 0;
    for word in words.split(' ') {
        if width > 0 && width + 1 + word.len() > COLUMNS {
            out.push('\n');
            width = 0;
        }
        let before = if width == 0 { margin } else { " " };
        out.push_str(before);
        out.push_str(word);
        width += before.len() + word.len();
    }
    out.push('\n');
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_text_keeps_its_words_and_stays_within_the_columns() {
        for row in ROWS {
            let mut out = String::new();
            wrap(&mut out, "# ", row.help);
            assert!(
                out.lines()
                    .all(|line| line.len() <= COLUMNS && line.starts_with("# "))
            );
            let words: Vec<&str> = out.split_whitespace().filter(|word| *word != "#").collect();
            assert_eq!(words.join(" "), row.help);
        }
    }

    #[test]
    fn the_table_has_a_row_per_key_and_no_stray_bars() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), ROWS.len() + 2);
        assert!(
            table.lines().all(|line| line.matches('|').count() == 6),
            "{table}"
        );
    }
}
