//! Finds the end of a request's head, however the bytes arrive, and refuses what no head may contain as soon as it is
//! there, so that RESP, TLS or HTTP/2 spoken to this port is answered at once and not after a time-out.
//!
//! Never reads a byte of the head twice when called again with more bytes (a CR whose successor had not arrived is the
//! one exception). Invariant: `pos` ≤ the bytes seen, and no byte before `pos` is a CR or LF that is not part of a CRLF.
//! What it finds depends on the bytes alone, never on where they were cut: the events (a bad byte, the end of a line, a
//! bound) happen in the order of the bytes.
//!
//! ```text
//!  GET /get?key=a HTTP/1.1\r\n  Host: x\r\n  \r\n  next request
//!  └──── line ────────────┘     └ fields ┘      ^ head_bytes
//!                             ^ fields_at
//! ```
#![forbid(unsafe_code)]

use super::head::{Line, parse_line};
use super::{Limits, Refusal, octets};

/// How far the scan of one head has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct HeadScan {
    /// The first byte that has not been looked at, from the start of the message.
    pos: usize,
    /// The request line, once it is complete.
    line: Option<Line>,
}

/// What the scan has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The end of the head is not there yet.
    More,
    /// The message begins with an empty line of two bytes; it is to be taken away before the scan begins again.
    EmptyLine,
    /// The head is complete.
    Head {
        /// Its request line.
        line: Line,
        /// Its length, the empty line included.
        head_bytes: usize,
    },
}

impl HeadScan {
    /// The method's line so far: `None` while the request line is incomplete.
    pub(super) fn line(&self) -> Option<Line> {
        self.line
    }

    /// Goes on with the message that begins at `buf[0]`. O(new bytes); `looks` counts them, with those that a step of
    /// eight bytes looks at in excess.
    #[inline]
    pub(super) fn advance(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Scanned, Refusal> {
        let line = match self.line {
            Some(line) => line,
            None => match self.line_end(buf, limits, looks)? {
                None => return Ok(Scanned::More),
                Some(0) => return Ok(Scanned::EmptyLine),
                Some(end) => {
                    *looks += end as u64;
                    let line = parse_line(&buf[..end])?;
                    self.line = Some(line);
                    self.pos = line.fields_at();
                    line
                }
            },
        };
        Ok(
            match self.fields_end(line.fields_at(), buf, limits, looks)? {
                None => Scanned::More,
                Some(head_bytes) => Scanned::Head { line, head_bytes },
            },
        )
    }

    /// Where the CRLF of the request line is.
    #[inline]
    fn line_end(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Option<usize>, Refusal> {
        let bound = limits.line_bytes_max + 2;
        let seen = &buf[..buf.len().min(bound)];
        match octets::first_control::<true>(&seen[self.pos..]) {
            None => {
                *looks += (seen.len() - self.pos) as u64;
                self.pos = seen.len();
            }
            Some(at) => {
                *looks += (seen.len() - self.pos).min((at | 7) + 2) as u64;
                self.pos += at;
                match seen[self.pos..] {
                    [b'\r', b'\n', ..] => return Ok(Some(self.pos)),
                    [b'\r'] => {} // its LF has not come, or would be out of bounds
                    [b'\r', ..] => return Err(Refusal::BareCr),
                    [b'\n', ..] => return Err(Refusal::BareLf),
                    _ => return Err(Refusal::ControlByte),
                }
            }
        }
        if seen.len() == bound {
            Err(Refusal::LineTooLong)
        } else {
            Ok(None)
        }
    }

    /// Where the empty line behind the fields, which begin at `fields_at`, ends.
    #[inline]
    fn fields_end(
        &mut self,
        fields_at: usize,
        buf: &[u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Option<usize>, Refusal> {
        let bound = fields_at + limits.fields_bytes_max;
        let seen = &buf[..buf.len().min(bound)];
        while let Some(&first) = seen.get(self.pos) {
            if (first == b' ' || first == b'\t') && seen[self.pos - 1] == b'\n' {
                return Err(Refusal::ObsFold);
            }
            let Some(at) = octets::first_control::<false>(&seen[self.pos..]) else {
                *looks += (seen.len() - self.pos) as u64;
                self.pos = seen.len();
                break;
            };
            *looks += (seen.len() - self.pos).min((at | 7) + 2) as u64;
            self.pos += at;
            match seen[self.pos..] {
                [b'\r', b'\n', ..] => {
                    self.pos += 2;
                    // LF was accepted only as the end of a line, so this CR begins a line, and the line is empty.
                    if seen[self.pos - 3] == b'\n' {
                        return Ok(Some(self.pos));
                    }
                }
                [b'\r'] => break, // its LF has not come, or would be out of bounds
                [b'\r', ..] => return Err(Refusal::BareCr),
                [b'\n', ..] => return Err(Refusal::BareLf),
                _ => return Err(Refusal::ControlByte),
            }
        }
        if seen.len() == bound {
            Err(Refusal::FieldsTooLarge)
        } else {
            Ok(None)
        }
    }
}
