//! Reads the port's certificate, its key and the authorities of clients, and says in words what is wrong with them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::Files;
use crate::error::{Error, Result, Violations};

/// What is spoken, as ALPN names it, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reads the files.
///
/// # Errors
/// `INVALID_ARGUMENT` with all that is wrong with them.
pub(super) fn load(files: &Files) -> Result<ServerConfig> {
    let mut violations = Violations::default();
    let name = |what: &str, path: &Path| format!("the TLS {what} {}", path.display());
    let chain = violations.check(&name("certificate", &files.certificate), certificates(&files.certificate));
    let key = violations.check(&name("key", &files.key), key(&files.key));
    let roots = files.client_authority.as_deref().map(|path| {
        let read = certificates(path).and_then(|authorities| roots(&authorities));
        violations.check(&name("client authority", path), read)
    });
    let identity = chain.zip(key).and_then(|(chain, key)| {
        violations.check(&name("certificate", &files.certificate), identity(chain, &key))
    });
    violations.finish()?;
    let identity = identity.ok_or_else(|| Error::internal("a certificate is neither good nor bad"))?;
    config(identity, roots.flatten())
}

fn config(identity: CertifiedKey, roots: Option<RootCertStore>) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(Error::internal)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Only(Arc::new(identity))));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// The one certificate, whatever name a client asks for.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    let key = rustls::crypto::ring::sign::any_supported_type(key).map_err(
        |_| "has a key that must be RSA of 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519",
    )?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => Err("does not belong to the key".into()),
        Err(error) => Err(format!("can not be used: {error}")),
    }
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in authorities.iter().enumerate() {
        let number = index + 1;
        roots
            .add(authority.clone())
            .map_err(|error| format!("number {number} can not be trusted: {error}"))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))?;
    if certificates.is_empty() {
        return Err("has no certificate as PEM".into());
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if text.windows(9).any(|part| part == b"ENCRYPTED") => {
            "is encrypted, and must not be".to_owned()
        }
        pem::Error::NoItemsFound => "has no private key as PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned(),
        error => unreadable(&error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("can not be read: {error}"))
}

fn unreadable(error: &pem::Error) -> String {
    // The error's own text can have lines of what it could not read, and that can be a key.
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section's first line is malformed",
        _ => "a section is not base64",
    };
    format!("is not PEM: {what}")
}
