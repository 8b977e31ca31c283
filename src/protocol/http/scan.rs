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
        loop {
            let bound = match self.line {
                None => limits.line_bytes_max + 2,
                Some(line) => line.fields_at() + limits.fields_bytes_max,
            };
            let too_long = if self.line.is_some() {
                Refusal::FieldsTooLarge
            } else {
                Refusal::LineTooLong
            };
            if self.pos >= bound {
                return Err(too_long);
            }
            let Some(&next) = buf.get(self.pos) else {
                return Ok(Scanned::More);
            };
            if self.line.is_some() && (next == b' ' || next == b'\t') && buf[self.pos - 1] == b'\n'
            {
                return Err(Refusal::ObsFold);
            }

            let window = &buf[self.pos..buf.len().min(bound)];
            let Some(at) = octets::first_control(window) else {
                *looks += window.len() as u64;
                self.pos += window.len();
                continue;
            };
            *looks += window.len().min((at | 7) + 2) as u64;
            let at = self.pos + at;
            match (buf[at], self.line) {
                (b'\r', _) => {}
                (b'\t', Some(_)) => {
                    self.pos = at + 1;
                    continue;
                }
                (b'\n', _) => return Err(Refusal::BareLf),
                _ => return Err(Refusal::ControlByte),
            }

            self.pos = at;
            if at + 1 >= bound {
                return Err(too_long);
            }
            match buf.get(at + 1) {
                None => return Ok(Scanned::More),
                Some(b'\n') => {}
                Some(_) => return Err(Refusal::BareCr),
            }
            match self.line {
                None if at == 0 => return Ok(Scanned::EmptyLine),
                None => {
                    *looks += at as u64;
                    self.line = Some(parse_line(&buf[..at])?);
                }
                // LF was accepted only as the end of a line, so this CR begins a line, and the line is empty.
                Some(line) if buf[at - 1] == b'\n' => {
                    return Ok(Scanned::Head {
                        line,
                        head_bytes: at + 2,
                    });
                }
                Some(_) => {}
            }
            self.pos = at + 2;
        }
    }
}
