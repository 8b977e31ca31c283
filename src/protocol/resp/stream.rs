//! A request too long to be kept, read as it passes.
//!
//! Whatever comes in, what comes out is a canonical array: header lines are written anew, and so are the line ends that
//! Redis does not look at. Of what has passed an *outline* stays: the arguments as far as they are short, so that at the
//! end it can be told what the request was and which keys it touches.
//!
//! ```text
//! *3\r\n $3\r\nSET\r\n $1\r\nk\r\n $209715200\r\n ..... \r\n        outline: *3\r\n $3\r\nSET\r\n $1\r\nk\r\n $0\r\n\r\n
//! ```
//! Invariant: the same bytes in any pieces give the same bytes and the same outline. Refuses what
//! [`RequestParser`](super::request::RequestParser) refuses, in the same words, but knows no limit for the whole.
//! Costs: O(1) per byte; the outline is at most [`OUTLINE_BYTES_MAX`] and one short argument long.
#![forbid(unsafe_code)]

use super::number::Number;
use super::request::{Request, RequestError, RequestLimits};
use super::write;
use crate::protocol::Parse;

/// An outline that is longer ends: what follows is not in it.
pub const OUTLINE_BYTES_MAX: usize = 1 << 20;

/// Where in the request it is, and what it was so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestStream {
    step: Step,
    /// What the header line says so far, and how long it is.
    number: Number,
    line_bytes: usize,
    args_left: u32,
    argc: u32,
    outline: Vec<u8>,
    /// Where the outline's first argument begins.
    args_at: u8,
    /// Arguments are missing at the outline's end.
    is_cut: bool,
    /// Longer arguments are empty in the outline.
    short_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// In the line with the number of arguments.
    Count,
    /// Behind its CR.
    CountEnd,
    /// Before the `$` of an argument.
    Dollar,
    /// In the line with the length of an argument.
    Length,
    /// Behind its CR.
    LengthEnd,
    /// In an argument: so much is still to come, and whether the outline has it.
    Bulk(usize, bool),
    /// Before the two bytes behind it, or the second of them.
    End(u8),
}

impl RequestStream {
    /// Before the `*` of a request.
    pub fn new(short_bytes_max: usize) -> RequestStream {
        RequestStream {
            step: Step::Count,
            number: Number::default(),
            line_bytes: 0,
            args_left: 0,
            argc: 0,
            outline: Vec::new(),
            args_at: 0,
            is_cut: false,
            short_bytes_max,
        }
    }

    /// The next bytes of the request; `pass` gets what is to be sent for them. How many bytes were used: all of them
    /// but at its end.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
        mut pass: impl FnMut(&[u8]),
    ) -> (usize, Parse<(), RequestError>) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Step::Bulk(left, is_kept) = self.step {
                let part = &bytes[at..bytes.len().min(at.saturating_add(left))];
                pass(part);
                if is_kept {
                    self.outline.extend_from_slice(part);
                }
                at += part.len();
                self.step = match left - part.len() {
                    0 => Step::End(2),
                    left => Step::Bulk(left, is_kept),
                };
                continue;
            }
            at += 1;
            match self.byte(byte, limits, &mut pass) {
                Parse::More => {}
                answer => return (at, answer),
            }
        }
        (at, Parse::More)
    }

    /// One byte of the frame.
    fn byte(
        &mut self,
        byte: u8,
        limits: &RequestLimits,
        pass: &mut impl FnMut(&[u8]),
    ) -> Parse<(), RequestError> {
        match self.step {
            // It stands there: nothing else is streamed.
            Step::Count if self.line_bytes == 0 => self.line_bytes = 1,
            Step::Count if byte == b'\r' => self.step = Step::CountEnd,
            Step::Length if byte == b'\r' => self.step = Step::LengthEnd,
            Step::Count | Step::Length => {
                self.number.push(byte);
                self.line_bytes += 1;
                if self.line_bytes > limits.line_bytes_max {
                    return Parse::Bad(match self.step {
                        Step::Count => RequestError::CountTooBig,
                        _ => RequestError::LengthTooBig,
                    });
                }
            }
            Step::CountEnd => {
                let count = self.number.value().and_then(|n| u32::try_from(n).ok());
                let Some(count) = count.filter(|n| (1..=limits.args_max).contains(n)) else {
                    return Parse::Bad(RequestError::CountInvalid);
                };
                (self.argc, self.args_left) = (count, count);
                write::array_head(&mut self.outline, count as usize);
                pass(&self.outline);
                self.args_at = self.outline.len() as u8; // `*`, at most ten digits, CRLF
                self.step = Step::Dollar;
            }
            Step::Dollar if byte == b'$' => {
                (self.number, self.line_bytes) = (Number::default(), 1);
                self.step = Step::Length;
            }
            Step::Dollar => return Parse::Bad(RequestError::DollarExpected(byte)),
            Step::LengthEnd => {
                let len = self.number.value().and_then(|n| usize::try_from(n).ok());
                let Some(len) = len.filter(|len| *len <= limits.bulk_bytes_max) else {
                    return Parse::Bad(RequestError::LengthInvalid);
                };
                self.begin_argument(len, pass);
            }
            Step::End(2) => self.step = Step::End(1),
            Step::End(_) => {
                pass(b"\r\n");
                if !self.is_cut {
                    self.outline.extend_from_slice(b"\r\n");
                    self.is_cut = self.outline.len() > OUTLINE_BYTES_MAX;
                }
                self.args_left -= 1;
                if self.args_left == 0 {
                    return Parse::Done(());
                }
                self.step = Step::Dollar;
            }
            Step::Bulk(..) => debug_assert!(false, "feed passes bulks itself"),
        }
        Parse::More
    }

    fn begin_argument(&mut self, len: usize, pass: &mut impl FnMut(&[u8])) {
        let mut head = Vec::with_capacity(16);
        write::bulk_head(&mut head, len);
        pass(&head);
        let is_short = len <= self.short_bytes_max;
        if !self.is_cut {
            write::bulk_head(&mut self.outline, if is_short { len } else { 0 });
        }
        self.step = match len {
            0 => Step::End(2),
            _ => Step::Bulk(len, is_short && !self.is_cut),
        };
    }

    /// The request as far as it has passed: its arguments in order, long ones empty, an incomplete one not among them.
    pub fn outline(&self) -> Request<'_> {
        Request::outline(&self.outline, self.argc, self.args_at)
    }

    /// Whether arguments that have passed are missing at the outline's end.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        bulk_bytes_max: 40,
        line_bytes_max: 20,
        args_max: 9,
        request_bytes_max: usize::MAX,
    };

    /// Feeds `request` in pieces of every size; what came out, the outline's arguments and the end, which must be the
    /// same for all.
    fn check(request: &str, passed: &str, outline: &[&str], end: Parse<usize, RequestError>) {
        for piece in 1..=request.len() {
            let (mut stream, mut out) = (RequestStream::new(5), Vec::new());
            let (mut at, mut answer) = (0, Parse::More);
            for part in request.as_bytes().chunks(piece) {
                let (used, said) = stream.feed(part, &LIMITS, |bytes| out.extend_from_slice(bytes));
                at += used;
                answer = match said {
                    Parse::More => continue,
                    Parse::Done(()) => Parse::Done(at),
                    Parse::Bad(error) => Parse::Bad(error),
                };
                break;
            }
            assert_eq!(answer, end, "{request:?} by {piece}");
            assert_eq!(String::from_utf8_lossy(&out), passed, "by {piece}");
            let args: Vec<&[u8]> = stream.outline().args().collect();
            let expected: Vec<&[u8]> = outline.iter().map(|arg| arg.as_bytes()).collect();
            assert_eq!(args, expected, "{request:?} by {piece}");
        }
    }

    #[test]
    fn what_passes_is_canonical_and_its_outline_has_what_is_short() {
        let set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n";
        check(
            &format!("{set}*1\r\n"),
            set,
            &["SET", "k", ""],
            Parse::Done(set.len()),
        );
        let sloppy = "*3\rx$3\rySETab$1\r\nkcd$10\r\n0123456789ef";
        check(sloppy, set, &["SET", "k", ""], Parse::Done(sloppy.len()));
        check(
            "*2\r\n$0\r\n\r\n$3\r\nab",
            "*2\r\n$0\r\n\r\n$3\r\nab",
            &[""],
            Parse::More,
        );
    }

    #[test]
    fn what_is_no_request_is_refused_where_it_stands() {
        let bad = |request, passed, error| check(request, passed, &[], Parse::Bad(error));
        bad("*x\r\n", "", RequestError::CountInvalid);
        bad("*10\r\n", "", RequestError::CountInvalid);
        bad("*1\r\n!", "*1\r\n", RequestError::DollarExpected(b'!'));
        bad("*1\r\n$41\r\n", "*1\r\n", RequestError::LengthInvalid);
        bad("*1\r\n$-1\r\n", "*1\r\n", RequestError::LengthInvalid);
        let long = format!("*1\r\n${}", "1".repeat(20));
        bad(&long, "*1\r\n", RequestError::LengthTooBig);
    }

    #[test]
    fn an_outline_ends_where_it_would_become_long() {
        let mut stream = RequestStream::new(OUTLINE_BYTES_MAX);
        let limits = RequestLimits::default();
        let arg = "x".repeat(OUTLINE_BYTES_MAX / 2);
        let mut request = "*6\r\n$1\r\nC\r\n".to_owned();
        for _ in 0..5 {
            assert!(!stream.is_cut());
            request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
        }
        let (used, answer) = stream.feed(request.as_bytes(), &limits, |_| ());
        assert_eq!((used, answer), (request.len(), Parse::Done(())));
        assert!(stream.is_cut());
        assert_eq!(
            (stream.outline().args().count(), stream.outline().argc()),
            (3, 6)
        );
    }
}
