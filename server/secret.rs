//! Secrets: randomness, text that is never shown, and sealing.
//!
//! A [`Sealer`] encrypts with XChaCha20-Poly1305 under one key.  A sealed value is bound to its place (table, column
//! and row), so that a ciphertext copied to another row does not open.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A source of unpredictable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills the whole of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A source that everybody shares.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Going on with bytes that are not random would be worse than ending the process.
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// Text that must not be shown: `Debug` hides it, and memory is wiped when it goes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
const VERSION: u8 = 1;

/// Where a sealed value lives; part of what is authenticated.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row's key.
    pub row: &'a str,
}

impl Place<'_> {
    fn associated_data(&self) -> String {
        // The lengths keep ("ab", "c") and ("a", "bc") apart.
        format!("{}:{}|{}:{}|{}", self.table.len(), self.table, self.column.len(), self.column, self.row)
    }
}

/// Seals and opens secrets under one key.
#[derive(Clone)]
pub struct Sealer {
    cipher: Arc<XChaCha20Poly1305>,
    random: SharedRandom,
}

impl Sealer {
    /// A sealer with this key.
    pub fn new(key: &[u8; KEY_LENGTH], random: SharedRandom) -> Self {
        Self { cipher: Arc::new(XChaCha20Poly1305::new(&Key::from(*key))), random }
    }

    /// Encrypts `plain` for this place: a version byte, the nonce, the ciphertext.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LENGTH];
        self.random.fill(&mut nonce);
        let associated = place.associated_data();
        let payload = Payload { msg: plain, aad: associated.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::internal("sealing a secret failed"))?;
        let mut out = Vec::with_capacity(1 + NONCE_LENGTH + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts what [`Sealer::seal`] made for the same place.
    ///
    /// # Errors
    /// When the key, the place or the bytes are not those of the sealing.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let failed =
            || Error::internal(format!("the secret in {}.{} does not open", place.table, place.column));
        let (version, rest) = sealed.split_first().ok_or_else(failed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or_else(failed)?;
        if *version != VERSION {
            return Err(failed());
        }
        let associated = place.associated_data();
        let payload = Payload { msg: ciphertext, aad: associated.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| failed())
    }

    /// Opens a sealed text.
    pub fn open_text(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretText> {
        let bytes = self.open(place, sealed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::internal("a sealed text is not UTF-8"))?;
        Ok(SecretText::new(text))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_at_its_place_and_unchanged() {
        let sealer = Sealer::new(&[7; KEY_LENGTH], Arc::new(SystemRandom));
        let here = Place { table: "webhooks", column: "secret", row: "wh_1" };
        let sealed = sealer.seal(here, b"whsec_abc").unwrap();
        assert_eq!(&*sealer.open(here, &sealed).unwrap(), b"whsec_abc");
        assert!(sealer.open(Place { row: "wh_2", ..here }, &sealed).is_err());
        assert!(sealer.open(Place { column: "other", ..here }, &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(sealer.open(here, &bent).is_err(), "byte {at}");
        }
        assert!(sealer.open(here, &[]).is_err());
        let other = Sealer::new(&[8; KEY_LENGTH], Arc::new(SystemRandom));
        assert!(other.open(here, &sealed).is_err());
    }

    #[test]
    fn secret_text_does_not_show() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2")), "[secret]");
    }
}
