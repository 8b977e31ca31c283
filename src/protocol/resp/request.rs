//! Requests of clients, parsed in place.
//!
//! One index moves over the buffer: header lines are read byte by byte (whole short ones at once), bulks are jumped over.
//! What is known of a request that is not complete is the few words in [`RequestParser`], so parsing goes on where it
//! stopped and a request is never read again from its start.
//!
//! ```text
//! buf   *2\r\n$3\r\nGET\r\n$5\r\nhel        then the client sends  lo\r\n...
//!                               ^start     next call goes on here; `start` is where the last bulk begins
//! ```
//!
//! Accepts what redis-server 7.0.15 accepts (`processInlineBuffer`, `processMultibulkBuffer`) and refuses the rest with its
//! words. That includes what is easily overlooked: Redis does not check the byte behind a header's CR, nor the two behind
//! a bulk ([`Shape::Sloppy`]); a NUL in a line hides the line's end from it (`strchr`), so that it waits until the line is too long.
//! In one point Redis is not a function of the bytes: a line above its limit passes if it arrives in one read. Here the
//! limit always holds, as for a client whose bytes arrive one by one.
//!
//! Never: an allocation, a copy, a byte looked at more than three times however the request was cut in pieces.
//! Invariant: `start ≤ next`, and every byte before `start` has been checked. O(n) time over all calls, O(1) space.
#![forbid(unsafe_code)]

use super::number::{self, Number};
use super::{inline, look, write};
use crate::protocol::Parse;
use std::borrow::Cow;
use std::num::NonZeroU32;

/// What a request may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The longest bulk, in bytes; Redis's `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// The longest inline request or header line, in bytes before its end; Redis's `PROTO_INLINE_MAX_SIZE`.
    pub line_bytes_max: usize,
    /// The most arguments of an array.
    pub args_max: u32,
    /// The longest request, frame included. `More` is never said of a buffer that holds as much.
    pub request_bytes_max: usize,
}

impl Default for RequestLimits {
    /// Redis's own; the last is its `client-query-buffer-limit`.
    fn default() -> RequestLimits {
        RequestLimits {
            bulk_bytes_max: 512 << 20,
            line_bytes_max: 64 << 10,
            args_max: i32::MAX as u32,
            request_bytes_max: 1 << 30,
        }
    }
}

/// Why the bytes are no request. The connection is of no use any more: reply with [`RequestError::text`] and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// An inline request goes on beyond the limit of a line.
    InlineTooBig,
    /// The quotes of an inline request do not match.
    UnbalancedQuotes,
    /// The line with the number of arguments goes on beyond the limit of a line.
    CountTooBig,
    /// The number of arguments is no number, or above the limit.
    CountInvalid,
    /// The line with the length of an argument goes on beyond the limit of a line.
    LengthTooBig,
    /// This byte stands where an argument's `$` belongs.
    DollarExpected(u8),
    /// The length of an argument is no number, negative, or above the limit.
    LengthInvalid,
    /// The whole request is above the limit (our own error: Redis closes without a word).
    RequestTooBig,
}

impl RequestError {
    /// The error's text in Redis's words, to be sent behind `-ERR `. Not always UTF-8: it may quote a byte of the client's.
    pub fn text(&self) -> Cow<'static, [u8]> {
        let text: &'static [u8] = match *self {
            RequestError::InlineTooBig => b"Protocol error: too big inline request",
            RequestError::UnbalancedQuotes => b"Protocol error: unbalanced quotes in request",
            RequestError::CountTooBig => b"Protocol error: too big mbulk count string",
            RequestError::CountInvalid => b"Protocol error: invalid multibulk length",
            RequestError::LengthTooBig => b"Protocol error: too big bulk count string",
            RequestError::LengthInvalid => b"Protocol error: invalid bulk length",
            RequestError::RequestTooBig => b"nearcache: the request is too big",
            RequestError::DollarExpected(got) => {
                let got = if matches!(got, b'\r' | b'\n') {
                    b' '
                } else {
                    got
                };
                let mut text = b"Protocol error: expected '$', got ' '".to_vec();
                let quoted = text.len() - 2;
                text[quoted] = got;
                return Cow::Owned(text);
            }
        };
        Cow::Borrowed(text)
    }
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// An array of at least one bulk, every CR and LF in its place: may be passed on as it is.
    Canonical,
    /// An array that Redis accepts though some CR or LF is another byte: pass on [`Request::encode_canonical`] only.
    Sloppy,
    /// A line with at least one argument: pass on [`Request::encode_canonical`] only.
    Inline,
    /// A blank line, `*0` or a negative count. Redis says nothing to it; skip it.
    Empty,
}

/// A complete request at the beginning of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    bytes: &'b [u8],
    shape: Shape,
    argc: u32,
    /// Where the first argument's header begins (arrays only).
    args_at: u8,
}

impl<'b> Request<'b> {
    /// What has passed of a request that is not kept whole: `argc` is what it says of itself, there may be fewer.
    pub(super) fn outline(bytes: &'b [u8], argc: u32, args_at: u8) -> Request<'b> {
        Request {
            bytes,
            shape: Shape::Canonical,
            argc,
            args_at,
        }
    }

    /// Its length in the buffer: the next request begins there.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // never 0
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How it is written.
    #[inline]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The number of its arguments, the command's name included; 0 for [`Shape::Empty`] only. An inline request of n bytes
    /// has at most n / 2 rounded up.
    #[inline]
    pub fn argc(&self) -> usize {
        self.argc as usize
    }

    /// The whole frame.
    #[inline]
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The arguments of an array, read from the frame again: cheap, but not free. Of an inline request none: its arguments
    /// may be quoted, so they do not stand in the buffer; parse what [`Request::encode_canonical`] makes of it.
    #[inline]
    pub fn args(&self) -> Args<'b> {
        match self.shape {
            Shape::Canonical | Shape::Sloppy => Args {
                rest: self
                    .bytes
                    .get(usize::from(self.args_at)..)
                    .unwrap_or_default(),
                left: self.argc,
            },
            Shape::Inline | Shape::Empty => Args { rest: &[], left: 0 },
        }
    }

    /// Appends the same request as a canonical array, whatever its shape; nothing for [`Shape::Empty`]. An inline request
    /// grows to at most four times its length and 16 bytes.
    pub fn encode_canonical(&self, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Canonical => out.extend_from_slice(self.bytes),
            Shape::Sloppy => write::command(out, self.args()),
            Shape::Empty => (),
            Shape::Inline => {
                write::array_head(out, self.argc());
                let mut at = 0;
                loop {
                    // Twice over each argument: its length stands before it.
                    let (mut again, mut arg_len) = (at, 0);
                    match inline::next_argument(self.bytes, &mut at, |_| arg_len += 1) {
                        Ok(true) => (),
                        Ok(false) | Err(inline::UnbalancedQuotes) => break, // the latter was refused before it became a Request
                    }
                    write::bulk_head(out, arg_len);
                    let _ = inline::next_argument(self.bytes, &mut again, |byte| out.push(byte));
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}

/// The arguments of an array, in order, borrowed from its frame.
#[derive(Debug, Clone)]
pub struct Args<'b> {
    /// From the next argument's header on. The frame was checked when it was parsed; were it wrong, the walk would end early.
    rest: &'b [u8],
    left: u32,
}

impl<'b> Iterator for Args<'b> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (len, header_len) = match number::short_header(b'$', self.rest) {
            Some(found) => found,
            None => long_length(self.rest)?,
        };
        let (arg, behind) = self.rest.get(header_len..)?.split_at_checked(len)?;
        self.rest = behind.get(2..)?;
        Some(arg)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Args<'_> {}

/// The length and the size of a bulk header of any size, whatever byte stands behind its CR.
#[cold]
fn long_length(header: &[u8]) -> Option<(usize, usize)> {
    let cr = header.iter().position(|&byte| byte == b'\r')?;
    let len = Number::parse(header.get(1..cr)?)?;
    Some((usize::try_from(len).ok()?, cr + 2))
}

/// [`number::short_header`], its looks counted.
#[inline(always)]
fn short_header(kind: u8, buf: &[u8]) -> Option<(usize, usize)> {
    #[cfg(test)]
    super::looks::add(if buf.len() < 5 { 0 } else { 5 });
    number::short_header(kind, buf)
}

/// What is known of a request that is not complete. Small, and at its start state between requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RequestParser {
    step: Step,
    /// Where the line or bulk being read begins.
    start: usize,
    /// The next byte of the line to look at. A NUL in a line is never passed: see the module's header.
    next: usize,
    /// What the header line says, so far.
    number: Number,
    argc: u32,
    args_left: u32,
    args_at: u8,
    /// Some byte of the frame is not the CR or LF it should be.
    sloppy: bool,
    /// For the caller: the request under way is waited for, however long it gets. Forgotten with the request.
    pub is_kept_whole: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Step {
    /// Nothing read.
    #[default]
    Start,
    /// In an inline request.
    Inline,
    /// In the line with the number of arguments.
    Count,
    /// Before the line with the length of an argument.
    LengthStart,
    /// In that line.
    Length,
    /// In an argument of this length.
    Bulk(usize),
}

/// A header line's end.
enum Header {
    /// Its number, if it is one, and where the next byte behind the line is.
    Whole(Option<i64>, usize),
    More,
    TooLong,
}

impl RequestParser {
    /// Whether no byte of the next request has been read, so that [`get_at_start`] may be tried.
    #[inline]
    pub fn is_at_start(&self) -> bool {
        self.step == Step::Start
    }

    /// Parses the request that begins with the first byte of `buf`.
    ///
    /// After `More`, call again with the same bytes and some more behind them. After `Done`, skip [`Request::len`] bytes;
    /// the parser is at its start state. After `Bad` it is so as well, and says the same again of the same bytes.
    pub fn parse<'b>(
        &mut self,
        buf: &'b [u8],
        limits: &RequestLimits,
    ) -> Parse<Request<'b>, RequestError> {
        // Nothing behind the limit is looked at: so what lies there cannot change the answer, however it arrives.
        let buf = &buf[..buf.len().min(limits.request_bytes_max)];
        match self.step(buf, limits) {
            Parse::More if buf.len() < limits.request_bytes_max => Parse::More,
            Parse::More => {
                *self = RequestParser::default();
                Parse::Bad(RequestError::RequestTooBig)
            }
            answer => {
                *self = RequestParser::default();
                answer
            }
        }
    }

    #[inline]
    fn step<'b>(
        &mut self,
        buf: &'b [u8],
        limits: &RequestLimits,
    ) -> Parse<Request<'b>, RequestError> {
        loop {
            match self.step {
                Step::Start => match look(buf, 0) {
                    None => return Parse::More,
                    Some(b'*') => match short_header(b'*', buf) {
                        Some((count, end)) if count > 0 && count <= limits.args_max as usize => {
                            self.expect_arguments(count as u32, end);
                        }
                        _ => self.step = Step::Count,
                    },
                    Some(_) => self.step = Step::Inline,
                },
                Step::Inline => return self.inline(buf, limits),
                Step::Count => {
                    let (count, end) = match self.header(buf, limits) {
                        Header::Whole(count, end) => (count, end),
                        Header::More => return Parse::More,
                        Header::TooLong => return Parse::Bad(RequestError::CountTooBig),
                    };
                    let count = match count {
                        Some(count) if count <= i64::from(limits.args_max) => count,
                        _ => return Parse::Bad(RequestError::CountInvalid),
                    };
                    if count <= 0 {
                        return Parse::Done(Request {
                            bytes: &buf[..end],
                            shape: Shape::Empty,
                            argc: 0,
                            args_at: 0,
                        });
                    }
                    self.expect_arguments(count as u32, end); // at most args_max
                }
                Step::LengthStart => {
                    // Tried once per header and not again when more of it has come: so it costs a byte one look.
                    self.pass_short_bulks(buf, limits);
                    if self.args_left == 0 {
                        return Parse::Done(self.array(&buf[..self.start]));
                    }
                    self.step = Step::Length;
                }
                Step::Length => {
                    let (len, end) = match self.header(buf, limits) {
                        Header::Whole(len, end) => (len, end),
                        Header::More => return Parse::More,
                        Header::TooLong => return Parse::Bad(RequestError::LengthTooBig),
                    };
                    match look(buf, self.start) {
                        Some(b'$') => (),
                        other => {
                            return Parse::Bad(RequestError::DollarExpected(
                                other.unwrap_or_default(),
                            ));
                        }
                    }
                    let len = match len.map(usize::try_from) {
                        Some(Ok(len)) if len <= limits.bulk_bytes_max => len,
                        _ => return Parse::Bad(RequestError::LengthInvalid),
                    };
                    match end.checked_add(len).and_then(|end| end.checked_add(2)) {
                        Some(end) if end <= limits.request_bytes_max => (),
                        _ => return Parse::Bad(RequestError::RequestTooBig),
                    }
                    self.step = Step::Bulk(len);
                    self.start = end;
                }
                Step::Bulk(len) => {
                    let end = self.start + len; // cannot overflow: checked with the header
                    if buf.len() < end + 2 {
                        return Parse::More;
                    }
                    self.sloppy |=
                        look(buf, end) != Some(b'\r') || look(buf, end + 1) != Some(b'\n');
                    self.args_left -= 1;
                    self.expect_length(end + 2);
                }
            }
        }
    }

    fn expect_arguments(&mut self, count: u32, args_at: usize) {
        self.argc = count;
        self.args_left = count;
        self.args_at = args_at as u8; // behind `*`, at most ten digits, two bytes
        self.expect_length(args_at);
    }

    fn expect_length(&mut self, start: usize) {
        self.step = Step::LengthStart;
        self.start = start;
        self.next = start;
        self.number = Number::default();
    }

    /// The quick way over arguments that are whole, canonical and below 100 bytes: most. Stops before the first other one.
    #[inline]
    fn pass_short_bulks(&mut self, buf: &[u8], limits: &RequestLimits) {
        let (mut start, mut left) = (self.start, self.args_left);
        while left > 0 {
            let Some(rest) = buf.get(start..) else { break };
            let Some((len, header_len)) = short_header(b'$', rest) else {
                break;
            };
            let end = header_len + len;
            if len > limits.bulk_bytes_max || rest.len() < end + 2 {
                break;
            }
            if look(rest, end) != Some(b'\r') || look(rest, end + 1) != Some(b'\n') {
                break;
            }
            start += end + 2;
            left -= 1;
        }
        self.args_left = left;
        self.start = start;
        self.next = start;
    }

    /// The array whose last argument has been passed.
    #[inline]
    fn array<'b>(&self, bytes: &'b [u8]) -> Request<'b> {
        let shape = if self.sloppy {
            Shape::Sloppy
        } else {
            Shape::Canonical
        };
        Request {
            bytes,
            shape,
            argc: self.argc,
            args_at: self.args_at,
        }
    }

    /// Reads on in the header line at `start`, up to its CR and the byte behind it. The line's first byte (its type) is not
    /// part of the number and may be anything.
    fn header(&mut self, buf: &[u8], limits: &RequestLimits) -> Header {
        let is_too_long = |next: usize| next - self.start > limits.line_bytes_max;
        let (mut next, mut number) = (self.next, self.number);
        let found = loop {
            if is_too_long(next) {
                return Header::TooLong;
            }
            match look(buf, next) {
                Some(b'\r') => match look(buf, next + 1) {
                    Some(behind) => {
                        self.sloppy |= behind != b'\n';
                        return Header::Whole(number.value(), next + 2);
                    }
                    None => break Header::More,
                },
                Some(0) if is_too_long(buf.len()) => return Header::TooLong,
                Some(0) | None => break Header::More,
                Some(_) if next == self.start => (),
                Some(byte) => number.push(byte),
            }
            next += 1;
        };
        self.next = next;
        self.number = number;
        found
    }

    fn inline<'b>(
        &mut self,
        buf: &'b [u8],
        limits: &RequestLimits,
    ) -> Parse<Request<'b>, RequestError> {
        loop {
            if self.next > limits.line_bytes_max {
                return Parse::Bad(RequestError::InlineTooBig);
            }
            match look(buf, self.next) {
                Some(b'\n') => break,
                Some(0) if buf.len() > limits.line_bytes_max => {
                    return Parse::Bad(RequestError::InlineTooBig);
                }
                Some(0) | None => return Parse::More,
                Some(_) => self.next += 1,
            }
        }
        // With its LF, and a CR if there is one: both are blanks, and inside a quote the line is refused either way.
        let line = &buf[..=self.next];
        match inline::count_arguments(line) {
            Ok(argc) => {
                let shape = if argc == 0 {
                    Shape::Empty
                } else {
                    Shape::Inline
                };
                Parse::Done(Request {
                    bytes: line,
                    shape,
                    argc,
                    args_at: 0,
                })
            }
            Err(inline::UnbalancedQuotes) => Parse::Bad(RequestError::UnbalancedQuotes),
        }
    }
}

/// The longest key [`get_at_start`] sees; nothing longer is ever cached.
const GET_KEY_BYTES_MAX: usize = 16 << 10;
/// `*2 $3 GET $`, one digit, CRLF, no key, CRLF: no GET is shorter.
const GET_BYTES_MIN: usize = 19;
/// Where the key's length stands.
const GET_LENGTH_AT: usize = 14;

/// The key and the length of a GET at the beginning of `buf`, if it is complete, canonical and its key is at most 16 KiB:
/// the shortcut for what most clients send most of the time. `None` says nothing else: ask [`RequestParser`] then.
///
/// About 30 instructions for keys of up to 99 bytes: three loads compare everything before the key.
#[inline]
pub fn get_at_start(buf: &[u8]) -> Option<(&[u8], usize)> {
    const ARRAY_AND_LENGTH: u64 = u64::from_le_bytes(*b"*2\r\n$3\r\n");
    const NAME_AND_DOLLAR: u64 = u64::from_le_bytes(*b"get\r\n$\0\0");
    const LOWER_CASE: u64 = u64::from_le_bytes([0x20, 0x20, 0x20, 0, 0, 0, 0, 0]);
    const NAME_BYTES: u64 = (1 << 48) - 1;

    let head = buf.first_chunk::<GET_BYTES_MIN>()?;
    let first = u64::from_le_bytes(*head.first_chunk()?);
    let second = u64::from_le_bytes(*head[8..].first_chunk()?);
    if first != ARRAY_AND_LENGTH || (second | LOWER_CASE) & NAME_BYTES != NAME_AND_DOLLAR {
        return None;
    }
    let length = *head[GET_LENGTH_AT..].first_chunk()?;
    if let Some(key_len) = number::two_digits(length) {
        key_at::<{ GET_LENGTH_AT + 4 }>(buf, key_len)
    } else if let Some(key_len) = number::one_digit(length) {
        key_at::<{ GET_LENGTH_AT + 3 }>(buf, key_len)
    } else {
        long_key(buf)
    }
}

/// [`get_at_start`] for GETs one after the other: the keys of an application have one length mostly, and then all that
/// stands before the key is what stood there before. A third fewer instructions.
#[derive(Debug, Clone)]
pub struct GetMemo {
    /// The name and the length, from the ninth byte on.
    second: u64,
    third: u16,
    /// By how much the key is longer than [`GetMemo::KEY_BYTES_MIN`]: so the compiler knows the least that it has.
    longer: u8,
}

impl Default for GetMemo {
    /// Nothing is remembered: where a line ends there is no byte like these.
    fn default() -> GetMemo {
        GetMemo {
            second: 0,
            third: 1,
            longer: 0,
        }
    }
}

impl GetMemo {
    const FIRST: u64 = u64::from_le_bytes(*b"*2\r\n$3\r\n");
    /// Where a key begins whose length has two digits.
    const KEY_AT: usize = GET_LENGTH_AT + 4;
    /// Two digits say at least ten.
    const KEY_BYTES_MIN: usize = 10;
    const KEY_BYTES_MAX: usize = 99;

    fn key_len(&self) -> usize {
        GetMemo::KEY_BYTES_MIN + usize::from(self.longer)
    }

    /// The length of a GET as the one before was.
    #[inline(always)]
    pub fn frame_len(&self) -> usize {
        GetMemo::KEY_AT + self.key_len() + 2
    }

    /// The key of the GET that `buf` is from its beginning to its end, if it is written as the one before was, with a key
    /// as long. `None` says nothing else: ask [`GetMemo::get_at_start`] then.
    #[inline(always)]
    pub fn only<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        if buf.len() != self.frame_len() {
            return None;
        }
        self.alike(buf).map(|(key, _)| key)
    }

    /// The key of the GET at the beginning of `buf`, and what is behind it, if it is written as the one before was, with a
    /// key as long. `None` says nothing else: ask [`GetMemo::learn`], or [`GetMemo::get_at_start`].
    #[inline(always)]
    pub fn alike<'b>(&self, buf: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let (frame, behind) = buf.split_at_checked(self.frame_len())?;
        if GetMemo::words(frame.first_chunk()?) != (GetMemo::FIRST, self.second, self.third) {
            return None;
        }
        let (key, end) = frame[GetMemo::KEY_AT..].split_last_chunk()?;
        (end == b"\r\n").then_some((key, behind))
    }

    /// After `None` of [`GetMemo::alike`]: whether it says another thing now.
    #[inline(never)]
    pub fn learn(&mut self, buf: &[u8]) -> bool {
        self.find_and_remember(buf).is_some() && self.alike(buf).is_some()
    }

    /// Whether keys of this length can be remembered.
    pub fn fits(key_len: usize) -> bool {
        (GetMemo::KEY_BYTES_MIN..=GetMemo::KEY_BYTES_MAX).contains(&key_len)
    }

    /// As [`get_at_start`], but with what is behind the request in place of its length.
    #[inline(always)]
    pub fn get_at_start<'b>(&mut self, buf: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let head = buf.first_chunk::<GET_BYTES_MIN>()?;
        let is_as_before = GetMemo::words(head) == (GetMemo::FIRST, self.second, self.third);
        let (at, key_len) = match is_as_before {
            true => (GetMemo::KEY_AT, self.key_len()),
            false => {
                let place = self.find_and_remember(buf)?.get();
                ((place & 0xff) as usize, (place >> 8) as usize)
            }
        };
        let (key, behind) = buf.get(at..)?.split_at_checked(key_len)?;
        let (end, behind) = behind.split_first_chunk()?;
        (end == b"\r\n").then_some((key, behind))
    }

    fn words(head: &[u8; GET_BYTES_MIN]) -> (u64, u64, u16) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, _] = *head;
        (
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            u16::from_le_bytes([q, r]),
        )
    }

    /// Another length, or another spelling of the name. Where the key begins, and above 8 bits its length: one number, so
    /// that nothing goes through memory.
    #[inline(never)]
    fn find_and_remember(&mut self, buf: &[u8]) -> Option<NonZeroU32> {
        let (key, used) = get_at_start(buf)?;
        // Only lengths of two digits leave the key where it is looked for.
        if let (true, Some(head)) = (GetMemo::fits(key.len()), buf.first_chunk()) {
            (_, self.second, self.third) = GetMemo::words(head);
            self.longer = (key.len() - GetMemo::KEY_BYTES_MIN) as u8;
        }
        NonZeroU32::new((used - 2 - key.len()) as u32 | (key.len() as u32) << 8)
    }
}

/// The key of this length at `AT`, if CRLF follows it.
#[inline(always)]
fn key_at<const AT: usize>(buf: &[u8], key_len: usize) -> Option<(&[u8], usize)> {
    let (key, end) = buf.get(AT..)?.get(..key_len + 2)?.split_last_chunk::<2>()?;
    (end == b"\r\n").then_some((key, AT + key_len + 2))
}

/// A key whose length has three to five digits.
#[cold]
fn long_key(buf: &[u8]) -> Option<(&[u8], usize)> {
    let header = buf.get(GET_LENGTH_AT..)?;
    let cr = header.iter().take(6).position(|&byte| byte == b'\r')?;
    let key_len = usize::try_from(Number::parse(&header[..cr])?).ok()?;
    if key_len > GET_KEY_BYTES_MAX || header.get(cr + 1) != Some(&b'\n') {
        return None;
    }
    key_at::<0>(&header[cr + 2..], key_len).map(|(key, used)| (key, GET_LENGTH_AT + cr + 2 + used))
}

#[cfg(test)]
mod tests;
