//! Secrets: randomness, text that is never shown, and sealing.
//!
//! A [`Sealer`] encrypts with XChaCha20-Poly1305.  A sealed value is bound to its place (table, column and row), so that a
//! ciphertext copied to another row does not open.  It names the key of the [`Ring`] that sealed it, so that keys can be
//! replaced while there are values under the old one.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
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
/// A version byte, the nonce, the ciphertext.
const UNNAMED: u8 = 1;
/// A version byte, the number of the key, the nonce, the ciphertext.
const NAMED: u8 = 2;

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

/// What is authenticated beside the ciphertext: the place, and the number of the key.
fn associated_data(place: Place<'_>, head: &[u8]) -> Vec<u8> {
    let Place { table, column, row } = place;
    // The lengths keep ("ab", "c") and ("a", "bc") apart.
    let mut data = format!("{}:{table}|{}:{column}|{row}", table.len(), column.len()).into_bytes();
    data.extend_from_slice(&head[1..]);
    data
}

/// How a value begins that this key sealed.
pub fn named_by(number: KeyNumber) -> Vec<u8> {
    [&[NAMED], &number[..]].concat()
}

fn cipher(key: &[u8; KEY_LENGTH]) -> Arc<XChaCha20Poly1305> {
    Arc::new(XChaCha20Poly1305::new(&Key::from(*key)))
}

/// What a sealed value calls the key that sealed it.
pub type KeyNumber = [u8; 8];

/// A key that seals, with the number that values know it by.
#[derive(Clone)]
pub struct RingKey {
    number: Option<KeyNumber>,
    cipher: Arc<XChaCha20Poly1305>,
}

impl RingKey {
    /// A key with its number.
    pub fn new(number: KeyNumber, key: &[u8; KEY_LENGTH]) -> Self {
        Self { number: Some(number), cipher: cipher(key) }
    }

    /// The number.
    pub fn number(&self) -> Option<KeyNumber> {
        self.number
    }
}

/// The keys that there are: one seals, and all open.
#[derive(Clone)]
pub struct Ring {
    /// Counts the changes of the keys; of two rings the one with the greater number is the newer.
    pub revision: i64,
    /// Seals.
    pub active: RingKey,
    /// Open what they sealed in their time.
    pub retired: Vec<RingKey>,
    /// Are gone from the database.  What was read just before it still opens.
    pub dropped: Vec<RingKey>,
}

impl Ring {
    fn all(&self) -> impl Iterator<Item = &RingKey> {
        [&self.active].into_iter().chain(&self.retired).chain(&self.dropped)
    }

    /// The key with this number.
    pub fn find(&self, number: KeyNumber) -> Option<&RingKey> {
        self.all().find(|key| key.number == Some(number))
    }
}

/// The master keys that may be the right one, each time anew: one may be replaced while the server runs.
pub trait MasterKeys: Send + Sync + 'static {
    /// The keys, the likeliest first.
    ///
    /// # Errors
    /// When one can not be read.
    fn candidates(&self) -> Result<Vec<Zeroizing<[u8; KEY_LENGTH]>>>;

    /// This one is the right one.
    fn opened(&self, _key: &[u8; KEY_LENGTH]) {}
}

impl MasterKeys for [u8; KEY_LENGTH] {
    fn candidates(&self) -> Result<Vec<Zeroizing<[u8; KEY_LENGTH]>>> {
        Ok(vec![Zeroizing::new(*self)])
    }
}

/// Seals and opens secrets, under one key or under those of a ring.
#[derive(Clone)]
pub struct Sealer {
    ring: Arc<ArcSwap<Ring>>,
    masters: Option<Arc<dyn MasterKeys>>,
    random: SharedRandom,
}

impl Sealer {
    /// A sealer with this key, whose values do not name it.
    pub fn new(key: &[u8; KEY_LENGTH], random: SharedRandom) -> Self {
        let active = RingKey { number: None, cipher: cipher(key) };
        let ring = Ring { revision: 0, active, retired: Vec::new(), dropped: Vec::new() };
        Self { ring: Arc::new(ArcSwap::from_pointee(ring)), masters: None, random }
    }

    /// A sealer with the keys of a ring, which these master keys unwrap.
    pub fn with_ring(ring: Ring, masters: Arc<dyn MasterKeys>, random: SharedRandom) -> Self {
        Self { ring: Arc::new(ArcSwap::from_pointee(ring)), masters: Some(masters), random }
    }

    /// The keys now.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Takes the keys of a newer ring, here and in every clone; an older one changes nothing.
    pub fn renew(&self, ring: Ring) {
        let ring = Arc::new(ring);
        self.ring.rcu(|known| if known.revision >= ring.revision { known.clone() } else { ring.clone() });
    }

    /// What unwraps the keys of the ring; `None` for a sealer with one key.
    pub fn masters(&self) -> Option<&Arc<dyn MasterKeys>> {
        self.masters.as_ref()
    }

    /// Where its nonces come from.
    pub fn random(&self) -> SharedRandom {
        self.random.clone()
    }

    /// Whether the key that seals now sealed this.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        self.ring.load().active.number.is_some_and(|number| sealed.starts_with(&named_by(number)))
    }

    /// Encrypts `plain` for this place.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.ring.load().active.clone();
        let mut nonce = [0; NONCE_LENGTH];
        self.random.fill(&mut nonce);
        let mut out = key.number.map_or_else(|| vec![UNNAMED], named_by);
        let associated = associated_data(place, &out);
        let payload = Payload { msg: plain, aad: &associated };
        let sealed = key
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::internal("sealing a secret failed"))?;
        out.reserve(NONCE_LENGTH + sealed.len());
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
        let ring = self.ring.load();
        let (head, keys): (_, Vec<&RingKey>) = match sealed.first() {
            // Made before values named their key: there are few, and the wrong ones do not open it.
            Some(&UNNAMED) => (1, ring.all().collect()),
            Some(&NAMED) => {
                let (_, rest) = sealed.split_first().ok_or_else(failed)?;
                let number = rest.first_chunk().ok_or_else(failed)?;
                (1 + number.len(), ring.find(*number).into_iter().collect())
            }
            _ => return Err(failed()),
        };
        let (head, rest) = sealed.split_at(head);
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or_else(failed)?;
        let associated = associated_data(place, head);
        let open = |key: &RingKey| {
            key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: &associated }).ok()
        };
        keys.into_iter().find_map(open).map(Zeroizing::new).ok_or_else(failed)
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

    fn ring(revision: i64, active: u8, retired: &[u8]) -> Ring {
        let key = |of: u8| RingKey::new([of; 8], &[of; KEY_LENGTH]);
        let retired = retired.iter().map(|&of| key(of)).collect();
        Ring { revision, active: key(active), retired, dropped: Vec::new() }
    }

    #[test]
    fn a_ring_seals_under_its_active_key_and_opens_under_all() {
        let random: SharedRandom = Arc::new(SystemRandom);
        let here = Place { table: "webhooks", column: "secret", row: "wh_1" };
        let unnamed = Sealer::new(&[1; KEY_LENGTH], random.clone()).seal(here, b"a").unwrap();
        let sealer = Sealer::with_ring(ring(1, 1, &[]), Arc::new([0; KEY_LENGTH]), random);
        let first = sealer.seal(here, b"b").unwrap();
        assert!(first.starts_with(&named_by([1; 8])));
        assert!(sealer.is_current(&first) && !sealer.is_current(&unnamed));

        let clone = sealer.clone();
        sealer.renew(ring(2, 2, &[1]));
        let second = clone.seal(here, b"c").unwrap();
        assert!(second.starts_with(&named_by([2; 8])), "a clone knows it too");
        for (sealed, plain) in [(&unnamed, b"a"), (&first, b"b"), (&second, b"c")] {
            assert_eq!(&*clone.open(here, sealed).unwrap(), plain);
        }
        for at in 0..second.len() {
            let mut bent = second.clone();
            bent[at] ^= 1;
            assert!(sealer.open(here, &bent).is_err(), "byte {at}");
            assert!(sealer.open(here, &second[..at]).is_err(), "{at} bytes");
        }
        let mut renamed = first.clone();
        renamed[1..9].copy_from_slice(&[2; 8]);
        assert!(sealer.open(here, &renamed).is_err(), "a key's number is authenticated");

        sealer.renew(ring(1, 1, &[]));
        assert!(sealer.is_current(&second), "an older ring changes nothing");
        sealer.renew(ring(3, 2, &[]));
        assert!(sealer.open(here, &first).is_err() && sealer.open(here, &second).is_ok());
    }

    #[test]
    fn secret_text_does_not_show() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2")), "[secret]");
    }
}
