//! The integers in header lines: as strict as Redis's `string2ll`, one byte at a time.
//!
//! Never accepts two spellings of one number (no `+`, no leading zero, no `-0`, no blank), so a header that passed is
//! canonical. Invariant: a [`Number`] that was fed the same bytes in any pieces is in the same state. O(1) per byte.
#![forbid(unsafe_code)]

/// The number that `text` is to Redis, if it is one.
pub fn parse(text: &[u8]) -> Option<i64> {
    Number::parse(text)
}

/// A decimal integer being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Number {
    magnitude: u64,
    form: Form,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Form {
    /// Nothing read: not a number yet.
    #[default]
    Empty,
    /// A single `-`: not a number yet.
    Minus,
    /// `0`, which nothing may follow.
    Zero,
    Positive,
    Negative,
    /// No continuation is a number.
    Invalid,
}

impl Number {
    /// The whole text as a number.
    pub(super) fn parse(text: &[u8]) -> Option<i64> {
        let mut number = Number::default();
        for &byte in text {
            number.push(byte);
        }
        number.value()
    }

    /// Reads one more byte.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        let digit = byte.wrapping_sub(b'0');
        self.form = match self.form {
            Form::Positive | Form::Negative if digit <= 9 => {
                let grown = self
                    .magnitude
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(u64::from(digit)));
                self.magnitude = grown.unwrap_or(u64::MAX); // beyond i64 either way: `value` refuses it
                if grown.is_some() {
                    self.form
                } else {
                    Form::Invalid
                }
            }
            Form::Empty if byte == b'-' => Form::Minus,
            Form::Empty if digit == 0 => Form::Zero,
            Form::Empty | Form::Minus if (1..=9).contains(&digit) => {
                self.magnitude = u64::from(digit);
                if self.form == Form::Empty {
                    Form::Positive
                } else {
                    Form::Negative
                }
            }
            _ => Form::Invalid,
        };
    }

    /// Whether no continuation can be a number (some that overflow `i64` are found by [`Number::value`] only).
    #[inline]
    pub(super) fn is_invalid(&self) -> bool {
        self.form == Form::Invalid
    }

    /// What was read, if it is a number and fits.
    #[inline]
    pub(super) fn value(&self) -> Option<i64> {
        match self.form {
            Form::Zero => Some(0),
            Form::Positive => i64::try_from(self.magnitude).ok(),
            Form::Negative => 0i64.checked_sub_unsigned(self.magnitude),
            Form::Empty | Form::Minus | Form::Invalid => None,
        }
    }
}

/// Two digits (not beginning with 0) and CRLF, compared at once.
#[inline(always)]
pub(super) fn two_digits(text: [u8; 4]) -> Option<usize> {
    // Each byte becomes its digit and CRLF becomes 0. Adding 0x76 sets the top bit of a byte above 9; nothing carries
    // unless a top bit was set before.
    let digits = u32::from_le_bytes(text).wrapping_sub(u32::from_le_bytes(*b"00\r\n"));
    let wrong = (digits | digits.wrapping_add(0x7676)) & 0xffff_8080;
    (wrong == 0 && digits & 0xff != 0).then(|| ((digits & 0xff) * 10 + (digits >> 8)) as usize)
}

/// One digit and CRLF; the fourth byte may be anything.
#[inline(always)]
pub(super) fn one_digit(text: [u8; 4]) -> Option<usize> {
    let digit =
        (u32::from_le_bytes(text) & 0xff_ffff).wrapping_sub(u32::from_le_bytes(*b"0\r\n\0"));
    (digit <= 9).then_some(digit as usize)
}

/// A header whose number has one or two digits, with both its CR and LF: nearly all of them. Returns the number and the
/// header's size. `None` says nothing: the header may be longer, incomplete or wrong.
#[inline(always)]
pub(super) fn short_header(kind: u8, buf: &[u8]) -> Option<(usize, usize)> {
    // Five bytes are there in any case: something follows even the shortest header.
    let &[first, ref text @ ..] = buf.first_chunk::<5>()?;
    if first != kind {
        return None;
    }
    match two_digits(*text) {
        Some(number) => Some((number, 5)),
        None => one_digit(*text).map(|number| (number, 4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_strict_as_string2ll() {
        let cases: &[(&str, Option<i64>)] = &[
            ("", None),
            ("0", Some(0)),
            ("00", None),
            ("01", None),
            ("-", None),
            ("-0", None),
            ("-1", Some(-1)),
            ("--1", None),
            ("+1", None),
            ("1-", None),
            ("1 ", None),
            (" 1", None),
            ("7", Some(7)),
            ("1234567890", Some(1_234_567_890)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("-99999999999999999999999", None),
            ("1a", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Number::parse(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn short_headers_are_read_and_long_ones_left_alone() {
        assert_eq!(short_header(b'$', b"$0\r\n\r\n"), Some((0, 4)));
        assert_eq!(short_header(b'$', b"$7\r\nabc"), Some((7, 4)));
        assert_eq!(short_header(b'$', b"$42\r\n"), Some((42, 5)));
        // The second digit is `\r` and the payload begins with `\n`: still one digit.
        assert_eq!(short_header(b'$', b"$2\r\n\r\n\r\n"), Some((2, 4)));
        for other in [
            "$0\r\n",
            "$05\r\n",
            "$-1\r\n",
            "$123\r\n",
            "$1\r.abc",
            "$12\r.ab",
            "*1\r\nabc",
            "$\r\n\r\n",
            "",
        ] {
            assert_eq!(short_header(b'$', other.as_bytes()), None, "{other:?}");
        }
        // Every pair of bytes where the digits are.
        for (first, second) in
            (0..=255).flat_map(|first| (0..=255).map(move |second| (first, second)))
        {
            let both = std::str::from_utf8(&[first, second])
                .ok()
                .and_then(|_| Number::parse(&[first, second]));
            let both = both
                .filter(|number| *number >= 10)
                .map(|number| number as usize);
            assert_eq!(two_digits([first, second, b'\r', b'\n']), both);
            assert_eq!(
                two_digits([b'1', first, b'\r', second]).is_some(),
                first.is_ascii_digit() && second == b'\n'
            );
            let one = first.is_ascii_digit().then(|| usize::from(first - b'0'));
            assert_eq!(one_digit([first, b'\r', b'\n', second]), one);
            assert_eq!(
                one_digit([b'1', first, second, b'\n']).is_some(),
                [first, second] == *b"\r\n"
            );
        }
    }
}
