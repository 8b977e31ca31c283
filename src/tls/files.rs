//! Certificates and keys from files, in PEM, with words for what is wrong with them.
//!
//! It may block: it is called at the start and by the helper thread. It never prints what a file holds.
#![forbid(unsafe_code)]

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// A file is read up to here: no chain and no bundle of CAs is larger.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a key of the configuration names.
pub(super) struct Named<'a> {
    /// The key.
    pub(super) key: &'static str,
    /// The file.
    pub(super) path: &'a Path,
}

impl Named<'_> {
    /// One line about this file.
    pub(super) fn wrong(&self, what: &str) -> String {
        format!("{}={}: {what}", self.key, self.path.display())
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.path).map_err(|e| self.wrong(&e.to_string()))?;
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|e| self.wrong(&e.to_string()))?;
        Ok(bytes)
    }

    /// All certificates of the file, in its order.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let bytes = self.read()?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match read {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(self.wrong("there is no certificate in it (want PEM)")),
            Err(e) => Err(self.wrong(&format!("it is no PEM: {e}"))),
        }
    }

    /// The first private key of the file.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let mut bytes = self.read()?;
        let read = PrivateKeyDer::from_pem_slice(&bytes);
        let is_encrypted = bytes.windows(9).any(|word| word == b"ENCRYPTED");
        // What is not needed any more is not left in memory.
        bytes.fill(0);
        std::hint::black_box(&bytes);
        read.map_err(|e| match e {
            _ if is_encrypted => {
                self.wrong("its key is encrypted; nobody is here to say the password")
            }
            pem::Error::NoItemsFound => self.wrong("there is no private key in it (want PEM)"),
            e => self.wrong(&format!("it is no PEM: {e}")),
        })
    }

    /// The certificates of the file as those that are trusted to sign others.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|e| self.wrong(&format!("a certificate in it is of no use: {e}")))?;
        }
        Ok(roots)
    }
}
