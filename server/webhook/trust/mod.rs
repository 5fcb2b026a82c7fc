//! Trust between the server and an endpoint: the authorities that vouch for the endpoint beside the system's, and the
//! certificate that the server shows when the endpoint demands one (mutual TLS; RFC 8446, 4.3.2 and 4.4.2).
//!
//! Certificates are options of the endpoint.  The private key is sealed in a column of its own, is replaced together
//! with its certificate, and never leaves the server.

pub(super) mod explain;
pub(super) mod pem;
pub(super) mod store;
pub(super) mod watch;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::model::Webhook;
use crate::db::Conn;
use crate::error::{Result, Violations};
use crate::secret::{Place, Sealer, SecretText};

/// What an endpoint has of its own, as PEM; each is empty where it has nothing.
#[derive(Debug, Default)]
pub struct Trust<'a> {
    /// The authorities that are trusted beside the system's.
    pub ca_certificates: &'a str,
    /// The certificate that is shown, with its chain.
    pub client_certificate: &'a str,
    /// Its private key.
    pub client_key: SecretText,
}

/// Knows the same material from other.
pub(super) type Fingerprint = [u8; 32];

impl Trust<'_> {
    /// What an endpoint has; `sealed` is its key as it is kept.
    ///
    /// # Errors
    /// When the key does not open.
    pub(super) fn open<'a>(
        webhook: &'a Webhook,
        sealed: Option<&[u8]>,
        sealer: &Sealer,
    ) -> Result<Trust<'a>> {
        let options = &webhook.options;
        let key = sealed.map(|sealed| sealer.open_text(key_place(&webhook.id), sealed));
        Ok(Trust {
            ca_certificates: &options.ca_certificates,
            client_certificate: &options.client_certificate,
            client_key: key.transpose()?.unwrap_or_default(),
        })
    }

    /// Whether there is nothing that the other endpoints do not have.
    pub(super) fn is_empty(&self) -> bool {
        self.ca_certificates.is_empty() && self.client_certificate.is_empty()
    }

    /// The fingerprint of all of it.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        fingerprint(&[self.ca_certificates, self.client_certificate, self.client_key.reveal()])
    }

    /// Adds the authorities to those that are trusted.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn add_authorities(&self, roots: &mut RootCertStore) -> Result<(), String> {
        for authority in pem::certificates(self.ca_certificates)? {
            roots.add(authority).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The certificate with its chain and its key, if there is one.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        if self.client_certificate.is_empty() {
            return Ok(None);
        }
        Ok(Some((pem::certificates(self.client_certificate)?, pem::key(self.client_key.reveal())?)))
    }
}

/// The fingerprint of these texts in this order.
pub(super) fn fingerprint(texts: &[&str]) -> Fingerprint {
    let mut digest = Sha256::new();
    for text in texts {
        // The lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}

/// Where an endpoint's private key is kept.
fn key_place(id: &str) -> Place<'_> {
    Place { table: "webhooks", column: "client_key", row: id }
}

/// What becomes of an endpoint's private key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyChange {
    /// It stays.
    Keep,
    /// It goes with its certificate.
    Remove,
    /// This one takes its place.
    Set(SecretText),
}

impl KeyChange {
    /// Makes the change.
    pub(super) async fn apply(self, conn: &mut Conn, id: &str, sealer: &Sealer) -> Result<()> {
        match self {
            Self::Keep => Ok(()),
            Self::Remove => store::set_key(conn, id, None).await,
            Self::Set(key) => {
                let sealed = sealer.seal(key_place(id), key.reveal().as_bytes())?;
                store::set_key(conn, id, Some(sealed)).await
            }
        }
    }
}

/// Checks what an endpoint is to have, and says what becomes of its key: `former` is the certificate that it had, and
/// `key` the one that came with the change.
///
/// The key belongs to its certificate: it comes with it and goes with it.  Since it is never shown, none that comes
/// with the certificate that is there means the one that is there.
pub(super) fn check(
    webhook: &Webhook,
    former: &str,
    key: Option<SecretText>,
    violations: &mut Violations,
) -> KeyChange {
    const CA: &str = "webhook.ca_certificates";
    const CERTIFICATE: &str = "webhook.client_certificate";
    const KEY: &str = "webhook.client_key";
    let options = &webhook.options;
    let plain = webhook.url.starts_with("http:");
    for (field, text) in [(CA, &options.ca_certificates), (CERTIFICATE, &options.client_certificate)] {
        violations.require(text.is_empty() || !plain, field, "needs an https URL");
    }
    violations.check(CA, pem::check_authorities(&options.ca_certificates));
    let certificate = &options.client_certificate;
    let key = key.filter(|key| !key.reveal().is_empty());
    if certificate.is_empty() {
        violations.require(key.is_none(), KEY, "needs a client_certificate");
        return if former.is_empty() { KeyChange::Keep } else { KeyChange::Remove };
    }
    let chain = violations.check(CERTIFICATE, pem::check_chain(certificate));
    match key {
        Some(key) => {
            let signer = violations.check(KEY, pem::check_key(key.reveal()));
            if let (Some(chain), Some(signer)) = (chain, signer) {
                let matches = pem::matches(chain, signer);
                violations.require(matches, KEY, "does not belong to the client_certificate");
            }
            KeyChange::Set(key)
        }
        None => {
            let kept = certificate.trim() == former.trim();
            violations.require(kept, KEY, "is required with a new client_certificate");
            KeyChange::Keep
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
