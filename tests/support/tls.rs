//! Certificates that a test makes for itself, and clients that speak TLS.
//!
//! Every key is new and lives as long as its test: nothing is committed, and nothing expires.

use super::proxy::Proxy;
use super::scratch::Scratch;
use super::{PATIENCE, eventually, show};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// Who signs certificates, and the directory where all of them are.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: Scratch,
}

/// How a certificate differs from a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It does not.
    None,
    /// Its time is over.
    Expired,
    /// Nobody but itself has signed it.
    SelfSigned,
}

/// The names of a certificate's two files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one, with its own key.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a good name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("there is randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it can sign itself");
        let directory = Scratch::new("tls");
        let authority = Authority { issuer, directory };
        fs::write(authority.file("ca.pem"), authority.issuer.pem()).expect("ours can be written");
        authority
    }

    /// The full name of a file in its directory.
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The file with its own certificate.
    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    /// A certificate for these names (or addresses), in files of this name.
    pub fn issue(&self, file: &str, names: &[&str], flaw: Flaw) -> Files {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("they are names");
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("there is randomness");
        let cert = match flaw {
            Flaw::SelfSigned => params.self_signed(&key),
            Flaw::None | Flaw::Expired => params.signed_by(&key, &self.issuer),
        };
        let files = Files {
            cert: self.file(&format!("{file}.pem")),
            key: self.file(&format!("{file}.key")),
        };
        let cert = cert.expect("it can be signed").pem();
        fs::write(&files.cert, cert).expect("ours can be written");
        fs::write(&files.key, key.serialize_pem()).expect("ours can be written");
        files
    }

    /// What a client needs that trusts nobody else, and shows this certificate, if any.
    pub fn client(&self, identity: Option<&Files>) -> Arc<ClientConfig> {
        self.client_of(identity, rustls::DEFAULT_VERSIONS)
    }

    /// The same, of these versions.
    pub fn client_of(
        &self,
        identity: Option<&Files>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in certificates(Path::new(&self.ca())) {
            roots.add(root).expect("it is one of a CA");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring knows them")
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("it is a key");
                let chain = certificates(Path::new(&files.cert));
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("they belong together")
            }
        })
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .expect("it is there")
        .collect();
    list.expect("it is PEM")
}

/// One connection to `localhost`.
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// Connects and shakes hands.
    #[track_caller]
    pub fn connect(port: u16, config: &Arc<ClientConfig>) -> TlsClient {
        TlsClient::try_connect(port, config).unwrap_or_else(|why| panic!("no TLS: {why}"))
    }

    /// The same, or why not.
    pub fn try_connect(port: u16, config: &Arc<ClientConfig>) -> Result<TlsClient, String> {
        let stream = tcp(port);
        let name = ServerName::try_from("localhost").expect("it is a name");
        let connection = ClientConnection::new(config.clone(), name).expect("it can begin");
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .map_err(|e| e.to_string())?;
        }
        Ok(TlsClient { stream })
    }

    /// The state of TLS and the socket, for those that pass the bytes by themselves.
    pub fn parts(&mut self) -> (&mut ClientConnection, &mut TcpStream) {
        (&mut self.stream.conn, &mut self.stream.sock)
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes bytes");
        self.stream.flush().expect("it takes bytes");
    }

    /// The next bytes are these.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        let read = self.stream.read_exact(&mut got);
        assert!(read.is_ok(), "{read:?}, wanted {}", show(bytes));
        assert!(got == bytes, "{} instead of {}", show(&got), show(bytes));
    }

    /// Sends a command and expects a reply.
    #[track_caller]
    pub fn call(&mut self, line: &str, reply: &str) {
        self.send(&super::resp::encode_line(line));
        self.expect(reply.as_bytes());
    }

    /// Whether it is answered.
    pub fn is_served(&mut self) -> bool {
        let sent = self
            .stream
            .write_all(b"PING\r\n")
            .and_then(|()| self.stream.flush());
        let mut got = [0; 7];
        sent.is_ok() && self.stream.read_exact(&mut got).is_ok() && &got == b"+PONG\r\n"
    }

    /// Says that it will send nothing more, and goes on reading.
    pub fn close_notify(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("it takes bytes");
    }

    /// What comes until the end, and whether the end was announced.
    #[track_caller]
    pub fn until_closed(&mut self) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Ok(_) => (got, true),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => (got, false),
            Err(e) => panic!("it fails: {e}, after {}", show(&got)),
        }
    }
}

/// A connection without TLS, patient as all of the tests are.
#[track_caller]
pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("somebody listens");
    stream.set_nodelay(true).expect("it is a socket");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a socket");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("it is a socket");
    stream
}

/// Waits until the proxy's log, which is written behind its back, has these words.
#[track_caller]
pub fn says(proxy: &Proxy, words: &str) {
    eventually(words, PATIENCE, || proxy.stderr().contains(words));
}
