//! Writes JSON (RFC 8259), value by value, into a string.
//!
//! Never allocates beyond its output. Bytes that are not UTF-8 become U+FFFD; control characters, quotes and what could
//! end a script element are escaped, so the text may stand anywhere. Costs: O(bytes written).
#![forbid(unsafe_code)]

use std::fmt::Write;

/// A value under construction. The caller keeps brackets in pairs; commas follow from the calls.
#[derive(Debug, Default)]
pub(super) struct Json {
    out: String,
    /// Whether a value stands in front, behind which a comma belongs.
    behind_value: bool,
}

impl Json {
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.behind_value, true) {
            self.out.push(',');
        }
    }

    /// `{ ... }` or `[ ... ]`, filled by `fill`.
    fn nest(&mut self, (open, close): (char, char), fill: impl FnOnce(&mut Json)) {
        self.separate();
        self.out.push(open);
        self.behind_value = false;
        fill(self);
        self.out.push(close);
        self.behind_value = true;
    }

    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nest(('{', '}'), fill);
    }

    pub(super) fn array(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nest(('[', ']'), fill);
    }

    /// The name of the value that comes next, in an object.
    pub(super) fn key(&mut self, name: &str) -> &mut Json {
        self.text(name);
        self.out.push(':');
        self.behind_value = false;
        self
    }

    pub(super) fn text(&mut self, text: &str) {
        self.separate();
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '<'
                | '>'
                | '&'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{7f}'..='\u{9f}'
                | '\0'..='\u{1f}' => {
                    write!(self.out, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.text(&String::from_utf8_lossy(bytes));
    }

    pub(super) fn whole(&mut self, number: impl Into<i128>) {
        self.separate();
        write!(self.out, "{}", number.into()).expect("a string takes everything");
    }

    /// A number that is none (a ratio of nothing) is null.
    pub(super) fn number(&mut self, number: f64) {
        if !number.is_finite() {
            return self.null();
        }
        self.separate();
        write!(self.out, "{number}").expect("a string takes everything");
    }

    pub(super) fn truth(&mut self, is: bool) {
        self.separate();
        self.out.push_str(if is { "true" } else { "false" });
    }

    pub(super) fn null(&mut self) {
        self.separate();
        self.out.push_str("null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_values_and_nowhere_else() {
        let mut json = Json::default();
        json.object(|json| {
            json.key("a").whole(1_u64);
            json.key("b").array(|json| {
                json.number(0.5);
                json.number(f64::NAN);
                json.object(|_| {});
                json.array(|_| {});
            });
            json.key("c").truth(true);
        });
        assert_eq!(json.finish(), r#"{"a":1,"b":[0.5,null,{},[]],"c":true}"#);
    }

    #[test]
    fn no_text_ends_its_string_or_a_script() {
        let mut json = Json::default();
        json.bytes(b"\"\\</script>&\n\x00\x7f\xff\xc3\xa9");
        let expected = "\"\\\"\\\\\\u003c/script\\u003e\\u0026\\u000a\\u0000\\u007f\u{fffd}é\"";
        assert_eq!(json.finish(), expected);
    }
}
