//! Where a chunked body ends (RFC 9112 section 7.1), read strictly and resumable at every byte.
//!
//! Never keeps or hands out the content: bodies mean nothing to a cache and are dropped. Content is stepped over without
//! being looked at; every other byte is looked at once, so the scan is O(chunks and framing bytes) however it is cut.
//! Invariant: `pos` ≤ the bytes seen, and `content` ≤ the bound. Only CRLF ends a line, and no extension or trailer
//! holds a control byte, so no other reader of the same bytes can see the end of a line elsewhere.
//!
//! ```text
//!  1a ;name=value \r\n  <26 bytes> \r\n   0 \r\n   Trailer: x\r\n  \r\n
//!  Size Extension  SizeLf  Data  DataCr,Lf        TrailerName ...  EndLf
//! ```
#![forbid(unsafe_code)]

use super::{Limits, Refusal, octets};

/// How far the scan of one chunked body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChunkScan {
    /// The next byte to look at, from the start of the message.
    pos: usize,
    /// What that byte is taken for.
    state: State,
    /// Content bytes announced so far, all chunks together.
    content: usize,
    /// Bytes so far that are not content.
    overhead: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// The first digit of a size.
    SizeStart,
    /// A digit, or what ends the size.
    Size { bytes: usize },
    /// White space behind a size or an extension, which only `;` may follow.
    Space { bytes: usize },
    /// Behind the `;`: white space or the first byte of a name.
    NameStart { bytes: usize },
    /// Within an extension.
    Extension { bytes: usize },
    /// The LF of a size line.
    SizeLf { bytes: usize },
    /// Content.
    Data { bytes: usize },
    /// The CR behind the content.
    DataCr,
    /// Its LF.
    DataLf,
    /// The first byte of a trailer line, or the CR of the empty line.
    TrailerStart,
    /// Within a trailer's name.
    TrailerName,
    /// Within a trailer's value.
    TrailerValue,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF of the empty line.
    EndLf,
}

impl ChunkScan {
    /// The scan of a body that begins at `pos`.
    pub(super) fn at(pos: usize) -> ChunkScan {
        ChunkScan {
            pos,
            state: State::SizeStart,
            content: 0,
            overhead: 0,
        }
    }

    /// Goes on with the message that begins at `buf[0]`: where the message ends, or `None` if that has not arrived.
    pub(super) fn advance(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        looks: &mut u64,
    ) -> Result<Option<usize>, Refusal> {
        loop {
            if let State::Data { bytes } = self.state {
                let here = bytes.min(buf.len().saturating_sub(self.pos));
                self.pos += here;
                if here < bytes {
                    self.state = State::Data {
                        bytes: bytes - here,
                    };
                    return Ok(None);
                }
                self.state = State::DataCr;
            }
            let Some(&byte) = buf.get(self.pos) else {
                return Ok(None);
            };
            *looks += 1;
            self.pos += 1;
            self.overhead += 1;
            if self.overhead > limits.chunk_overhead_bytes_max {
                return Err(Refusal::ChunkOverhead);
            }
            if (self.state, byte) == (State::EndLf, b'\n') {
                return Ok(Some(self.pos));
            }
            self.state = self.step(byte, limits)?;
        }
    }

    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        use State::*;
        let next = match (self.state, byte) {
            (SizeStart | Size { .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let before = if let Size { bytes } = self.state {
                    bytes
                } else {
                    0
                };
                Size {
                    bytes: self.widen(before, byte, limits)?,
                }
            }
            (SizeStart, _) => return Err(Refusal::ChunkSize),

            (Size { bytes } | Space { bytes } | Extension { bytes }, b';') => NameStart { bytes },
            (Size { bytes } | Extension { bytes }, b'\r') => SizeLf { bytes },
            (Size { bytes } | Space { bytes }, b' ' | b'\t') => Space { bytes },
            (Size { .. }, _) => return Err(Refusal::ChunkSize),
            (Space { .. }, _) => return Err(Refusal::ChunkExtension),
            (NameStart { bytes }, b' ' | b'\t') => NameStart { bytes },
            (NameStart { bytes }, _) if octets::is(byte, octets::TOKEN) => Extension { bytes },
            (NameStart { .. }, _) => return Err(Refusal::ChunkExtension),
            // Names, values and quoted strings are not told apart: none of them can hold what ends the line.
            (Extension { bytes }, _) if octets::in_field_value(byte) => Extension { bytes },
            (Extension { .. }, _) => return Err(Refusal::ChunkExtension),
            (SizeLf { bytes: 0 }, b'\n') => TrailerStart,
            (SizeLf { bytes }, b'\n') => {
                self.content += bytes;
                Data { bytes }
            }
            (SizeLf { .. }, _) => return Err(Refusal::ChunkSize),

            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => SizeStart,
            (DataCr | DataLf, _) => return Err(Refusal::ChunkEnd),

            (TrailerStart, b'\r') => EndLf,
            (TrailerStart | TrailerName, _) if octets::is(byte, octets::TOKEN) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if octets::in_field_value(byte) => TrailerValue,
            (TrailerLf, b'\n') => TrailerStart,
            (TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf, _) => {
                return Err(Refusal::Trailer);
            }

            (Data { .. }, _) => return Err(Refusal::ChunkEnd), // `advance` steps over content before it asks
        };
        Ok(next)
    }

    /// A size with one more digit. Refused as soon as it exceeds what the body may still hold, so it cannot overflow.
    fn widen(&self, before: usize, digit: u8, limits: &Limits) -> Result<usize, Refusal> {
        let digit = char::from(digit).to_digit(16).ok_or(Refusal::ChunkSize)?;
        let bytes = before
            .checked_mul(16)
            .and_then(|bytes| bytes.checked_add(digit as usize));
        let room = limits.body_bytes_max - self.content;
        bytes
            .filter(|&bytes| bytes <= room)
            .ok_or(Refusal::BodyTooLarge)
    }
}
