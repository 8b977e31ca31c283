//! TLS with clients: certificates and keys from files, sessions over sockets that never block, words for what goes wrong.
//!
//! What is read from files is read whole, by whoever may block, and replaced whole: connections that stand keep what they
//! began with, those that come use what is there then. The loop's thread does the arithmetic of handshakes itself, in steps
//! that `reactor/handshakes.rs` counts out.
//!
//! It never trusts a certificate because of an option: there is none that turns the verification off.
#![forbid(unsafe_code)]

pub mod failure;
mod files;
pub mod session;

use crate::config::{ClientCerts, Config, TlsVersion};
use failure::Side;
use files::Named;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{ServerConnection, SupportedProtocolVersion, version};
use session::Session;
use std::sync::Arc;

/// What the configuration says of TLS, ready for use. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// For clients, if there is a certificate to show them.
    pub server: Option<Server>,
}

/// How clients are met.
#[derive(Debug, Clone)]
pub struct Server {
    resp: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files that the configuration names. It may block.
    ///
    /// # Errors
    /// A line for each side that cannot be: what is wrong with which file.
    pub fn load(config: &Config) -> Result<Tls, Vec<String>> {
        let server = Server::load(config).map_err(|line| vec![line])?;
        Ok(Tls { server })
    }
}

impl Server {
    fn load(config: &Config) -> Result<Option<Server>, String> {
        let files = (&config.tls_cert_file, &config.tls_key_file);
        let (Some(chain), Some(key)) = files else {
            return Ok(None);
        };
        let chain = Named {
            key: "TLS_CERT_FILE",
            path: chain,
        };
        let key = Named {
            key: "TLS_KEY_FILE",
            path: key,
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(config.tls_min_version))
            .map_err(|e| e.to_string())?;
        let builder = match &config.tls_client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let ca = Named {
                    key: "TLS_CLIENT_CA_FILE",
                    path,
                };
                let roots = Arc::new(ca.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = match config.tls_client_certs {
                    ClientCerts::Required => verifier,
                    ClientCerts::Optional => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|e| ca.wrong(&e.to_string()))?,
                )
            }
        };
        let mut resp = builder
            .with_single_cert(chain.certificates()?, key.key()?)
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    key.wrong("it is not the key of TLS_CERT_FILE")
                }
                e => key.wrong(&format!("it is of no use: {e}")),
            })?;
        // Tickets say all there is to know of an earlier connection, so nothing is kept here for those that come back. They
        // are sealed with a key of this very configuration: with a new one everybody is looked at again.
        resp.ticketer = ring::Ticketer::new().map_err(|e| e.to_string())?;
        resp.session_storage = Arc::new(NoServerSessionStorage {});
        resp.send_tls13_tickets = 1;
        let mut http = resp.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Server {
            resp: Arc::new(resp),
            http: Arc::new(http),
        }))
    }

    /// The session of a client that has just connected.
    ///
    /// # Errors
    /// None that a peer could cause.
    pub fn session(&self, speaks_http: bool) -> Result<Session, String> {
        let config = if speaks_http { &self.http } else { &self.resp };
        let connection = ServerConnection::new(config.clone()).map_err(|e| e.to_string())?;
        Ok(Session::new(connection.into(), Side::Server))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match least {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &NEWEST,
    }
}
