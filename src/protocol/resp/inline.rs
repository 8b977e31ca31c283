//! Inline requests: a line of words, quoted as Redis's `sdssplitargs` has it.
//!
//! Never allocates and never looks at a byte twice in one walk. Invariant: a walk ends behind the separator that ended
//! the argument, so walks over one line chain. O(length of the line).
//!
//! Quoting: words are separated by blanks; `"..."` knows `\n \r \t \b \a \xHH` and takes any other escaped byte as itself;
//! `'...'` knows `\'` only; a quote may open in the middle of a word, but behind a closing one a blank or the end must come.
#![forbid(unsafe_code)]

use super::look;

/// A quote was not closed, or something stands right behind a closing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

#[derive(Clone, Copy)]
enum State {
    /// Between arguments.
    Blank,
    /// In a word, outside quotes.
    Plain,
    Double,
    /// Behind `\` in double quotes.
    DoubleEscape,
    /// Behind `\x` in double quotes.
    DoubleHex,
    /// Behind `\x` and this hexadecimal digit in double quotes.
    DoubleHexDigit(u8),
    Single,
    /// Behind `\` in single quotes.
    SingleEscape,
    /// Behind a closing quote.
    Closed,
}

/// Walks over the next argument of `line` from `*at`, handing its unquoted bytes to `put`. `Ok(false)`: there is none.
///
/// The line's end is that of the slice; a CR before it is a blank like any other.
pub(super) fn next_argument(
    line: &[u8],
    at: &mut usize,
    mut put: impl FnMut(u8),
) -> Result<bool, UnbalancedQuotes> {
    let mut state = State::Blank;
    loop {
        let Some(byte) = look(line, *at) else {
            return match state {
                State::Blank => Ok(false),
                State::Plain | State::Closed => Ok(true),
                _ => Err(UnbalancedQuotes),
            };
        };
        *at += 1;
        state = match state {
            State::Blank if is_space(byte) => State::Blank,
            State::Blank | State::Plain => match byte {
                // Narrower than `is_space`: `\v` and `\f` inside a word belong to it.
                b' ' | b'\n' | b'\r' | b'\t' => return Ok(true),
                b'"' => State::Double,
                b'\'' => State::Single,
                _ => {
                    put(byte);
                    State::Plain
                }
            },
            State::Double => in_double(byte, &mut put),
            State::DoubleEscape if byte == b'x' => State::DoubleHex,
            State::DoubleEscape => {
                put(unescaped(byte));
                State::Double
            }
            State::DoubleHex if byte.is_ascii_hexdigit() => State::DoubleHexDigit(byte),
            State::DoubleHex => {
                put(b'x');
                in_double(byte, &mut put)
            }
            State::DoubleHexDigit(high) if byte.is_ascii_hexdigit() => {
                put(hex_digit(high) << 4 | hex_digit(byte));
                State::Double
            }
            State::DoubleHexDigit(high) => {
                put(b'x');
                put(high);
                in_double(byte, &mut put)
            }
            State::SingleEscape if byte == b'\'' => {
                put(b'\'');
                State::Single
            }
            State::SingleEscape => {
                put(b'\\');
                in_single(byte, &mut put)
            }
            State::Single => in_single(byte, &mut put),
            State::Closed if is_space(byte) => return Ok(true),
            State::Closed => return Err(UnbalancedQuotes),
        };
    }
}

/// How many arguments the line holds: at most half its length, rounded up.
pub(super) fn count_arguments(line: &[u8]) -> Result<u32, UnbalancedQuotes> {
    let (mut at, mut count) = (0, 0);
    while next_argument(line, &mut at, |_| ())? {
        count += 1;
    }
    Ok(count)
}

fn in_double(byte: u8, put: &mut impl FnMut(u8)) -> State {
    match byte {
        b'"' => State::Closed,
        b'\\' => State::DoubleEscape,
        _ => {
            put(byte);
            State::Double
        }
    }
}

fn in_single(byte: u8, put: &mut impl FnMut(u8)) -> State {
    match byte {
        b'\'' => State::Closed,
        b'\\' => State::SingleEscape,
        _ => {
            put(byte);
            State::Single
        }
    }
}

/// C's `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments of a line, or `None` when its quotes are unbalanced.
    fn split(line: &str) -> Option<Vec<Vec<u8>>> {
        let (mut at, mut arguments) = (0, Vec::new());
        loop {
            let mut argument = Vec::new();
            match next_argument(line.as_bytes(), &mut at, |byte| argument.push(byte)) {
                Ok(true) => arguments.push(argument),
                Ok(false) => return Some(arguments),
                Err(UnbalancedQuotes) => return None,
            }
        }
    }

    #[track_caller]
    fn check(line: &str, expected: Option<&[&[u8]]>) {
        let expected = expected.map(|all| all.iter().map(|one| one.to_vec()).collect::<Vec<_>>());
        assert_eq!(split(line), expected, "{line:?}");
        assert_eq!(
            count_arguments(line.as_bytes()).ok(),
            expected.map(|all| all.len() as u32),
            "{line:?}"
        );
    }

    #[test]
    fn words_are_separated_by_blanks() {
        check("", Some(&[]));
        check(" \t\x0b\x0c\r", Some(&[]));
        check("GET key", Some(&[b"GET", b"key"]));
        check("  GET \t key \r", Some(&[b"GET", b"key"]));
        check("GET\rkey", Some(&[b"GET", b"key"]));
        check("a\x0bb \x0bc", Some(&[b"a\x0bb", b"c"]));
    }

    #[test]
    fn double_quotes_know_escapes() {
        check(r#""" x"#, Some(&[b"", b"x"]));
        check(r#""a b" c"#, Some(&[b"a b", b"c"]));
        check(r#"a"b c""#, Some(&[b"ab c"]));
        check(r#""\n\r\t\b\a\q\\\"""#, Some(&[b"\n\r\t\x08\x07q\\\""]));
        check(r#""\x41\xfF\x00""#, Some(&[b"A\xff\x00"]));
        check(
            r#""\x4" "\xg" "\x" "\x4\n" "\x\n""#,
            Some(&[b"x4", b"xg", b"x", b"x4\n", b"x\n"]),
        );
    }

    #[test]
    fn single_quotes_know_their_own_quote_only() {
        check(r"'a b' 'it\'s' '\n\\' '\'", None);
        // Not even its own escape character: the last backslash still escapes the quote.
        check(r"'\\'", None);
        check(
            r"'a b' 'it\'s' '\n\\ '",
            Some(&[b"a b", b"it's", b"\\n\\\\ "]),
        );
        check(r#"'"' "'""#, Some(&[b"\"", b"'"]));
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            r#"""#,
            "'",
            r#""a"#,
            r#""a"b"#,
            r#""a"'b'"#,
            "'a'b",
            r#"a""""#,
            r#""\"#,
            r#""\x"#,
            r#""\x4"#,
            r"'\",
        ] {
            check(line, None);
        }
        check("\"a\"\x0bb", Some(&[b"a", b"b"]));
    }
}
