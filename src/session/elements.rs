//! Follows an array as it streams by and tells of each of its elements whether it is an error.
#![forbid(unsafe_code)]

use crate::protocol::resp::reply::{ReplyScanner, Scan};

/// Where in the array it is. Nothing of the array is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Elements {
    stage: Stage,
    /// Elements that have ended.
    ended: u64,
    scanner: ReplyScanner,
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
    /// The next bytes of the reply; `tell` gets the place of each element that ends in them, and whether it is no error.
    pub(super) fn feed(&mut self, bytes: &[u8], mut tell: impl FnMut(u64, bool)) {
        let mut at = 0;
        while at < bytes.len() {
            match self.stage {
                Stage::Begin if bytes[at] == b'*' => self.stage = Stage::Head,
                Stage::Begin => self.stage = Stage::Other,
                Stage::Head => {
                    if bytes[at] == b'\n' {
                        self.stage = Stage::Inside;
                    }
                    at += 1;
                }
                Stage::Inside => {
                    let (used, scan) = self.scanner.feed(&bytes[at..]);
                    at += used;
                    match scan {
                        Scan::More => {}
                        Scan::Done => {
                            let kind = self.scanner.first_type();
                            tell(self.ended, !matches!(kind, Some(b'-' | b'!')));
                            self.ended += 1;
                            self.scanner = ReplyScanner::default();
                        }
                        Scan::Bad => self.stage = Stage::Other,
                    }
                }
                Stage::Other => return,
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
            for part in reply.chunks(piece) {
                elements.feed(part, |at, succeeded| {
                    assert_eq!(at, told.len() as u64);
                    told.push(succeeded);
                });
            }
            assert_eq!(told, expected, "by {piece}");
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
