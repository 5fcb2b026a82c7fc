//! Certificates and keys as PEM (RFC 7468): read, and judged before they are kept.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};

/// The most text of each, in bytes.
const TEXT_LIMIT: usize = 32 * 1024;
/// The most certificates of each.
const CERTIFICATE_LIMIT: usize = 20;

/// The certificates in a text, in their order.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))
}

/// The first private key in a text.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn key(text: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        Error::NoItemsFound if text.contains("ENCRYPTED") => "must not be encrypted".to_owned(),
        Error::NoItemsFound => "must be a private key as PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned(),
        error => unreadable(&error),
    })
}

fn unreadable(error: &Error) -> String {
    // The error's own text can have lines of what it could not read, and that can be a key.
    let what = match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section's first line is malformed",
        _ => "a section is not base64",
    };
    format!("must be PEM: {what}")
}

/// Checks authorities; nothing is none.
pub(super) fn check_authorities(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let mut roots = RootCertStore::empty();
    for (index, authority) in bounded(text)?.into_iter().enumerate() {
        let number = index + 1;
        roots.add(authority).map_err(|error| format!("number {number} can not be trusted: {error}"))?;
    }
    Ok(())
}

/// Checks a certificate with its chain.
pub(super) fn check_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = bounded(text)?;
    for (index, certificate) in chain.iter().enumerate() {
        let number = index + 1;
        ParsedCertificate::try_from(certificate)
            .map_err(|error| format!("number {number} can not be used: {error}"))?;
    }
    Ok(chain)
}

/// Checks a private key.
pub(super) fn check_key(text: &str) -> Result<Arc<dyn SigningKey>, String> {
    limit(text)?;
    any_supported_type(&key(text)?)
        .map_err(|_| "must be RSA of 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519".to_owned())
}

/// Whether a private key belongs to the first certificate of a chain.
pub(super) fn matches(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> bool {
    CertifiedKey::new(chain, key).keys_match().is_ok()
}

fn bounded(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    limit(text)?;
    // They are kept in the open and shown.
    if text.contains("PRIVATE KEY") {
        return Err("must be certificates alone, without a private key".into());
    }
    match certificates(text)? {
        none if none.is_empty() => Err("must be certificates as PEM".into()),
        many if many.len() > CERTIFICATE_LIMIT => {
            Err(format!("must have at most {CERTIFICATE_LIMIT} certificates"))
        }
        some => Ok(some),
    }
}

fn limit(text: &str) -> Result<(), String> {
    if text.len() > TEXT_LIMIT { Err("must have at most 32 KiB".into()) } else { Ok(()) }
}
