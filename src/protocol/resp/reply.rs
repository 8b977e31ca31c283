//! Finds where each reply of Redis ends, as the bytes pass by.
//!
//! The scanner keeps nothing of a reply and understands nothing but its extent: what it has passed can be sent on at once.
//! Nesting needs no stack: every aggregate only adds its elements to the number of items still owed.
//!
//! ```text
//! *2\r\n  $3\r\nkey\r\n  *1\r\n  :1\r\n
//! owed: 2             1       1       0: done
//! ```
//!
//! All types of RESP2 and RESP3 but the streamed ones (`$?`, `*?`), which Redis never sends. An attribute (`|`) and its pairs
//! belong to the item behind them. Numbers are as strict as Redis writes them.
//!
//! Never: an allocation, a byte needed twice, a look at a bulk's bytes. Invariant: `owed` is 0 between replies only.
//! O(1) memory; O(1) time for a bulk, O(n) for lines.
#![forbid(unsafe_code)]

use super::number::{self, Number};

/// What the bytes fed so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// A reply (or a push) ends behind the bytes used.
    Done,
    /// All bytes were used and the reply goes on.
    More,
    /// No reply begins like this: the connection is lost. Said again by every later call.
    Bad,
}

/// Where in a reply the scanner is. Small; `default()` is between replies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ReplyScanner {
    step: Step,
    /// The type byte of the header line being read.
    kind: u8,
    number: Number,
    /// Bytes of the bulk still to come, without its CRLF.
    bulk_left: u64,
    /// Items still to come, the one being read included.
    owed: u64,
    first_type: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Step {
    /// Before an item's type byte.
    #[default]
    Type,
    /// In the number of a header line.
    Number,
    /// Behind the CR of a header line.
    NumberLf,
    /// In a line of text.
    Line,
    /// Behind a CR in a line of text, which ends only if LF follows.
    LineLf,
    /// Before the `t` or `f` of a boolean.
    Bool,
    /// In a bulk's bytes.
    Bulk,
    /// Before the CR that ends the item.
    EndCr,
    /// Before the LF that ends the item.
    EndLf,
    /// Something was wrong.
    Broken,
}

impl ReplyScanner {
    /// Passes over `bytes` up to the end of the reply. Returns how many bytes were used; after `Done` feed the rest again,
    /// for the next reply.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, Scan) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let item_ended = match self.step {
                Step::Type => {
                    self.begin_item(byte);
                    if let Some(len) = whole_short_bulk(&bytes[at..]) {
                        at += len - 1;
                        true
                    } else {
                        self.step = step_behind_type(byte);
                        self.kind = byte;
                        self.number = Number::default();
                        false
                    }
                }
                Step::Number if byte == b'\r' => {
                    self.step = Step::NumberLf;
                    false
                }
                Step::Number => {
                    self.number.push(byte);
                    if self.number.is_invalid() {
                        self.step = Step::Broken;
                    }
                    false
                }
                Step::NumberLf if byte == b'\n' => self.header_ended(),
                Step::LineLf if byte == b'\n' => true,
                Step::Line | Step::LineLf => {
                    let rest = &bytes[at..];
                    match rest.iter().position(|&byte| byte == b'\r') {
                        Some(cr) => {
                            at += cr;
                            self.step = Step::LineLf;
                        }
                        None => {
                            at += rest.len() - 1;
                            self.step = Step::Line;
                        }
                    }
                    false
                }
                Step::Bool => {
                    self.step = if matches!(byte, b't' | b'f') {
                        Step::EndCr
                    } else {
                        Step::Broken
                    };
                    false
                }
                Step::Bulk => {
                    let here = (bytes.len() - at) as u64;
                    let passed = here.min(self.bulk_left);
                    self.bulk_left -= passed;
                    at += passed as usize; // at most what is here
                    if self.bulk_left == 0 {
                        self.step = Step::EndCr;
                    }
                    continue;
                }
                Step::EndCr if byte == b'\r' => {
                    self.step = Step::EndLf;
                    false
                }
                Step::EndLf if byte == b'\n' => true,
                Step::NumberLf | Step::EndCr | Step::EndLf | Step::Broken => {
                    self.step = Step::Broken;
                    false
                }
            };
            if self.step == Step::Broken {
                return (at, Scan::Bad);
            }
            at += 1;
            if item_ended {
                self.step = Step::Type;
                self.owed -= 1; // the item that ended was owed
                if self.owed == 0 {
                    return (at, Scan::Done);
                }
            }
        }
        (
            at,
            if self.step == Step::Broken {
                Scan::Bad
            } else {
                Scan::More
            },
        )
    }

    /// The type byte of the reply being read, or just ended: that of the item itself, behind its attributes. `-` and `!` are
    /// errors, `>` is a push, which answers nothing. `None` while it has not come.
    pub fn first_type(&self) -> Option<u8> {
        self.first_type
    }

    /// Whether the next byte begins a reply.
    pub fn at_boundary(&self) -> bool {
        self.owed == 0
    }

    #[inline]
    fn begin_item(&mut self, kind: u8) {
        if self.owed == 0 {
            self.owed = 1;
            self.first_type = None;
        }
        // The pairs of an attribute at the top are owed on top of the reply itself: at 1 they are over.
        if self.owed == 1 && self.first_type.is_none() && kind != b'|' {
            self.first_type = Some(kind);
        }
    }

    /// A header line is complete: says whether it is the whole item, or breaks.
    fn header_ended(&mut self) -> bool {
        let Some(number) = self.number.value() else {
            self.step = Step::Broken;
            return false;
        };
        let count = u64::try_from(number).ok();
        let elements = match (self.kind, count) {
            (b':', _) => return true,
            (b'$' | b'*', None) if number == -1 => return true,
            (b'$' | b'!' | b'=', Some(len)) => {
                self.bulk_left = len;
                self.step = if len == 0 { Step::EndCr } else { Step::Bulk };
                return false;
            }
            (b'*' | b'~' | b'>', Some(count)) => Some(count),
            (b'%' | b'|', Some(pairs)) => pairs.checked_mul(2),
            _ => None,
        };
        match elements.and_then(|elements| self.owed.checked_add(elements)) {
            Some(owed) => {
                self.owed = owed;
                self.step = Step::Type;
                self.kind != b'|' // an attribute is no item of its own
            }
            None => {
                self.step = Step::Broken;
                false
            }
        }
    }
}

#[inline]
fn step_behind_type(kind: u8) -> Step {
    match kind {
        b'$' | b'*' | b':' | b'%' | b'~' | b'>' | b'|' | b'!' | b'=' => Step::Number,
        b'+' | b'-' | b',' | b'(' => Step::Line,
        b'_' => Step::EndCr,
        b'#' => Step::Bool,
        _ => Step::Broken,
    }
}

/// The size of the bulk at the start of `bytes`, if it is all here and short: the elements of most arrays.
#[inline]
fn whole_short_bulk(bytes: &[u8]) -> Option<usize> {
    let (len, header_len) = number::short_header(b'$', bytes)?;
    let end = header_len + len;
    (bytes.get(end..end + 2)? == b"\r\n").then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans `bytes` in pieces of at most `piece` bytes: the end and first type of each reply, then how it ended.
    fn scan(bytes: &[u8], piece: usize) -> (Vec<(usize, u8)>, Scan) {
        let (mut scanner, mut at, mut ends) = (ReplyScanner::default(), 0, Vec::new());
        while at < bytes.len() {
            let end = bytes.len().min(at.saturating_add(piece));
            let (used, told) = scanner.feed(&bytes[at..end]);
            at += used;
            match told {
                Scan::Done => {
                    assert!(scanner.at_boundary());
                    assert_eq!(scanner.feed(b""), (0, Scan::More));
                    ends.push((at, scanner.first_type().expect("known at the end")));
                }
                Scan::More => assert!(at == end && !scanner.at_boundary()),
                Scan::Bad => {
                    assert_eq!(scanner.feed(b"+OK\r\n").1, Scan::Bad, "said again");
                    assert_eq!(scanner.feed(b""), (0, Scan::Bad));
                    return (ends, Scan::Bad);
                }
            }
        }
        let told = if scanner.at_boundary() {
            Scan::Done
        } else {
            Scan::More
        };
        (ends, told)
    }

    /// `replies` are whole replies, each with its first type, in one stream.
    #[track_caller]
    fn check(replies: &[(&[u8], u8)]) {
        let bytes: Vec<u8> = replies
            .iter()
            .flat_map(|(bytes, _)| bytes.to_vec())
            .collect();
        let mut end = 0;
        let ends: Vec<_> = replies
            .iter()
            .map(|(bytes, kind)| {
                end += bytes.len();
                (end, *kind)
            })
            .collect();
        for piece in [usize::MAX, 1, 2, 3, 5, 7] {
            let (found, told) = scan(&bytes, piece);
            assert_eq!(
                (found, told),
                (ends.clone(), Scan::Done),
                "{:?} by {piece}",
                bytes.escape_ascii().to_string()
            );
            for cut in 0..bytes.len() {
                let (found, told) = scan(&bytes[..cut], piece);
                let whole = ends.iter().filter(|(end, _)| *end <= cut).count();
                let is_between = cut == 0 || ends.iter().any(|(end, _)| *end == cut);
                assert_eq!(found, ends[..whole]);
                assert_eq!(told, if is_between { Scan::Done } else { Scan::More });
            }
        }
    }

    #[track_caller]
    fn check_bad(bytes: &[u8], used_before: usize) {
        let mut scanner = ReplyScanner::default();
        assert_eq!(
            scanner.feed(bytes),
            (used_before, Scan::Bad),
            "{:?}",
            bytes.escape_ascii().to_string()
        );
        assert_eq!(scan(bytes, 1).1, Scan::Bad);
    }

    #[test]
    fn every_type_ends_where_it_ends() {
        check(&[
            (b"+OK\r\n", b'+'),
            (b"+\r\n", b'+'),
            (b"-ERR a\rb\nc\r\r\n", b'-'),
            (b"+\r\r\n", b'+'),
        ]);
        check(&[
            (b":0\r\n", b':'),
            (b":-12\r\n", b':'),
            (b":9223372036854775807\r\n", b':'),
        ]);
        check(&[
            (b"$-1\r\n", b'$'),
            (b"$0\r\n\r\n", b'$'),
            (b"$2\r\n\r\n\r\n", b'$'),
            (b"$12\r\n$3\r\nabc\r\n+OK\r\n", b'$'),
        ]);
        check(&[
            (b"_\r\n", b'_'),
            (b"#t\r\n", b'#'),
            (b"#f\r\n", b'#'),
            (b",1.5e3\r\n", b','),
            (b",-inf\r\n", b','),
        ]);
        check(&[
            (b"(-123456789012345678901234567890\r\n", b'('),
            (b"!5\r\nERR x\r\n", b'!'),
            (b"=6\r\ntxt:ab\r\n", b'='),
        ]);
        check(&[
            (b"*-1\r\n", b'*'),
            (b"*0\r\n", b'*'),
            (b"%0\r\n", b'%'),
            (b"~0\r\n", b'~'),
            (b">0\r\n", b'>'),
        ]);
        let long = [b"$1000\r\n".to_vec(), vec![b'\r'; 1000], b"\r\n".to_vec()].concat();
        check(&[(&long, b'$'), (b"+OK\r\n", b'+')]);
    }

    #[test]
    fn aggregates_end_with_their_last_element() {
        check(&[
            (b"*2\r\n$1\r\na\r\n:1\r\n", b'*'),
            (b"*1\r\n*1\r\n*1\r\n*0\r\n", b'*'),
        ]);
        check(&[
            (b"*3\r\n*2\r\n+a\r\n-b\r\n$-1\r\n*1\r\n_\r\n", b'*'),
            (b"+OK\r\n", b'+'),
        ]);
        check(&[
            (b"%2\r\n+a\r\n*1\r\n:1\r\n+b\r\n%1\r\n+c\r\n#t\r\n", b'%'),
            (b"~2\r\n:1\r\n:2\r\n", b'~'),
        ]);
        check(&[
            (b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", b'>'),
            (b"$1\r\nv\r\n", b'$'),
            (b">2\r\n+x\r\n_\r\n", b'>'),
        ]);
    }

    #[test]
    fn attributes_belong_to_the_item_behind_them() {
        check(&[
            (b"|1\r\n+ttl\r\n:3\r\n-ERR x\r\n", b'-'),
            (b"|0\r\n:1\r\n", b':'),
        ]);
        check(&[(
            b"|1\r\n+a\r\n*2\r\n:1\r\n:2\r\n|1\r\n+b\r\n:1\r\n*1\r\n:7\r\n",
            b'*',
        )]);
        // In the middle it is no element, at the end of an array neither.
        check(&[
            (
                b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n|2\r\n+a\r\n+b\r\n+c\r\n%0\r\n:2\r\n",
                b'*',
            ),
            (b"+OK\r\n", b'+'),
        ]);
    }

    #[test]
    fn what_is_no_reply_is_bad_at_its_first_wrong_byte() {
        for (bytes, used) in [
            ("x", 0),
            ("\r\n", 0),
            ("PONG\r\n", 0),
            ("+OK\r\n?", 0),
            ("$?\r\n", 1),
            ("*?\r\n", 1),
            ("$01\r\n", 2),
            ("$+1\r\n", 1),
            ("$ 1\r\n", 1),
            ("$\r\n", 2),
            ("$-2\r\n", 4),
            ("%-1\r\n", 4),
            ("~-1\r\n", 4),
            ("=-1\r\n", 4),
            ("$1\rx", 3),
            ("$1\r\nabc", 5),
            ("$1\r\na\rb", 6),
            (":1.5\r\n", 2),
            (":9223372036854775808\r\n", 21),
            ("#x\r\n", 1),
            ("#tt\r\n", 2),
            ("_x\r\n", 1),
            ("*2\r\n:1\r\nx", 8),
            ("%9223372036854775807\r\n%9223372036854775807\r\n", 43),
        ] {
            let bytes = bytes.as_bytes();
            let skipped = if bytes.starts_with(b"+OK\r\n") { 5 } else { 0 };
            check_bad(&bytes[skipped..], used);
        }
        let endless = ["*9223372036854775807\r\n"; 2].concat() + "*9223372036854775807\r\n";
        check_bad(endless.as_bytes(), endless.len() - 1);
    }

    #[test]
    fn claims_cost_nothing() {
        let mut scanner = ReplyScanner::default();
        assert_eq!(
            scanner.feed(b"*4611686018427387904\r\n$9223372036854775807\r\n"),
            (44, Scan::More)
        );
        let part = vec![b'x'; 1 << 16];
        for _ in 0..1000 {
            assert_eq!(scanner.feed(&part), (part.len(), Scan::More));
        }
        assert_eq!(scanner.first_type(), Some(b'*'));
        assert!(size_of::<ReplyScanner>() <= 56);
    }
}
