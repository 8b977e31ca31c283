//! A command as a server describes it: one row of its COMMAND reply, as plain data.
//!
//! It never judges: what a row means for us is decided in `policy.rs` and `keys.rs`. A field that is missing, or of a
//! kind nobody has heard of, is kept as "unknown", so that those who judge can be careful.
//! Invariant: a reply becomes rows whole or not at all. Costs: read once per connection to a new server; allocates freely.
#![forbid(unsafe_code)]

use super::keys::{Begin, Find};
use crate::protocol::resp::value::Value;
use std::fmt;

/// One command, or one subcommand of a container such as CLIENT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In lower case; a subcommand bears its container's name too: `client|list`.
    pub name: String,
    /// How many arguments it takes, its name among them; `-n` means n or more.
    pub arity: i64,
    /// Redis's flags, such as `readonly`; unknown ones do no harm.
    pub flags: Vec<String>,
    /// First key, last key (negative: from the end) and step, the only description before Redis 7. All 0: no key.
    pub range: (i64, i64, i64),
    /// Key specifications (Redis 7). `None` if the server does not give any.
    pub key_specs: Option<Vec<KeySpec>>,
    /// The subcommands, if it is a container and the server lists them (Redis 7).
    pub subcommands: Vec<Row>,
}

/// Where some of a command's keys are, as Redis 7 specifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to begin.
    pub begin: Begin,
    /// How to go on from there.
    pub find: Find,
    /// Redis's flags, such as `RW`, `incomplete`, `not_key`.
    pub flags: Vec<String>,
}

/// Why a reply is no command table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// The reply is not an array (an error, say, because the user may not call COMMAND).
    NotAnArray,
    /// A row is not an array, or its name, arity, flags or range are not where they belong.
    MalformedRow,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableError::NotAnArray => "the reply to COMMAND is not an array",
            TableError::MalformedRow => "a row of the reply to COMMAND has an unknown shape",
        })
    }
}

/// How deeply the reply to COMMAND is nested: the fields of a key specification of a subcommand, and two more.
pub const REPLY_DEPTH_MAX: usize = 10;

/// Reads the reply to COMMAND, in RESP2 or RESP3, of any Redis since 2.8.13.
///
/// Null rows are skipped (COMMAND INFO has them for unknown names). A malformed row refuses the whole reply: half a table
/// would make commands unknown that are not, and the built-in table is at hand.
pub fn rows_from_reply(reply: &Value<'_>) -> Result<Vec<Row>, TableError> {
    let rows = reply.as_array().ok_or(TableError::NotAnArray)?;
    rows.iter()
        .filter(|row| **row != Value::Null)
        .map(row)
        .collect()
}

/// Name, arity, flags, first key, last key, step; since Redis 6 ACL categories; since 7 tips, key specifications and
/// subcommands.
fn row(row: &Value<'_>) -> Result<Row, TableError> {
    let Some([name, arity, flags, first, last, step, since_6 @ ..]) = row.as_array() else {
        return Err(TableError::MalformedRow);
    };
    let number = |field: &Value<'_>| field.as_int().ok_or(TableError::MalformedRow);
    let subcommands = since_6.get(3).and_then(Value::as_array).unwrap_or_default();
    Ok(Row {
        name: text(name)
            .ok_or(TableError::MalformedRow)?
            .to_ascii_lowercase(),
        arity: number(arity)?,
        flags: texts(flags).ok_or(TableError::MalformedRow)?,
        range: (number(first)?, number(last)?, number(step)?),
        key_specs: since_6
            .get(2)
            .and_then(Value::as_array)
            .map(|specs| specs.iter().map(key_spec).collect()),
        subcommands: subcommands
            .iter()
            .map(self::row)
            .collect::<Result<_, _>>()?,
    })
}

fn key_spec(spec: &Value<'_>) -> KeySpec {
    KeySpec {
        begin: spec
            .map_get(b"begin_search")
            .and_then(begin)
            .unwrap_or(Begin::Unknown),
        find: spec
            .map_get(b"find_keys")
            .and_then(find)
            .unwrap_or(Find::Unknown),
        flags: spec.map_get(b"flags").and_then(texts).unwrap_or_default(),
    }
}

fn begin(search: &Value<'_>) -> Option<Begin> {
    let spec = search.map_get(b"spec")?;
    match search.map_get(b"type")?.as_bytes()? {
        b"index" => Some(Begin::Index(spec.map_get(b"index")?.as_int()?)),
        b"keyword" => {
            let word = text(spec.map_get(b"keyword")?)?;
            Some(Begin::Keyword(word, spec.map_get(b"startfrom")?.as_int()?))
        }
        _ => None,
    }
}

fn find(search: &Value<'_>) -> Option<Find> {
    let spec = search.map_get(b"spec")?;
    let number = |name: &[u8]| spec.map_get(name)?.as_int();
    match search.map_get(b"type")?.as_bytes()? {
        b"range" => Some(Find::Range {
            last: number(b"lastkey")?,
            step: number(b"keystep")?,
            limit: number(b"limit")?,
        }),
        b"keynum" => Some(Find::Keynum {
            at: number(b"keynumidx")?,
            first: number(b"firstkey")?,
            step: number(b"keystep")?,
        }),
        _ => None,
    }
}

/// A name that is not UTF-8 is kept in a form that no call can have, so that the command is unknown.
fn text(value: &Value<'_>) -> Option<String> {
    value
        .as_bytes()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn texts(value: &Value<'_>) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Parse;
    use crate::protocol::resp::value::decode;

    fn rows(reply: &str) -> Result<Vec<Row>, TableError> {
        match decode(reply.as_bytes(), REPLY_DEPTH_MAX) {
            Parse::Done((value, len)) if len == reply.len() => rows_from_reply(&value),
            other => panic!("{other:?} is not the whole of {reply:?}"),
        }
    }

    fn plain(name: &str, flags: &[&str], key_specs: Option<Vec<KeySpec>>) -> Row {
        Row {
            name: name.to_owned(),
            arity: -2,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            range: (1, -1, 1),
            key_specs,
            subcommands: Vec::new(),
        }
    }

    #[test]
    fn a_row_of_an_old_server_has_six_or_seven_fields() {
        let six = "*6\r\n$3\r\nDEL\r\n:-2\r\n*1\r\n+write\r\n:1\r\n:-1\r\n:1\r\n";
        let seven = six.replace("*6", "*7") + "*1\r\n+@write\r\n";
        let expected = plain("del", &["write"], None);
        assert_eq!(
            rows(&format!("*3\r\n{six}*-1\r\n{seven}")),
            Ok(vec![expected.clone(), expected])
        );
    }

    #[test]
    fn a_key_specification_of_an_unheard_of_kind_is_unknown() {
        let known = "%3\r\n+flags\r\n~1\r\n+RO\r\n+begin_search\r\n%2\r\n+type\r\n+index\r\n+spec\r\n%1\r\n+index\r\n:1\r\n\
            +find_keys\r\n%2\r\n+type\r\n+range\r\n+spec\r\n%3\r\n+lastkey\r\n:-1\r\n+keystep\r\n:1\r\n+limit\r\n:0\r\n";
        let row = |spec: &str| {
            format!(
                "*1\r\n*10\r\n+del\r\n:-2\r\n~0\r\n:1\r\n:-1\r\n:1\r\n~0\r\n~0\r\n*1\r\n{spec}*0\r\n"
            )
        };
        let spec = |begin, find| KeySpec {
            begin,
            find,
            flags: vec!["RO".to_owned()],
        };
        let range = Find::Range {
            last: -1,
            step: 1,
            limit: 0,
        };
        let expected = |spec| Ok(vec![plain("del", &[], Some(vec![spec]))]);
        assert_eq!(
            rows(&row(known)),
            expected(spec(Begin::Index(1), range.clone()))
        );
        let new_begin = known.replace("+type\r\n+index", "+type\r\n+scent");
        assert_eq!(
            rows(&row(&new_begin)),
            expected(spec(Begin::Unknown, range))
        );
        let new_find = known.replace("+limit", "+until");
        assert_eq!(
            rows(&row(&new_find)),
            expected(spec(Begin::Index(1), Find::Unknown))
        );
    }

    #[test]
    fn what_is_no_table_is_refused_whole() {
        assert_eq!(rows("-NOPERM no\r\n"), Err(TableError::NotAnArray));
        assert_eq!(rows("*1\r\n+get\r\n"), Err(TableError::MalformedRow));
        assert_eq!(
            rows("*1\r\n*2\r\n+get\r\n:2\r\n"),
            Err(TableError::MalformedRow)
        );
        let no_number = "*6\r\n+get\r\n+two\r\n*0\r\n:1\r\n:1\r\n:1\r\n";
        assert_eq!(
            rows(&format!("*1\r\n{no_number}")),
            Err(TableError::MalformedRow)
        );
    }
}
