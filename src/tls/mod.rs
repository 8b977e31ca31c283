//! TLS on both sides: certificates and keys from files, sessions over sockets that never block, words for what goes wrong.
//!
//! What is read from files is read whole, by whoever may block, and replaced whole: connections that stand keep what they
//! began with, those that come use what is there then. The loop's thread does the arithmetic of handshakes itself, in steps
//! that `reactor/handshakes.rs` counts out.
//!
//! It never trusts a certificate because of an option: there is none that turns the verification off.
#![forbid(unsafe_code)]

pub mod blocking;
pub mod failure;
mod files;
pub mod session;

use crate::config::{ClientCerts, Config, TlsVersion};
use failure::Side;
use files::Named;
use rustls::client::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{
    ClientConnection, ProtocolVersion, RootCertStore, ServerConnection, SupportedProtocolVersion,
    version,
};
use session::Session;
use std::path::PathBuf;
use std::sync::Arc;

/// What the configuration says of TLS, ready for use. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// For clients, if there is a certificate to show them.
    pub server: Option<Server>,
    /// For Redis, if it is to be spoken to over TLS.
    pub upstream: Option<Upstream>,
}

/// How clients are met.
#[derive(Debug, Clone)]
pub struct Server {
    resp: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// How Redis is met.
#[derive(Debug, Clone)]
pub struct Upstream {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files that the configuration names. It may block.
    ///
    /// # Errors
    /// A line for each side that cannot be: what is wrong with which file.
    pub fn load(config: &Config) -> Result<Tls, Vec<String>> {
        match (Server::load(config), Upstream::load(config)) {
            (Ok(server), Ok(upstream)) => Ok(Tls { server, upstream }),
            (server, upstream) => {
                let lines = [server.err(), upstream.err()];
                Err(lines.into_iter().flatten().collect())
            }
        }
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

impl Upstream {
    fn load(config: &Config) -> Result<Option<Upstream>, String> {
        if !config.redis_url.tls {
            return Ok(None);
        }
        let name = config
            .redis_tls_server_name
            .as_ref()
            .unwrap_or(&config.redis_url.host);
        let name = ServerName::try_from(name.clone()).map_err(|_| {
            format!("{name} can be the name of no certificate: set REDIS_TLS_SERVER_NAME")
        })?;
        let roots = match &config.redis_tls_ca_file {
            Some(path) => Named {
                key: "REDIS_TLS_CA_FILE",
                path,
            }
            .roots()?,
            None => roots_of_this_machine()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(TlsVersion::Tls12))
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        let files: (&Option<PathBuf>, &Option<PathBuf>) =
            (&config.redis_tls_cert_file, &config.redis_tls_key_file);
        let config = match files {
            (Some(chain), Some(key)) => {
                let chain = Named {
                    key: "REDIS_TLS_CERT_FILE",
                    path: chain,
                };
                let key = Named {
                    key: "REDIS_TLS_KEY_FILE",
                    path: key,
                };
                builder
                    .with_client_auth_cert(chain.certificates()?, key.key()?)
                    .map_err(|e| match e {
                        rustls::Error::InconsistentKeys(_) => {
                            key.wrong("it is not the key of REDIS_TLS_CERT_FILE")
                        }
                        e => key.wrong(&format!("it is of no use: {e}")),
                    })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Some(Upstream {
            config: Arc::new(config),
            name,
        }))
    }

    /// The state of TLS for a connection to Redis.
    ///
    /// # Errors
    /// None that a peer could cause.
    pub fn connection(&self) -> Result<ClientConnection, String> {
        ClientConnection::new(self.config.clone(), self.name.clone()).map_err(|e| e.to_string())
    }

    /// The session of a link to Redis that has just connected.
    ///
    /// # Errors
    /// As [`Upstream::connection`].
    pub fn session(&self) -> Result<Session, String> {
        Ok(Session::new(self.connection()?.into(), Side::Client))
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

/// What is spoken on a connection whose handshake is over, in a word.
pub fn version_of(connection: &ClientConnection) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    }
}

/// Whom this machine trusts: what its operator added counts here as it does for every other program, and it is kept up to
/// date without a new version of this one. (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded.)
fn roots_of_this_machine() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map_or(String::new(), |e| format!(" ({e})"));
        return Err(format!(
            "REDIS_URL is rediss:// and this machine trusts nobody{why}: install ca-certificates, or set REDIS_TLS_CA_FILE"
        ));
    }
    Ok(roots)
}
