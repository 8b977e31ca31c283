//! A complete head: the request line, taken apart here, and the fields, taken apart by httparse, become a [`Request`]
//! and the answer to where the message ends.
//!
//! Never allocates and never copies: all slices point into the head. Whatever two parsers could read differently (a
//! repeated length, a second Host, a coding we do not know) is refused rather than interpreted. O(bytes of the head).
//!
//! The request line is not given to httparse because it must be judged as soon as it is complete, when there may be no
//! head yet, and because httparse refuses HTTP/1.2 to 1.9, which RFC 9110 section 2.5 tells us to take as 1.1.
#![forbid(unsafe_code)]

use super::target::{self, Port};
use super::{Limits, Refusal, octets};
use httparse::{EMPTY_HEADER, Header, Status};

/// What a request wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, without the content.
    Head,
    /// OPTIONS, which alone may ask about the server (`*`).
    Options,
    /// CONNECT, which alone names a host and a port and no path.
    Connect,
    /// POST.
    Post,
    /// Another method that HTTP servers know: PUT, DELETE, TRACE, PATCH.
    Known,
    /// A token nobody has told us of.
    Unknown,
}

/// The version as far as it changes what we do: HTTP/1.2 and higher count as 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: closes unless asked not to; knows neither chunks nor 100 Continue.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A complete request, as slices of the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    /// What is to be done.
    pub method: Method,
    /// In which version.
    pub version: Version,
    /// Whether the connection goes on afterwards. If not, the parser says `More` for ever from here on.
    pub keep_alive: bool,
    /// The path as it came, percent-encoded; `*` for `OPTIONS *`, empty for CONNECT.
    pub path: &'b [u8],
    /// What follows the path's `?`.
    pub query: Option<&'b [u8]>,
    /// Host and port: the target's if it has one, else the Host field's. `None` only in HTTP/1.0.
    pub host: Option<&'b [u8]>,
    /// `Cache-Control: no-cache`, or `Pragma: no-cache` without any Cache-Control.
    pub no_cache: bool,
    /// The If-None-Match condition.
    pub if_none_match: Option<IfNoneMatch<'b>>,
    /// The Origin field.
    pub origin: Option<&'b [u8]>,
    /// The Sec-Fetch-Site field.
    pub sec_fetch_site: Option<&'b [u8]>,
    /// The Authorization field.
    pub authorization: Option<&'b [u8]>,
    /// Length of the head, from the request line to the empty line, both included.
    pub head_bytes: usize,
}

/// The values of If-None-Match, which may stand on several lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfNoneMatch<'b> {
    /// The value of the first line.
    first: &'b [u8],
    /// The rest of the head behind it if there are more such lines, else empty. Looked through only when asked.
    rest: &'b [u8],
}

impl<'b> IfNoneMatch<'b> {
    /// The condition of one field value, as [`IfNoneMatch::to_vec`] gives it.
    pub fn of_value(value: &'b [u8]) -> IfNoneMatch<'b> {
        IfNoneMatch {
            first: value,
            rest: b"",
        }
    }

    /// All values as one list, to be kept while the answer is waited for.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut list = self.first.to_vec();
        for value in self.more() {
            list.extend_from_slice(b", ");
            list.extend_from_slice(value.trim_ascii());
        }
        list
    }

    /// The values of the further lines.
    fn more(&self) -> impl Iterator<Item = &'b [u8]> {
        const NAME: &[u8] = b"if-none-match:";
        self.rest.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(NAME.len())?;
            name.eq_ignore_ascii_case(NAME).then_some(value)
        })
    }

    /// Whether the condition names the entity tag `"opaque"`, by weak comparison, or is `*` (RFC 9110 section 13.1.2):
    /// then the answer is 304. A malformed list matches what stands before the fault.
    pub fn matches(&self, opaque: &[u8]) -> bool {
        list_matches(self.first, opaque) || self.more().any(|value| list_matches(value, opaque))
    }
}

fn list_matches(list: &[u8], opaque: &[u8]) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', behind @ ..] = rest {
            rest = behind;
        }
        let [b'"', tag @ ..] = rest.strip_prefix(b"W/").unwrap_or(rest) else {
            return false;
        };
        let Some(end) = tag.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        if &tag[..end] == opaque {
            return true;
        }
        rest = &tag[end + 1..];
    }
}

/// A request line: what of it must be kept while the rest of the head arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub method: Method,
    pub version: Version,
    /// Where the target begins: the method's length and one.
    target_at: usize,
    /// Length of the line without its CRLF.
    line_bytes: usize,
}

/// ` HTTP/1.1`: what ends every request line has this length.
const VERSION_BYTES: usize = 9;

impl Line {
    /// Where the fields begin, from the start of the message.
    pub(super) fn fields_at(self) -> usize {
        self.line_bytes + 2
    }

    /// The target's bytes.
    fn target(self, head: &[u8]) -> &[u8] {
        &head[self.target_at..self.line_bytes - VERSION_BYTES]
    }
}

/// What a client that takes HTTP/2 for granted begins with (RFC 9113 section 3.4): no request, in whatever version.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Judges a complete request line, without its CRLF. The order of its faults: malformed, version, target.
pub(super) fn parse_line(line: &[u8]) -> Result<Line, Refusal> {
    let (method, method_bytes) = method_of(line)?;
    let version_at = line
        .len()
        .checked_sub(VERSION_BYTES)
        .ok_or(Refusal::RequestLine)?;
    let target = line
        .get(method_bytes + 1..version_at)
        .ok_or(Refusal::RequestLine)?;
    if target.is_empty() {
        return Err(Refusal::RequestLine);
    }
    let version = match line[version_at..] {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'] => Version::Http10,
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        [
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'0'..=b'9',
            b'.',
            b'0'..=b'9',
        ] => {
            return Err(match line {
                HTTP2_PREFACE => Refusal::Http2,
                _ => Refusal::Version,
            });
        }
        _ => return Err(Refusal::RequestLine),
    };
    if !octets::all(target, octets::TARGET) {
        return Err(Refusal::Target);
    }
    Ok(Line {
        method,
        version,
        target_at: method_bytes + 1,
        line_bytes: line.len(),
    })
}

/// The method at the start of a request line, and its length; a space follows it.
fn method_of(line: &[u8]) -> Result<(Method, usize), Refusal> {
    if let [b'G', b'E', b'T', b' ', ..] = line {
        return Ok((Method::Get, 3));
    }
    let bytes = line
        .iter()
        .position(|&byte| byte == b' ')
        .ok_or(Refusal::RequestLine)?;
    let method = match &line[..bytes] {
        b"" => return Err(Refusal::RequestLine),
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"CONNECT" => Method::Connect,
        b"POST" => Method::Post,
        b"PUT" | b"DELETE" | b"TRACE" | b"PATCH" => Method::Known,
        token if octets::all(token, octets::TOKEN) => Method::Unknown,
        _ => return Err(Refusal::RequestLine),
    };
    Ok((method, bytes))
}

/// What follows the head (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing: the message ends with its head.
    Nothing,
    /// So many bytes, at least one.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// A head that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'b> {
    pub request: Request<'b>,
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Most requests have no more fields than this; only for others is the large table cleared.
const FIELDS_FEW: usize = 24;

/// Understands the head `head`, complete with its empty line, whose request line is `line`.
#[inline]
pub(super) fn parse_head<'b>(
    line: Line,
    head: &'b [u8],
    limits: &Limits,
) -> Result<Head<'b>, Refusal> {
    let fields = &head[line.fields_at()..];
    let mut few = [EMPTY_HEADER; FIELDS_FEW];
    let few_max = limits.fields_max.min(FIELDS_FEW);
    match httparse::parse_headers(fields, &mut few[..few_max]) {
        Err(httparse::Error::TooManyHeaders) if limits.fields_max > FIELDS_FEW => {}
        parsed => return understand(line, head, limits, fields_of(fields, parsed)?),
    }
    let mut many = [EMPTY_HEADER; Limits::FIELDS_MAX];
    let many_max = limits.fields_max.min(Limits::FIELDS_MAX);
    let parsed = httparse::parse_headers(fields, &mut many[..many_max]);
    understand(line, head, limits, fields_of(fields, parsed)?)
}

/// httparse's answer, which must agree with our scan on where the head ends.
fn fields_of<'h, 'b>(
    fields: &[u8],
    parsed: httparse::Result<(usize, &'h [Header<'b>])>,
) -> Result<&'h [Header<'b>], Refusal> {
    match parsed {
        Ok(Status::Complete((bytes, headers))) if bytes == fields.len() => Ok(headers),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::FieldsTooMany),
        _ => Err(Refusal::Field),
    }
}

#[inline]
fn understand<'b>(
    line: Line,
    head: &'b [u8],
    limits: &Limits,
    headers: &[Header<'b>],
) -> Result<Head<'b>, Refusal> {
    let mut host = None;
    let mut origin = None;
    let mut sec_fetch_site = None;
    let mut authorization = None;
    let mut if_none_match: Option<IfNoneMatch> = None;
    let mut connection = Connection::default();
    let mut cache_control = CacheControl::default();
    let mut ends = Ends::default();
    let mut expects_continue = false;

    for header in headers {
        let name = header.name.as_bytes();
        let value = header.value;
        // What is added here is added to `TELLING`. The length tells most fields apart from those that matter, at the cost of one comparison.
        match name.len() {
            4 if is_name(name, b"Host") => once(&mut host, value, Refusal::HostRepeated)?,
            6 if is_name(name, b"Origin") => once(&mut origin, value, Refusal::Repeated)?,
            6 if is_name(name, b"Pragma") => cache_control.pragma |= has_token(value, b"no-cache"),
            6 if is_name(name, b"Expect") => match value.eq_ignore_ascii_case(b"100-continue") {
                true => expects_continue = true,
                false if line.version == Version::Http10 => {}
                false => return Err(Refusal::Expectation),
            },
            10 if is_name(name, b"Connection") => connection.add(value),
            13 if is_name(name, b"Cache-Control") => cache_control.add(value),
            13 if is_name(name, b"If-None-Match") => match &mut if_none_match {
                None => {
                    if_none_match = Some(IfNoneMatch {
                        first: value,
                        rest: &[],
                    })
                }
                Some(condition) => condition.rest = behind(head, condition.first),
            },
            13 if is_name(name, b"Authorization") => {
                once(&mut authorization, value, Refusal::Repeated)?
            }
            14 if is_name(name, b"Content-Length") => ends.add_length(value)?,
            14 if is_name(name, b"Sec-Fetch-Site") => {
                once(&mut sec_fetch_site, value, Refusal::Repeated)?
            }
            17 if is_name(name, b"Transfer-Encoding") => ends.add_encoding(value),
            _ => {}
        }
    }

    let framing = ends.framing(line.version, limits)?;
    if line.version == Version::Http11 && host.is_none() {
        return Err(Refusal::HostMissing);
    }
    if host.is_some_and(|host| !target::is_host(host, Port::Optional)) {
        return Err(Refusal::HostMalformed);
    }
    let target = target::parse_target(line.method, line.target(head))?;

    let request = Request {
        method: line.method,
        version: line.version,
        // A tunnel that was refused has no agreed end (RFC 9110 section 9.3.6), so nothing behind it is a request.
        keep_alive: connection.is_kept(line.version) && line.method != Method::Connect,
        path: target.path,
        query: target.query,
        host: target.authority.or(host),
        no_cache: cache_control.is_no_cache(),
        if_none_match,
        origin,
        sec_fetch_site,
        authorization,
        head_bytes: head.len(),
    };
    let expects_continue =
        expects_continue && line.version == Version::Http11 && framing != Framing::Nothing;
    Ok(Head {
        request,
        framing,
        expects_continue,
    })
}

/// The fields that [`understand`] looks at. Whatever stands in another one, the request means the same.
const TELLING: [&[u8]; 11] = [
    b"Host",
    b"Origin",
    b"Pragma",
    b"Expect",
    b"Connection",
    b"Cache-Control",
    b"If-None-Match",
    b"Authorization",
    b"Content-Length",
    b"Sec-Fetch-Site",
    b"Transfer-Encoding",
];

/// Whether a field of this name can change what a request means.
pub(super) fn is_telling(name: &[u8]) -> bool {
    TELLING
        .iter()
        .any(|telling| telling.eq_ignore_ascii_case(name))
}

/// Whether `name` is `known`, in whatever case; the usual spelling costs one comparison of words.
#[inline(always)]
fn is_name<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(name).is_ok_and(|name| name == known || name.eq_ignore_ascii_case(known))
}

fn once<'b>(
    slot: &mut Option<&'b [u8]>,
    value: &'b [u8],
    repeated: Refusal,
) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(repeated),
    }
}

/// The part of `head` behind `part`, which is a slice of it.
fn behind<'b>(head: &'b [u8], part: &[u8]) -> &'b [u8] {
    let end = (part.as_ptr() as usize + part.len()).saturating_sub(head.as_ptr() as usize);
    head.get(end..).unwrap_or(&[])
}

/// The members of a comma-separated list, without the empty ones that RFC 9110 section 5.6.1 tells us to ignore.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',')
        .map(|member| member.trim_ascii())
        .filter(|member| !member.is_empty())
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    members(list).any(|member| member.eq_ignore_ascii_case(token))
}

/// The options of the Connection fields, which matter together.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    fn add(&mut self, value: &[u8]) {
        if value == b"keep-alive" {
            self.keep_alive = true; // what nearly all clients send that send anything
            return;
        }
        self.close |= has_token(value, b"close");
        self.keep_alive |= has_token(value, b"keep-alive");
    }

    /// RFC 9112 section 9.3: close wins, then 1.1 is kept, then 1.0 if it asked.
    fn is_kept(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// Whether the request forces a fetch.
#[derive(Default)]
struct CacheControl {
    seen: bool,
    no_cache: bool,
    pragma: bool,
}

impl CacheControl {
    /// A comma within a quoted argument is taken for the end of a directive; at worst that costs a fetch.
    fn add(&mut self, value: &[u8]) {
        self.seen = true;
        self.no_cache |= has_token(value, b"no-cache");
    }

    /// Pragma counts only where Cache-Control says nothing (RFC 9111 section 5.4).
    fn is_no_cache(&self) -> bool {
        self.no_cache || (self.pragma && !self.seen)
    }
}

/// What the fields say about where the message ends.
#[derive(Default)]
struct Ends {
    length: Option<u64>,
    encodings: Encodings,
}

/// The Transfer-Encoding lines so far, taken as one list.
#[derive(Default, PartialEq, Eq)]
enum Encodings {
    #[default]
    Absent,
    /// An empty member, or something behind `chunked`.
    Malformed,
    /// `chunked` alone.
    Chunked,
    /// Another coding last: the length could not be known.
    Other,
    /// `chunked` last, behind others that we cannot decode.
    OtherThenChunked,
}

impl Ends {
    /// A second line is refused even when it repeats the first: something in front of us may have read only one.
    fn add_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::LengthRepeated);
        }
        if value.is_empty() {
            return Err(Refusal::LengthMalformed);
        }
        let mut length: u64 = 0;
        for byte in value {
            if !byte.is_ascii_digit() {
                return Err(Refusal::LengthMalformed);
            }
            length = length
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
                .ok_or(Refusal::LengthMalformed)?;
        }
        self.length = Some(length);
        Ok(())
    }

    fn add_encoding(&mut self, value: &[u8]) {
        // Empty members are not ignored here as RFC 9110 section 5.6.1.2 would have it: readers differ over `chunked,`.
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.encodings = match (&self.encodings, is_chunked) {
                (Encodings::Absent, true) => Encodings::Chunked,
                (_, false) if coding.is_empty() => Encodings::Malformed,
                (Encodings::Absent | Encodings::Other, false) => Encodings::Other,
                (Encodings::Other, true) => Encodings::OtherThenChunked,
                // Nothing may follow `chunked`, not even itself.
                _ => Encodings::Malformed,
            };
        }
    }

    fn framing(&self, version: Version, limits: &Limits) -> Result<Framing, Refusal> {
        if self.encodings == Encodings::Absent {
            return match self.length.map(usize::try_from) {
                None | Some(Ok(0)) => Ok(Framing::Nothing),
                Some(Ok(length)) if length <= limits.body_bytes_max => Ok(Framing::Length(length)),
                Some(_) => Err(Refusal::BodyTooLarge),
            };
        }
        if self.length.is_some() {
            return Err(Refusal::LengthAndEncoding);
        }
        if version == Version::Http10 {
            return Err(Refusal::EncodingIn10);
        }
        match self.encodings {
            Encodings::Chunked => Ok(Framing::Chunked),
            Encodings::OtherThenChunked => Err(Refusal::EncodingUnknown),
            _ => Err(Refusal::Encoding),
        }
    }
}
