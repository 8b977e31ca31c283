//! Where a client comes from and where it was accepted, as Redis writes both.
//!
//! It never looks anything up: a client of a Unix socket has no address of its own, and is called by the socket's path, with
//! port 0, as Redis does.
#![forbid(unsafe_code)]

use super::{Engine, Port};
use crate::client::{Client, Peer};
use std::fmt;
use std::net::SocketAddr;

/// An address, or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Of a network.
    Ip(SocketAddr),
    /// Of this machine.
    Path(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(addr) => addr.fmt(f),
            Address::Path(path) => write!(f, "{path}:0"),
        }
    }
}

impl Engine {
    /// Where the client comes from.
    pub(super) fn peer_of(&self, client: &Client) -> Address {
        match client.peer.addr() {
            Some(addr) => Address::Ip(addr),
            None => self.path_of(client.port),
        }
    }

    /// Where the client was accepted.
    pub(super) fn local_of(&self, client: &Client) -> Address {
        let Some(peer) = client.peer.addr() else {
            return self.path_of(client.port);
        };
        let port = match (client.port, client.is_tls) {
            (Port::Http, false) => self.config.http_port,
            (Port::Http, true) => self.config.tls_http_port,
            (Port::Resp, false) => self.config.resp_port,
            (Port::Resp, true) => self.config.tls_resp_port,
            (Port::Admin, _) => self.config.admin_port,
            (Port::Probe, _) => self.config.probe_port,
        };
        let here = || SocketAddr::new(peer.ip(), port.unwrap_or(0));
        let extras = client.extras.as_ref();
        Address::Ip(extras.and_then(|extras| extras.local).unwrap_or_else(here))
    }

    fn path_of(&self, port: Port) -> Address {
        let path = match port {
            Port::Http => self.config.http_socket.as_deref(),
            Port::Resp => self.config.resp_socket.as_deref(),
            Port::Admin | Port::Probe => None,
        };
        Address::Path(path.map_or(String::new(), |path| path.display().to_string()))
    }
}

impl Peer {
    /// Whether it is a process of this machine.
    pub(super) fn is_near(&self) -> bool {
        self.addr()
            .is_none_or(|addr| addr.ip().to_canonical().is_loopback())
    }
}
