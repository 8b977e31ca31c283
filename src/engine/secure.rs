//! Clients that come by a port for TLS, as far as the engine has to know: which they are, how their handshakes end.
//!
//! It never sees a record or a certificate; the shell does, and says here what came of it. Costs: O(1) per handshake.
#![forbid(unsafe_code)]

use super::{ConnId, Engine};
use crate::client::CloseReason;
use crate::stats::Counter;
use tracing::{debug, warn};

/// Why there was no TLS with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// What it sent is no TLS.
    NotTls,
    /// No version, cipher or protocol that both ends have.
    NothingShared,
    /// The certificate it should show is missing or wrong.
    Certificate,
    /// It refuses ours.
    Distrusted,
    /// It took too long.
    TimedOut,
    /// It went away first.
    Gone,
    /// It broke the rules of TLS.
    Broken,
}

impl Refused {
    const fn counter(self) -> Counter {
        match self {
            Refused::NotTls => Counter::TlsFailedNotTls,
            Refused::NothingShared => Counter::TlsFailedNothingShared,
            Refused::Certificate => Counter::TlsFailedCertificate,
            Refused::Distrusted => Counter::TlsFailedDistrusted,
            Refused::TimedOut => Counter::TlsFailedTimedOut,
            Refused::Gone => Counter::TlsFailedGone,
            Refused::Broken => Counter::TlsFailedBroken,
        }
    }

    /// Its word in the log, where the same reason is not repeated without end.
    const fn name(self) -> &'static str {
        match self {
            Refused::NotTls => "not_tls",
            Refused::NothingShared => "nothing_shared",
            Refused::Certificate => "certificate",
            Refused::Distrusted => "distrusted",
            Refused::TimedOut => "timed_out",
            Refused::Gone => "gone",
            Refused::Broken => "broken",
        }
    }
}

impl Engine {
    /// The client came by a port for TLS; it is served when the handshake is over.
    pub fn wants_tls(&mut self, id: ConnId) {
        if let Some(ix) = self.client_index(id) {
            self.clients[ix].is_tls = true;
        }
    }

    /// Its handshake is over.
    pub fn tls_stands(&mut self, id: ConnId) {
        if let Some(ix) = self.client_index(id) {
            self.clients[ix].active = self.now;
            self.stats.count(Counter::TlsHandshakes);
        }
    }

    /// Its handshake has failed, and it is closed. `text` goes on behind "a client".
    pub fn tls_failed(&mut self, id: ConnId, refused: Refused, text: &str) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.stats.count(Counter::TlsFailed);
        self.stats.count(refused.counter());
        let peer = self.peer_of(&self.clients[ix]);
        // Who looks whether the port is open, or gives up, is no trouble of ours.
        match refused {
            Refused::Gone => debug!(%peer, "TLS: a client {text}"),
            _ => warn!(%peer, reason = refused.name(), "TLS: a client {text}"),
        }
        self.close_client(ix, CloseReason::HandshakeFailed);
    }

    /// As many handshakes are under way as there may be: the next clients wait to be accepted.
    pub fn tls_is_full(&mut self) {
        self.stats.count(Counter::TlsHeld);
    }

    /// Clients by a port for TLS. O(clients).
    pub(super) fn tls_clients(&self) -> usize {
        self.clients
            .iter()
            .filter(|(_, client)| client.is_tls)
            .count()
    }
}
