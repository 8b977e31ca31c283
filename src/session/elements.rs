//! Follows an array as it streams by and tells of each of its elements whether it is an error. Elements that are to be
//! shown differently are taken out of the stream, up to their end.
#![forbid(unsafe_code)]

use crate::protocol::resp::reply::{ReplyScanner, Scan};
use std::ops::Range;

/// Where in the array it is. Nothing of the array is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Elements {
    stage: Stage,
    /// Elements that have ended.
    ended: u64,
    scanner: ReplyScanner,
    /// The element it is in is taken out: this much of it has come.
    taken_out: Option<Vec<u8>>,
}

/// What is told of an array, in the order of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// These of the bytes stay in the stream.
    Stay(Range<usize>),
    /// The element at this place has ended; if it was taken out, this is all of it.
    Ended {
        at: u64,
        succeeded: bool,
        taken_out: Option<Vec<u8>>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// Nothing has come.
    #[default]
    Begin,
    /// In the line that says how many there are.
    Head,
    /// In the elements.
    Inside,
    /// It is no array.
    Other,
}

impl Elements {
    /// The next bytes of the reply. `takes_out` says whether the element at a place is to be.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut takes_out: impl FnMut(u64) -> bool,
        mut tell: impl FnMut(Told),
    ) {
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            match self.stage {
                Stage::Begin if bytes[at] == b'*' => self.stage = Stage::Head,
                Stage::Begin => self.stage = Stage::Other,
                Stage::Head => {
                    if bytes[at] == b'\n' {
                        self.stage = Stage::Inside;
                    }
                    at += 1;
                    tell(Told::Stay(from..at));
                }
                Stage::Inside => {
                    let begins = self.scanner.first_type().is_none();
                    if begins && self.taken_out.is_none() && takes_out(self.ended) {
                        self.taken_out = Some(Vec::new());
                    }
                    let (used, scan) = self.scanner.feed(&bytes[at..]);
                    at += used;
                    match &mut self.taken_out {
                        Some(taken_out) => taken_out.extend_from_slice(&bytes[from..at]),
                        None => tell(Told::Stay(from..at)),
                    }
                    match scan {
                        Scan::More => {}
                        Scan::Done => {
                            let kind = self.scanner.first_type();
                            tell(Told::Ended {
                                at: self.ended,
                                succeeded: !matches!(kind, Some(b'-' | b'!')),
                                taken_out: self.taken_out.take(),
                            });
                            self.ended += 1;
                            self.scanner = ReplyScanner::default();
                        }
                        Scan::Bad => self.stage = Stage::Other,
                    }
                }
                Stage::Other => {
                    at = bytes.len();
                    tell(Told::Stay(from..at));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &[u8], expected: &[bool]) {
        for piece in [1, 2, 3, 1000] {
            let (mut elements, mut told) = (Elements::default(), Vec::new());
            let (mut stayed, mut taken) = (Vec::new(), Vec::new());
            for part in reply.chunks(piece) {
                let every_second = |at: u64| at % 2 == 1;
                elements.feed(part, every_second, |what| match what {
                    Told::Stay(range) => {
                        stayed.extend_from_slice(&part[range.clone()]);
                        taken.extend_from_slice(&part[range]);
                    }
                    Told::Ended {
                        at,
                        succeeded,
                        taken_out,
                    } => {
                        assert_eq!(at, told.len() as u64);
                        assert_eq!(taken_out.is_some(), every_second(at));
                        told.push(succeeded);
                        taken.extend(taken_out.unwrap_or_default());
                    }
                });
            }
            assert_eq!(told, expected, "by {piece}");
            assert_eq!(taken, reply, "nothing is lost, by {piece}");
            assert_eq!(stayed == reply, expected.len() < 2);
        }
    }

    #[test]
    fn each_element_is_told_once_however_the_bytes_come() {
        check(b"*0\r\n", &[]);
        check(b"*-1\r\n", &[]);
        check(b"-ERR x\r\n", &[]);
        check(
            b"*3\r\n+OK\r\n-ERR a\r\n*2\r\n-ERR b\r\n:1\r\n",
            &[true, false, true],
        );
        check(b"*2\r\n$3\r\n-a\n\r\n!5\r\nERR x\r\n", &[true, false]);
    }
}
