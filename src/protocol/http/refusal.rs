//! Why a request is not served: one row per reason, with its status and the text of its small body.
//!
//! Never holds bytes of the peer: every text is ours, so an answer cannot echo what somebody sent.
#![forbid(unsafe_code)]

/// Why a request is not served. What the parser refuses closes the connection ([`super::Step::Bad`]); what the routing
/// decision refuses is an ordinary answer, and the connection goes on as the request wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each row of `row` says what it means, in the words the client reads
pub enum Refusal {
    // The octets of a head.
    BareLf,
    BareCr,
    ControlByte,
    ObsFold,
    EmptyLines,
    // The request line.
    RequestLine,
    Http2,
    Target,
    LineTooLong,
    Version,
    // The fields.
    Field,
    FieldsTooLarge,
    FieldsTooMany,
    Repeated,
    HostMissing,
    HostRepeated,
    HostMalformed,
    Expectation,
    // Where the request ends.
    LengthMalformed,
    LengthRepeated,
    LengthAndEncoding,
    Encoding,
    EncodingUnknown,
    EncodingIn10,
    BodyTooLarge,
    ChunkSize,
    ChunkExtension,
    ChunkEnd,
    ChunkOverhead,
    Trailer,
    // The routing decision.
    MethodUnknown,
    MethodNotAllowed,
    OptionsOfServer,
    PathUnknown,
    KeyMissing,
    KeyRepeated,
    KeyEncoding,
    ForeignHost,
    ForeignOrigin,
    Unauthorized,
    // What the engine finds out.
    NoSuchKey,
    HeadTimeout,
}

impl Refusal {
    /// Status code and text, without the newline that ends the body.
    const fn row(self) -> (u16, &'static str) {
        use Refusal::*;
        match self {
            BareLf => (400, "bad request: a line ends with LF, not with CRLF"),
            BareCr => (400, "bad request: CR without LF"),
            ControlByte => (
                400,
                "bad request: control byte (this port speaks plain HTTP/1.1)",
            ),
            ObsFold => (400, "bad request: folded field line"),
            EmptyLines => (400, "bad request: too many empty lines before a request"),
            RequestLine => (
                400,
                "bad request: malformed request line (this port speaks HTTP/1.1)",
            ),
            Http2 => (400, "bad request: this port speaks HTTP/1.1, not HTTP/2"),
            Target => (400, "bad request: malformed request target"),
            LineTooLong => (414, "request line too long"),
            Version => (505, "HTTP version not supported: use HTTP/1.1"),
            Field => (400, "bad request: malformed field line"),
            FieldsTooLarge => (431, "header fields too large"),
            FieldsTooMany => (431, "too many header fields"),
            Repeated => (
                400,
                "bad request: a field that may be given once is repeated",
            ),
            HostMissing => (400, "bad request: no Host"),
            HostRepeated => (400, "bad request: more than one Host"),
            HostMalformed => (400, "bad request: malformed Host"),
            Expectation => (417, "expectation failed: only 100-continue is known"),
            LengthMalformed => (400, "bad request: malformed Content-Length"),
            LengthRepeated => (400, "bad request: more than one Content-Length"),
            LengthAndEncoding => (400, "bad request: Content-Length and Transfer-Encoding"),
            Encoding => (400, "bad request: malformed Transfer-Encoding"),
            EncodingUnknown => (501, "transfer coding not implemented: only chunked is"),
            EncodingIn10 => (400, "bad request: Transfer-Encoding in HTTP/1.0"),
            BodyTooLarge => (413, "request body too large"),
            ChunkSize => (400, "bad request: malformed chunk size"),
            ChunkExtension => (400, "bad request: malformed chunk extension"),
            ChunkEnd => (400, "bad request: a chunk does not end with CRLF"),
            ChunkOverhead => (413, "chunk sizes, extensions and trailers too large"),
            Trailer => (400, "bad request: malformed trailer"),
            MethodUnknown => (501, "method not implemented"),
            MethodNotAllowed => (405, "method not allowed: use GET or HEAD"),
            OptionsOfServer => (200, "GET and HEAD"),
            PathUnknown => (404, "no such path: use /get?key=name"),
            KeyMissing => (400, "bad request: the parameter key is missing"),
            KeyRepeated => (
                400,
                "bad request: the parameter key is given more than once",
            ),
            KeyEncoding => (
                400,
                "bad request: the parameter key is wrongly percent-encoded",
            ),
            ForeignHost => (
                403,
                "forbidden: this host name is not in HTTP_ALLOWED_HOSTS",
            ),
            ForeignOrigin => (403, "forbidden: this origin is not in HTTP_ALLOWED_ORIGINS"),
            Unauthorized => (
                401,
                "unauthorized: Redis needs a password, so say it (Basic, or the password as Bearer)",
            ),
            NoSuchKey => (404, "no such key"),
            HeadTimeout => (408, "request timeout"),
        }
    }

    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The text of the answer's body, without the newline that ends it.
    pub const fn text(self) -> &'static str {
        self.row().1
    }

    /// Whether the answer names the methods that would be allowed (RFC 9110 section 15.5.6).
    pub const fn names_methods(self) -> bool {
        matches!(self, Refusal::MethodNotAllowed | Refusal::OptionsOfServer)
    }
}
