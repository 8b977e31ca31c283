//! Answers of the admin port: whole texts of ours, never stored by anyone, never shown inside another page.
//!
//! No byte of a peer comes into a head. O(bytes appended).
#![forbid(unsafe_code)]

use super::head::Version;
use super::response::{DATE_BYTES, append_number};
use super::route::Manner;

/// What the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For people and probes.
    Text,
    /// Prometheus's text format, with the version it goes by.
    Metrics,
    /// For programs.
    Json,
    /// The dashboard. Its own style and script may run, and may ask this port; nothing else may be loaded.
    Html,
}

impl Kind {
    const fn fields(self) -> &'static str {
        match self {
            Kind::Text => "text/plain; charset=utf-8",
            Kind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Kind::Json => "application/json",
            Kind::Html => {
                "text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
                 script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'"
            }
        }
    }
}

/// Appends a whole answer. `status` is a status line's code and reason: `200 OK`.
pub fn page(
    out: &mut Vec<u8>,
    manner: Manner,
    date: &[u8; DATE_BYTES],
    status: &'static str,
    kind: Kind,
    body: &[u8],
) {
    out.reserve(512 + body.len());
    for part in [
        "HTTP/1.1 ",
        status,
        "\r\nContent-Type: ",
        kind.fields(),
        "\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\nContent-Length: ",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    append_number(out, body.len() as u64);
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    if status.starts_with("405") {
        out.extend_from_slice(b"\r\nAllow: POST");
    }
    out.extend_from_slice(match (manner.keep_alive, manner.version) {
        (true, Version::Http11) => b"\r\n\r\n",
        (true, Version::Http10) => b"\r\nConnection: keep-alive\r\n\r\n",
        (false, _) => b"\r\nConnection: close\r\n\r\n",
    });
    if !manner.head_only {
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_announces_the_body_that_a_get_receives() {
        let date = super::super::response::date(0);
        let said = |manner: Manner| {
            let mut out = Vec::new();
            page(&mut out, manner, &date, "200 OK", Kind::Json, b"{}");
            String::from_utf8(out).expect("all of it is text")
        };
        let closing = said(Manner::closing(false));
        assert!(closing.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
        assert!(
            closing.ends_with("\r\nConnection: close\r\n\r\n{}"),
            "{closing}"
        );
        assert!(closing.contains("\r\nContent-Length: 2\r\n"));
        let head = said(Manner {
            keep_alive: true,
            ..Manner::closing(true)
        });
        assert!(
            head.contains("\r\nContent-Length: 2\r\n") && head.ends_with("GMT\r\n\r\n"),
            "{head}"
        );
    }
}
