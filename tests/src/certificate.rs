//! A certificate for a zone, signed by an authority that clients can be told to trust.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::witness::Authority;

/// A certificate for a zone and all names directly under it, its key and its authority, as files.
#[derive(Debug)]
pub struct Wildcard {
    authority: Authority,
    key_hash: String,
    dir: TempDir,
}

impl Wildcard {
    /// Makes all three.
    pub fn new(zone: &str) -> Self {
        let (issuer, authority) = Authority::new();
        let names = vec![zone.to_owned(), format!("*.{zone}")];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pairs = dir.path().join("pairs");
        fs::create_dir(&pairs).expect("a directory");
        for (path, text) in [
            (dir.path().join("authority.pem"), authority.pem.clone()),
            (pairs.join("zone.pem"), certificate.pem()),
            (pairs.join("zone.key"), key.serialize_pem()),
        ] {
            fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        let key_hash = STANDARD.encode(Sha256::digest(key.subject_public_key_info()));
        Self {
            authority,
            key_hash,
            dir,
        }
    }

    /// Who signed it.
    pub fn issuer(&self) -> &Authority {
        &self.authority
    }

    /// The authority's certificate, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`, in base64, as browsers take it.
    pub fn key_hash(&self) -> &str {
        &self.key_hash
    }

    /// A directory as `block_page.certificates` wants it, with nothing but this pair.
    pub fn directory(&self) -> PathBuf {
        self.dir.path().join("pairs")
    }

    /// The certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.directory().join("zone.pem")
    }

    /// Its key, in PEM.
    pub fn key(&self) -> PathBuf {
        self.directory().join("zone.key")
    }
}
