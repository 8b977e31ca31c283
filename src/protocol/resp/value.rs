//! A reply of Redis, decoded: for handshakes (HELLO, ROLE, COMMAND, INFO), not for what is relayed.
//!
//! Never allocates by a claim: a vector grows as its elements arrive. Invariant: what decodes ends where
//! [`ReplyScanner`](super::reply::ReplyScanner) says it ends. O(n) time, and memory for one [`Value`] per item (an item is three bytes
//! at least). Decoding starts anew at each call: let the scanner find a long reply's end first.
#![forbid(unsafe_code)]

use super::number::Number;
use super::write::{self, Version};
use crate::protocol::Parse;

/// One item. Attributes are read over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'b> {
    /// `+`
    Simple(&'b [u8]),
    /// `-`, the code included.
    Error(&'b [u8]),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(&'b [u8]),
    /// `_`, `$-1` or `*-1`
    Null,
    /// `*`
    Array(Vec<Value<'b>>),
    /// `%`
    Map(Vec<(Value<'b>, Value<'b>)>),
    /// `~`
    Set(Vec<Value<'b>>),
    /// `>`
    Push(Vec<Value<'b>>),
    /// `#`
    Bool(bool),
    /// `,`, as text.
    Double(&'b [u8]),
    /// `(`, as text.
    BigNumber(&'b [u8]),
    /// `=`, without the four bytes that say its format.
    Verbatim(&'b [u8]),
    /// `!`, the code included.
    BulkError(&'b [u8]),
}

impl<'b> Value<'b> {
    /// The text of anything that is a string or is written as one; errors are not.
    pub fn as_bytes(&self) -> Option<&'b [u8]> {
        match *self {
            Value::Simple(text) | Value::Bulk(text) | Value::Verbatim(text) => Some(text),
            Value::Double(text) | Value::BigNumber(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, also one written as a string (as RESP2 and INFO do).
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Integer(n) => Some(*n),
            other => Number::parse(other.as_bytes()?),
        }
    }

    /// The elements of an array, set or push.
    pub fn as_array(&self) -> Option<&[Value<'b>]> {
        match self {
            Value::Array(elements) | Value::Set(elements) | Value::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// The error's text, its code included.
    pub fn as_error(&self) -> Option<&'b [u8]> {
        match *self {
            Value::Error(text) | Value::BulkError(text) => Some(text),
            _ => None,
        }
    }

    /// What stands behind `key` in a map, or in the flat array that RESP2 has for it. O(pairs).
    pub fn map_get(&self, key: &[u8]) -> Option<&Value<'b>> {
        match self {
            Value::Map(pairs) => pairs
                .iter()
                .find(|(name, _)| name.as_bytes() == Some(key))
                .map(|(_, value)| value),
            Value::Array(flat) => flat
                .chunks_exact(2)
                .find(|pair| pair[0].as_bytes() == Some(key))
                .map(|pair| &pair[1]),
            _ => None,
        }
    }
}

impl Value<'_> {
    /// Writes it again, for a client of either version: what RESP2 lacks is written as Redis writes it there.
    pub fn write(&self, out: &mut Vec<u8>, version: Version) {
        let is_new = version == Version::Resp3;
        match self {
            Value::Simple(text) => write::simple(out, text),
            Value::Error(text) | Value::BulkError(text) => write::error(out, text),
            Value::Integer(n) => write::integer(out, *n),
            Value::Bulk(text) => write::bulk(out, text),
            Value::Null => write::null(out, version),
            Value::Array(elements) | Value::Set(elements) | Value::Push(elements) => {
                write::array_head(out, elements.len());
                for element in elements {
                    element.write(out, version);
                }
            }
            Value::Map(pairs) => {
                write::map_head(out, version, pairs.len());
                for (name, value) in pairs {
                    name.write(out, version);
                    value.write(out, version);
                }
            }
            Value::Bool(yes) if is_new => {
                out.extend_from_slice(if *yes { b"#t\r\n" } else { b"#f\r\n" })
            }
            Value::Bool(yes) => write::integer(out, i64::from(*yes)),
            Value::Double(text) | Value::BigNumber(text) => write::bulk(out, text),
            Value::Verbatim(text) => write::text(out, version, text),
        }
    }
}

/// Decodes the reply at the beginning of `buf`; says how many bytes it is long. `Bad`: it is no reply, or nested more than
/// `depth_max` deep (0: no aggregate at all).
pub fn decode(buf: &[u8], depth_max: usize) -> Parse<(Value<'_>, usize), ()> {
    let mut reader = Reader { buf, at: 0 };
    match reader.value(depth_max) {
        Ok(value) => Parse::Done((value, reader.at)),
        Err(Stop::More) => Parse::More,
        Err(Stop::Bad) => Parse::Bad(()),
    }
}

/// Why decoding ended early.
enum Stop {
    More,
    Bad,
}

struct Reader<'b> {
    buf: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn value(&mut self, depth_left: usize) -> Result<Value<'b>, Stop> {
        loop {
            let kind = *self.buf.get(self.at).ok_or(Stop::More)?;
            self.at += 1;
            return Ok(match kind {
                b'+' => Value::Simple(self.line()?),
                b'-' => Value::Error(self.line()?),
                b',' => Value::Double(self.line()?),
                b'(' => Value::BigNumber(self.line()?),
                b':' => Value::Integer(self.number()?),
                b'_' => match self.line()? {
                    b"" => Value::Null,
                    _ => return Err(Stop::Bad),
                },
                b'#' => match self.line()? {
                    b"t" => Value::Bool(true),
                    b"f" => Value::Bool(false),
                    _ => return Err(Stop::Bad),
                },
                b'$' => match self.number()? {
                    -1 => Value::Null,
                    len => Value::Bulk(self.bulk(len)?),
                },
                b'!' => {
                    let len = self.number()?;
                    Value::BulkError(self.bulk(len)?)
                }
                b'=' => {
                    let len = self.number()?;
                    let text = self.bulk(len)?;
                    Value::Verbatim(text.split_first_chunk::<4>().ok_or(Stop::Bad)?.1)
                }
                b'*' => match self.number()? {
                    -1 => Value::Null,
                    count => Value::Array(self.elements(count, depth_left)?),
                },
                b'~' => {
                    let count = self.number()?;
                    Value::Set(self.elements(count, depth_left)?)
                }
                b'>' => {
                    let count = self.number()?;
                    Value::Push(self.elements(count, depth_left)?)
                }
                b'%' => Value::Map(self.pairs(depth_left)?),
                b'|' => {
                    self.pairs(depth_left)?;
                    continue;
                }
                _ => return Err(Stop::Bad),
            });
        }
    }

    /// Up to the next CRLF, which is passed.
    fn line(&mut self) -> Result<&'b [u8], Stop> {
        let rest = &self.buf[self.at..];
        let len = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or(Stop::More)?;
        self.at += len + 2;
        Ok(&rest[..len])
    }

    fn number(&mut self) -> Result<i64, Stop> {
        Number::parse(self.line()?).ok_or(Stop::Bad)
    }

    fn bulk(&mut self, len: i64) -> Result<&'b [u8], Stop> {
        let len = usize::try_from(len).map_err(|_| Stop::Bad)?;
        let (text, behind) = self.buf[self.at..]
            .split_at_checked(len)
            .ok_or(Stop::More)?;
        match behind {
            [b'\r', b'\n', ..] => (),
            [] | [b'\r'] => return Err(Stop::More),
            _ => return Err(Stop::Bad),
        }
        self.at += len + 2;
        Ok(text)
    }

    fn elements(&mut self, count: i64, depth_left: usize) -> Result<Vec<Value<'b>>, Stop> {
        let count = u64::try_from(count).map_err(|_| Stop::Bad)?;
        let depth_left = depth_left.checked_sub(1).ok_or(Stop::Bad)?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value(depth_left)?);
        }
        Ok(elements)
    }

    fn pairs(&mut self, depth_left: usize) -> Result<Vec<(Value<'b>, Value<'b>)>, Stop> {
        let count = u64::try_from(self.number()?).map_err(|_| Stop::Bad)?;
        let depth_left = depth_left.checked_sub(1).ok_or(Stop::Bad)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((self.value(depth_left)?, self.value(depth_left)?));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::Value::*;
    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Value) {
        let bytes = bytes.as_bytes();
        assert_eq!(
            decode(bytes, 3),
            Parse::Done((expected.clone(), bytes.len()))
        );
        assert_eq!(
            decode(&[bytes, b"+OK\r\n"].concat(), 3),
            Parse::Done((expected, bytes.len()))
        );
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 3), Parse::More, "cut at {cut}");
        }
    }

    #[test]
    fn every_type_is_decoded() {
        check("+OK\r\n", Simple(b"OK"));
        check("-ERR a\r\n", Error(b"ERR a"));
        check(":-5\r\n", Integer(-5));
        check("$4\r\na\r\nb\r\n", Bulk(b"a\r\nb"));
        for null in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
            check(null, Null);
        }
        check("#t\r\n", Bool(true));
        check("#f\r\n", Bool(false));
        check(",1.5\r\n", Double(b"1.5"));
        check(
            "(123456789012345678901\r\n",
            BigNumber(b"123456789012345678901"),
        );
        check("=6\r\ntxt:ab\r\n", Verbatim(b"ab"));
        check("!5\r\nERR x\r\n", BulkError(b"ERR x"));
        check(
            "*2\r\n:1\r\n*1\r\n$-1\r\n",
            Array(vec![Integer(1), Array(vec![Null])]),
        );
        check("~1\r\n:1\r\n", Set(vec![Integer(1)]));
        check(">1\r\n+a\r\n", Push(vec![Simple(b"a")]));
        check("%1\r\n+a\r\n:1\r\n", Map(vec![(Simple(b"a"), Integer(1))]));
        check(
            "|1\r\n+a\r\n:1\r\n*1\r\n|0\r\n:2\r\n",
            Array(vec![Integer(2)]),
        );
    }

    #[test]
    fn wrong_or_deep_replies_are_bad() {
        for bytes in [
            "x\r\n",
            "$?\r\n",
            "$-2\r\n",
            "%-1\r\n",
            "_x\r\n",
            "#x\r\n",
            "=3\r\ntxt\r\n",
            "$1\r\nabc",
            ":1.5\r\n",
            "*1\r\n\r\n",
        ] {
            assert_eq!(decode(bytes.as_bytes(), 3), Parse::Bad(()), "{bytes:?}");
        }
        let deep = "*1\r\n".repeat(4) + ":1\r\n";
        assert_eq!(decode(deep.as_bytes(), 3), Parse::Bad(()));
        assert!(matches!(decode(deep.as_bytes(), 4), Parse::Done(_)));
        assert_eq!(decode(b"*0\r\n", 0), Parse::Bad(()));
        let very_deep = "*1\r\n".repeat(1_000_000);
        assert_eq!(decode(very_deep.as_bytes(), 64), Parse::Bad(()));
        // A claim is not believed.
        assert_eq!(decode(b"*9223372036854775807\r\n", 3), Parse::More);
        assert_eq!(decode(b"$9223372036854775807\r\n", 3), Parse::More);
    }

    #[test]
    fn accessors_take_both_versions_of_a_reply() {
        let hello2 = b"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
        let hello3 = b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
        for (bytes, proto) in [(&hello2[..], 2), (&hello3[..], 3)] {
            let Parse::Done((value, _)) = decode(bytes, 2) else {
                panic!("whole")
            };
            assert_eq!(value.map_get(b"proto").and_then(Value::as_int), Some(proto));
            assert_eq!(
                value.map_get(b"role").and_then(Value::as_bytes),
                Some(&b"master"[..])
            );
            assert_eq!(value.map_get(b"master"), None);
        }
        assert_eq!(Bulk(b"12").as_int(), Some(12));
        assert_eq!(Error(b"ERR x").as_error(), Some(&b"ERR x"[..]));
        assert_eq!(Error(b"ERR x").as_bytes(), None);
        assert_eq!(Set(vec![Null]).as_array(), Some(&[Null][..]));
    }
}
