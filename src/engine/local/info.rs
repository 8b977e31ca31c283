//! INFO: our own section, and where it goes in the upstream's.
#![forbid(unsafe_code)]

use crate::config::Coherence;
use crate::engine::Engine;
use crate::protocol::resp::write;
use crate::stats::ROWS;
use std::fmt::Write;

impl Engine {
    /// Our section of INFO.
    pub(in crate::engine) fn info_section(&self) -> String {
        let mut out = String::from("# Nearcache\r\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            write!(out, "nearcache_{name}:{value}\r\n").expect("a string takes everything");
        };
        line("version", &env!("CARGO_PKG_VERSION"));
        line("pid", &self.pid);
        line("uptime_in_seconds", &self.now.since(self.started).as_secs());
        line("state", &self.upstream.state_name());
        line("coherence", &self.coherence_name());
        line("staleness_bound_ms", &self.bound().as_millis());
        match self.worst_staleness() {
            Some(worst) => line("staleness_now_ms", &worst.as_millis()),
            None => line("staleness_now_ms", &"no_hits"),
        }
        line("entries", &self.cache.len());
        line("bytes", &self.cache.bytes());
        line("clients", &self.data_clients());
        line("tls_clients", &self.tls_clients());
        line("links", &self.links.len());
        line("in_flight", &self.admission.in_flight());
        line("queued_now", &self.admission.waiting());
        line("timers", &self.timers.len());
        line("buffer_bytes", &self.buffer_bytes());
        line("paused_now", &self.paused_clients());
        for row in ROWS {
            line(row.name, &self.stats.get(row.counter));
        }
        if self.coherence == Coherence::Tracking {
            for (name, value) in self.measures.rows() {
                line(&name, &value);
            }
        }
        for (name, count) in &self.relayed_reads {
            line(&format!("relayed_reads_{}", name.replace('|', "_")), count);
        }
        out
    }
}

/// The reply to INFO with `section` behind what Redis said; an error is left as it is.
pub(in crate::engine) fn extend_info(reply: &[u8], section: &[u8]) -> Vec<u8> {
    let (Some(head), true) = (
        reply.windows(2).position(|pair| pair == b"\r\n"),
        reply.ends_with(b"\r\n"),
    ) else {
        return reply.to_vec();
    };
    let kind = reply[0];
    if !matches!(kind, b'$' | b'=') || reply.len() < head + 4 {
        return reply.to_vec();
    }
    let text = &reply[head + 2..reply.len() - 2];
    let mut out = Vec::with_capacity(reply.len() + section.len() + 16);
    out.push(kind);
    write::decimal(&mut out, (text.len() + 2 + section.len()) as i64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(section);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_extended_in_either_form_and_errors_are_not() {
        assert_eq!(
            extend_info(b"$3\r\na:1\r\n", b"# N\r\n"),
            b"$10\r\na:1\r\n# N\r\n\r\n"
        );
        assert_eq!(
            extend_info(b"=7\r\ntxt:a:1\r\n", b"# N\r\n"),
            b"=14\r\ntxt:a:1\r\n# N\r\n\r\n"
        );
        assert_eq!(extend_info(b"-NOAUTH x\r\n", b"# N\r\n"), b"-NOAUTH x\r\n");
        assert_eq!(extend_info(b"$-1\r\n", b"# N\r\n"), b"$-1\r\n");
    }
}
