//! One event as one line: text for people, JSON (RFC 8259) for machines.
//!
//! ```text
//! 2026-11-22T15:57:03.123Z WARN close client=7 peer=127.0.0.1:4711 reason=idle_timeout why="with \"quotes\" if it must"
//! {"time":"2026-11-22T15:57:03.123Z","level":"WARN","message":"close","client":7,"peer":"127.0.0.1:4711", ...}
//! ```
//!
//! Whatever a peer can put into a field, the line is one line and, as JSON, valid: control characters are escaped, and a
//! value ends at [`VALUE_BYTES_MAX`], the whole near [`FIELDS_BYTES_MAX`] with a field `cut`. Costs: O(bytes written).
#![forbid(unsafe_code)]

use crate::config::LogFormat;
use std::fmt::{self, Write};
use std::time::Duration;

/// One value; the rest is cut off, and `…` says so.
const VALUE_BYTES_MAX: usize = 1024;
/// What has more bytes than this in fields, or in its message, gets no further field.
const FIELDS_BYTES_MAX: usize = 4096;
/// Names that JSON lines have for themselves.
const OWN_NAMES: [&str; 4] = ["time", "level", "message", "target"];

/// A line under construction.
#[derive(Debug)]
pub struct Line {
    format: LogFormat,
    message: String,
    /// Each as it will stand in the line, with what parts it from the one in front.
    fields: String,
    is_cut: bool,
    /// Where a value is put together before it is known whether it needs quotes.
    value: String,
}

/// A value of a field.
pub enum Value<'a> {
    /// Any whole number.
    Whole(i128),
    /// A number; what JSON has no word for (infinity) is null there.
    Number(f64),
    /// Yes or no.
    Truth(bool),
    /// Anything else, as it prints itself.
    Text(&'a dyn fmt::Display),
}

impl Line {
    /// An empty one.
    pub fn new(format: LogFormat) -> Line {
        Line {
            format,
            message: String::new(),
            fields: String::new(),
            is_cut: false,
            value: String::new(),
        }
    }

    /// What the event says, in words.
    pub fn message(&mut self, words: &dyn fmt::Display) {
        self.message.clear();
        bounded(&mut self.message, VALUE_BYTES_MAX, words);
    }

    /// The message that was set.
    pub fn words(&self) -> &str {
        &self.message
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: Value<'_>) {
        if !self.name(name) {
            return;
        }
        match (value, self.format) {
            (Value::Whole(number), _) => put(&mut self.fields, &number),
            (Value::Truth(is), _) => put(&mut self.fields, &is),
            (Value::Number(number), LogFormat::Json) if !number.is_finite() => {
                self.fields.push_str("null");
            }
            (Value::Number(number), _) => put(&mut self.fields, &number),
            (Value::Text(text), _) => self.text(text, VALUE_BYTES_MAX),
        }
    }

    /// Adds a field of text that may have `bytes_max` bytes and not [`VALUE_BYTES_MAX`].
    pub fn long_field(&mut self, name: &str, text: &dyn fmt::Display, bytes_max: usize) {
        if self.name(name) {
            self.text(text, bytes_max);
        }
    }

    /// Begins a field, if there is room for another.
    fn name(&mut self, name: &str) -> bool {
        if self.fields.len() > FIELDS_BYTES_MAX {
            self.is_cut = true;
            return false;
        }
        match self.format {
            LogFormat::Text => {
                self.fields.push(' ');
                self.fields.push_str(name);
                self.fields.push('=');
            }
            LogFormat::Json => {
                self.fields.push_str(",\"");
                if OWN_NAMES.contains(&name) {
                    self.fields.push_str("field_");
                }
                escape_json(&mut self.fields, name);
                self.fields.push_str("\":");
            }
        }
        true
    }

    fn text(&mut self, text: &dyn fmt::Display, bytes_max: usize) {
        self.value.clear();
        bounded(&mut self.value, bytes_max, text);
        match self.format {
            LogFormat::Text if is_bare(&self.value) => self.fields.push_str(&self.value),
            LogFormat::Text => {
                self.fields.push('"');
                for c in self.value.chars() {
                    match c {
                        '"' | '\\' => self.fields.extend(['\\', c]),
                        c if c.is_control() => self.fields.extend(c.escape_default()),
                        c => self.fields.push(c),
                    }
                }
                self.fields.push('"');
            }
            LogFormat::Json => {
                self.fields.push('"');
                escape_json(&mut self.fields, &self.value);
                self.fields.push('"');
            }
        }
    }

    /// The whole line, with its end. `at` is the time since 1970.
    pub fn finish(mut self, at: Duration, level: &str) -> String {
        if self.is_cut {
            self.fields.push_str(match self.format {
                LogFormat::Text => " cut=true",
                LogFormat::Json => ",\"cut\":true",
            });
        }
        let mut out = String::with_capacity(64 + self.message.len() + self.fields.len());
        match self.format {
            LogFormat::Text => {
                put(&mut out, &format_args!("{} {level} ", Timestamp(at)));
                for c in self.message.chars() {
                    match c {
                        c if c.is_control() => out.extend(c.escape_default()),
                        c => out.push(c),
                    }
                }
                out.push_str(&self.fields);
                out.push('\n');
            }
            LogFormat::Json => {
                let head = format_args!("{{\"time\":\"{}\",\"level\":\"{level}\"", Timestamp(at));
                put(&mut out, &head);
                out.push_str(",\"message\":\"");
                escape_json(&mut out, &self.message);
                out.push('"');
                out.push_str(&self.fields);
                out.push_str("}\n");
            }
        }
        out
    }
}

/// Whether text needs no quotes to be told from what follows.
fn is_bare(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\');
    !text.is_empty() && text.chars().all(plain)
}

fn escape_json(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // Those that end a line for some reader, beside those that RFC 8259 wants escaped.
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                put(out, &format_args!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
}

fn put(out: &mut String, what: &dyn fmt::Display) {
    write!(out, "{what}").expect("a string takes everything");
}

/// Adds what `what` prints, and no more than about `bytes_max` bytes of it.
fn bounded(out: &mut String, bytes_max: usize, what: &dyn fmt::Display) {
    let mut bounded = Bounded {
        end: out.len() + bytes_max,
        out,
        is_full: false,
    };
    // Something that fails to print itself has printed what it could.
    let _ = write!(bounded, "{what}");
}

struct Bounded<'a> {
    out: &'a mut String,
    end: usize,
    is_full: bool,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.is_full {
                break;
            }
            if self.out.len() + c.len_utf8() > self.end {
                self.is_full = true;
                self.out.push('…');
            } else {
                self.out.push(c);
            }
        }
        Ok(())
    }
}

/// Writes a time since 1970 as `2026-11-22T15:57:03.123Z`.
#[derive(Debug)]
struct Timestamp(Duration);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, secs) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        let ms = self.0.subsec_millis();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar. Counts from 1 March of year 0, so
/// that the leap day is the last of its year (after Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_millis(1_000);

    fn line(format: LogFormat, fill: impl FnOnce(&mut Line)) -> String {
        let mut line = Line::new(format);
        fill(&mut line);
        line.finish(AT, "INFO")
    }

    #[test]
    fn timestamps_agree_with_the_calendar() {
        let check = |secs: u64, expected: &str| {
            let at = Duration::from_millis(secs * 1000 + 7);
            assert_eq!(Timestamp(at).to_string(), expected);
        };
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_399, "2000-02-28T23:59:59.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(951_868_800, "2000-03-01T00:00:00.007Z");
        check(1_735_689_599, "2024-12-31T23:59:59.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
    }

    #[test]
    fn text_quotes_what_could_be_taken_for_more_than_one_value() {
        let check = |value: &str, expected: &str| {
            let text = line(LogFormat::Text, |line| {
                line.message(&"said");
                line.field("n", Value::Whole(-3));
                line.field("v", Value::Text(&value));
                line.field("is", Value::Truth(true));
            });
            let expected =
                format!("1970-01-01T00:00:01.000Z INFO said n=-3 v={expected} is=true\n");
            assert_eq!(text, expected);
        };
        check("[::1]:6380", "[::1]:6380");
        check("", "\"\"");
        check("two words", "\"two words\"");
        check("a=b", "\"a=b\"");
        check("say \"x\\y\"", r#""say \"x\\y\"""#);
        check("x\r\n2026 ERROR forged", r#""x\r\n2026 ERROR forged""#);
        check("\u{85}\u{1b}", r#""\u{85}\u{1b}""#);
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        let text = line(LogFormat::Text, |line| line.message(&"a\r\nb"));
        assert_eq!(text, "1970-01-01T00:00:01.000Z INFO a\\r\\nb\n");
        let json = line(LogFormat::Json, |line| line.message(&"a\r\nb\u{2028}\"\\"));
        let expected = r#"{"time":"1970-01-01T00:00:01.000Z","level":"INFO","message":"a\u000d\nb\u2028\"\\"}"#;
        assert_eq!(json, format!("{expected}\n"));
    }

    #[test]
    fn json_has_numbers_as_numbers_and_its_own_names_for_itself() {
        let json = line(LogFormat::Json, |line| {
            line.message(&"m");
            line.field("level", Value::Text(&"mine"));
            line.field("n", Value::Whole(u64::MAX.into()));
            line.field("x", Value::Number(0.5));
            line.field("none", Value::Number(f64::NAN));
            line.field("is", Value::Truth(false));
        });
        let fields =
            r#""field_level":"mine","n":18446744073709551615,"x":0.5,"none":null,"is":false"#;
        assert!(json.ends_with(&format!("{fields}}}\n")), "{json}");
    }

    #[test]
    fn long_values_and_lines_are_cut_and_say_so() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let long = "é".repeat(VALUE_BYTES_MAX);
            let whole = line(format, |line| {
                line.message(&long);
                for _ in 0..100 {
                    line.field("v", Value::Text(&long));
                }
            });
            assert!(whole.len() < FIELDS_BYTES_MAX + 3 * VALUE_BYTES_MAX);
            assert_eq!(whole.matches('…').count(), 5);
            assert!(whole.contains("cut"));
        }
        let text = line(LogFormat::Text, |line| {
            line.long_field("b", &"x".repeat(9999), 9999)
        });
        assert!(text.ends_with(&format!(" b={}\n", "x".repeat(9999))));
    }
}
