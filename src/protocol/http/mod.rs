//! The server side of HTTP/1 (RFC 9110, 9111, 9112) without I/O: bytes to requests, requests to decisions, answers to
//! bytes. In the order of a request's life: `known` recognises what was understood before, `scan` finds the end of its head, `head` understands it (with httparse), `target`
//! and `body` help, [`route`] decides, [`query`] decodes the key, [`response`] writes the answer.
//!
//! Never reads a clock, never allocates for a request, and never lets a byte be read in two ways: where the RFCs leave a
//! choice between repairing a message and refusing it, it is refused, and nothing behind it is ever taken for a request.
//!
//! Invariant: a message is handed out whole (head and body) or not at all, so each answer belongs to exactly one
//! request, and the sequence of requests depends on the bytes alone, never on how they were cut.
//!
//! Costs: O(bytes of the head) per request, each looked at once by the scan and once by httparse (twice if the body
//! comes later than the head); chunk framing once; content never.
#![forbid(unsafe_code)]

pub mod admin;
mod body;
pub mod credentials;
mod head;
pub mod hit;
mod known;
mod octets;
pub mod page;
pub mod query;
mod refusal;
pub mod response;
pub mod route;
mod scan;
mod target;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod transcripts;

pub use head::{IfNoneMatch, Method, Request, Version};
pub use known::KnownHead;
pub use refusal::Refusal;

use body::ChunkScan;
use head::{Framing, Head, Line};
use scan::{HeadScan, Scanned};

/// How large the parts of a message may be. All of a message stays in the inbox until it is complete, so the inbox must
/// be able to hold [`Limits::message_bytes_max`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The request line without its CRLF; 414 above. 32 KiB let every key of up to 8 KiB through (10 KiB, to be exact) if
    /// each byte of it is percent-encoded, and 32 KiB of plain ones.
    pub line_bytes_max: usize,
    /// All field lines together, the empty line included; 431 above.
    pub fields_bytes_max: usize,
    /// How many field lines; 431 above. At most [`Limits::FIELDS_MAX`].
    pub fields_max: usize,
    /// The content of a body; 413 above.
    pub body_bytes_max: usize,
    /// What a chunked body may hold beside its content: sizes, extensions, line ends and trailers; 413 above.
    pub chunk_overhead_bytes_max: usize,
    /// Empty lines before a request (RFC 9112 section 2.2 asks for one at least); 400 above.
    pub empty_lines_max: u8,
}

impl Limits {
    /// The largest `fields_max`.
    pub const FIELDS_MAX: usize = 100;

    /// The limits of the proxy.
    pub const DEFAULT: Limits = Limits {
        line_bytes_max: 32 << 10,
        fields_bytes_max: 16 << 10,
        fields_max: Limits::FIELDS_MAX,
        body_bytes_max: 64 << 10,
        chunk_overhead_bytes_max: 16 << 10,
        empty_lines_max: 8,
    };

    /// The most bytes of an incomplete message: an inbox of this size never stands still.
    pub const fn message_bytes_max(&self) -> usize {
        self.line_bytes_max
            + 2
            + self.fields_bytes_max
            + self.body_bytes_max
            + self.chunk_overhead_bytes_max
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What the parser makes of the unconsumed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'b> {
    /// A whole request. `used` bytes, its body among them, are consumed.
    Request {
        /// The request; its slices point into the bytes.
        request: Request<'b>,
        /// Length of the whole message.
        used: usize,
    },
    /// `used` bytes that are no part of a request (an empty line before it) are consumed; call again.
    Skipped {
        /// How many.
        used: usize,
    },
    /// The message is incomplete, or nothing is expected any more: call again when there are more bytes.
    More,
    /// The client waits for [`response::CONTINUE`] before it sends the body: send it, behind the answers that are
    /// owed, and call again. Said once per request, nothing is consumed.
    Expect100,
    /// The message is refused: answer, then close. From here on the parser says `More` for ever.
    Bad {
        /// Why.
        refusal: Refusal,
        /// The request was a HEAD: its answer has no content.
        head_only: bool,
    },
}

/// The parser of one connection: where it stands in the message under way. Holds no bytes and no heap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RequestParser {
    phase: Phase,
    /// Empty lines since the last request.
    empty_lines: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// Looking for the end of the head.
    Head(HeadScan),
    /// The head is complete and understood; its body has not come whole.
    Body {
        line: Line,
        head_bytes: usize,
        end: BodyEnd,
    },
    /// The last request was handed out or refused; what follows is not looked at.
    Closed,
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::Head(HeadScan::default())
    }
}

/// Where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum BodyEnd {
    /// So many bytes from the start of the message.
    At(usize),
    /// Where the chunks say.
    Chunked(ChunkScan),
}

impl RequestParser {
    /// A parser at the start of a connection.
    pub fn new() -> RequestParser {
        RequestParser::default()
    }

    /// Goes on with `buf`: all bytes received and not yet consumed, the same as in the last call, less what it consumed,
    /// and perhaps more behind them.
    #[inline]
    pub fn next<'b>(&mut self, buf: &'b [u8], limits: &Limits) -> Step<'b> {
        self.next_counting(buf, limits, &mut 0)
    }

    /// [`RequestParser::next`], which also adds to `looks` how many bytes were looked at.
    pub fn next_counting<'b>(
        &mut self,
        buf: &'b [u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Step<'b> {
        let step = match self.phase {
            Phase::Head(scan) => self.go_on_with_head(scan, buf, limits, looks),
            Phase::Body {
                line,
                head_bytes,
                end,
            } => self.go_on_with_body(line, head_bytes, end, None, buf, limits, looks),
            Phase::Closed => Ok(Step::More),
        };
        step.unwrap_or_else(|refusal| {
            let line = match self.phase {
                Phase::Head(scan) => scan.line(),
                Phase::Body { line, .. } => Some(line),
                Phase::Closed => None,
            };
            self.phase = Phase::Closed;
            Step::Bad {
                refusal,
                head_only: line.is_some_and(|line| line.method == Method::Head),
            }
        })
    }

    /// A request was handled without the parser's help, which saw none of its bytes: it is between messages.
    #[inline]
    pub fn skip_request(&mut self) {
        debug_assert!(self.is_between_messages());
        self.empty_lines = 0;
    }

    /// Whether nothing of a next message has been looked at: the connection is idle if its buffer is empty as well.
    pub fn is_between_messages(&self) -> bool {
        self.phase == Phase::default()
    }

    /// Whether the parser has ended: the last request was refused, or asked to close.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    #[inline]
    fn go_on_with_head<'b>(
        &mut self,
        mut scan: HeadScan,
        buf: &'b [u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Step<'b>, Refusal> {
        let scanned = scan.advance(buf, limits, looks);
        self.phase = Phase::Head(scan);
        let (line, head_bytes) = match scanned? {
            Scanned::Head { line, head_bytes } => (line, head_bytes),
            Scanned::More => return Ok(Step::More),
            Scanned::EmptyLine if self.empty_lines >= limits.empty_lines_max => {
                return Err(Refusal::EmptyLines);
            }
            Scanned::EmptyLine => {
                self.empty_lines += 1;
                return Ok(Step::Skipped { used: 2 });
            }
        };

        *looks += head_bytes as u64;
        let head = head::parse_head(line, &buf[..head_bytes], limits)?;
        let end = match head.framing {
            Framing::Nothing => return Ok(self.hand_out(head, head_bytes)),
            Framing::Length(length) => BodyEnd::At(head_bytes + length),
            Framing::Chunked => BodyEnd::Chunked(ChunkScan::at(head_bytes)),
        };
        if head.expects_continue {
            // Said even if some of the body is here already, so that it does not depend on where the bytes were cut.
            self.phase = Phase::Body {
                line,
                head_bytes,
                end,
            };
            return Ok(Step::Expect100);
        }
        self.go_on_with_body(line, head_bytes, end, Some(head), buf, limits, looks)
    }

    /// `head` is what the head says if it was understood in this very call; else it is read again, once, at the end.
    #[allow(clippy::too_many_arguments)]
    fn go_on_with_body<'b>(
        &mut self,
        line: Line,
        head_bytes: usize,
        mut end: BodyEnd,
        head: Option<Head<'b>>,
        buf: &'b [u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Step<'b>, Refusal> {
        let used = match &mut end {
            BodyEnd::At(at) => Ok(Some(*at).filter(|&at| at <= buf.len())),
            BodyEnd::Chunked(scan) => scan.advance(buf, limits, looks),
        };
        self.phase = Phase::Body {
            line,
            head_bytes,
            end,
        };
        let Some(used) = used? else {
            return Ok(Step::More);
        };
        let head = match head {
            Some(head) => head,
            None => {
                *looks += head_bytes as u64;
                head::parse_head(line, &buf[..head_bytes], limits)?
            }
        };
        Ok(self.hand_out(head, used))
    }

    #[inline]
    fn hand_out<'b>(&mut self, head: Head<'b>, used: usize) -> Step<'b> {
        self.phase = if head.request.keep_alive {
            Phase::default()
        } else {
            Phase::Closed
        };
        self.empty_lines = 0;
        Step::Request {
            request: head.request,
            used,
        }
    }
}
