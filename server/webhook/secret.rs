//! Secrets: what requests are signed with, as they are written, made and checked.
//!
//! * `whsec_` and the base64 of 24 to 64 bytes: a key that both sides know (HMAC-SHA256).
//! * `whsk_` and base64: an Ed25519 private key, its 32-byte seed or seed and public key; `whpk_` is its public key.
//!
//! Both forms are those of Standard Webhooks 1.0.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::{Random, SecretText};

const SYMMETRIC: &str = "whsec_";
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
/// How many bytes a key of the caller's own has.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
const GENERATED: usize = 32;
const SEED: usize = 32;

/// How requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// With a key that both sides know.
    Hmac,
    /// With a private key that only the server has.
    Ed25519,
}

/// A key that is ready to sign with.
pub enum Key {
    /// A key that both sides know.
    Hmac(Box<SharedKey>),
    /// A private key.
    Ed25519(Box<Ed25519KeyPair>),
}

/// A key that both sides know, expanded once.
pub struct SharedKey {
    /// Keyed with the secret as it is written.
    pub plain: Hmac<Sha256>,
    /// Keyed with the bytes that its base64 part stands for.
    pub standard: Hmac<Sha256>,
}

impl Key {
    /// Reads a secret.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(secret: &SecretText) -> Result<Self, String> {
        let text = secret.reveal();
        let bytes = |base64: &str| {
            STANDARD
                .decode(base64)
                .map(Zeroizing::new)
                .map_err(|_| "has a part that is not base64".to_owned())
        };
        if let Some(base64) = text.strip_prefix(SYMMETRIC) {
            let bytes = bytes(base64)?;
            if !LENGTHS.contains(&bytes.len()) {
                return Err(format!("must stand for 24 to 64 bytes, and has {}", bytes.len()));
            }
            let keyed = |key: &[u8]| Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
            let key = SharedKey { plain: keyed(text.as_bytes()), standard: keyed(&bytes) };
            return Ok(Self::Hmac(Box::new(key)));
        }
        let Some(base64) = text.strip_prefix(PRIVATE) else {
            return Err("must begin with whsec_, or with whsk_ for Ed25519".into());
        };
        let bytes = bytes(base64)?;
        let pair = match bytes.len() {
            SEED => Ed25519KeyPair::from_seed_unchecked(&bytes),
            64 => Ed25519KeyPair::from_seed_and_public_key(&bytes[..SEED], &bytes[SEED..]),
            other => return Err(format!("must stand for 32 or 64 bytes, and has {other}")),
        };
        let pair = pair.map_err(|_| "has a public key that does not belong to its seed".to_owned())?;
        Ok(Self::Ed25519(Box::new(pair)))
    }

    /// How it signs.
    pub fn signing(&self) -> Signing {
        match self {
            Self::Hmac(_) => Signing::Hmac,
            Self::Ed25519(_) => Signing::Ed25519,
        }
    }

    /// The bytes of its public key; `None` for one that both sides know.
    pub fn public_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Hmac(_) => None,
            Self::Ed25519(pair) => Some(pair.public_key().as_ref()),
        }
    }

    /// Its public key as it is written; empty for one that both sides know.
    pub fn public_text(&self) -> String {
        let written = |bytes| format!("{PUBLIC}{}", STANDARD.encode(bytes));
        self.public_bytes().map(written).unwrap_or_default()
    }
}

/// Makes a secret of 256 random bits.
pub fn generate(signing: Signing, random: &dyn Random) -> SecretText {
    let mut bytes = Zeroizing::new([0; GENERATED]);
    random.fill(&mut *bytes);
    let prefix = match signing {
        Signing::Hmac => SYMMETRIC,
        Signing::Ed25519 => PRIVATE,
    };
    SecretText::new(format!("{prefix}{}", STANDARD.encode(*bytes)))
}

/// The secret that a caller brings, or one that is made; with its key.
///
/// # Errors
/// What is wrong with the caller's own.
pub fn choose(own: SecretText, signing: Signing, random: &dyn Random) -> Result<(SecretText, Key), String> {
    let secret = if own.reveal().is_empty() { generate(signing, random) } else { own };
    let key = Key::read(&secret)?;
    if key.signing() != signing {
        return Err(match signing {
            Signing::Hmac => "is an Ed25519 key, and the endpoint signs with HMAC".into(),
            Signing::Ed25519 => "is a key for HMAC, and the endpoint signs with Ed25519".into(),
        });
    }
    Ok((secret, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemRandom;

    #[test]
    fn what_is_made_differs_and_can_be_read() {
        for signing in [Signing::Hmac, Signing::Ed25519] {
            let (one, other) = (generate(signing, &SystemRandom), generate(signing, &SystemRandom));
            assert!(one != other);
            assert_eq!(Key::read(&one).map(|key| key.signing()), Ok(signing));
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_reason() {
        let refused = |text: &str| Key::read(&SecretText::new(text)).err().unwrap();
        assert!(refused("hunter2").contains("must begin with"));
        assert!(refused("whsec_?").contains("base64"));
        assert!(refused("whsec_c2hvcnQ=").contains("has 5"));
        assert!(refused(&format!("whsec_{}", STANDARD.encode([1; 65]))).contains("has 65"));
        assert!(refused(&format!("whsk_{}", STANDARD.encode([1; 31]))).contains("has 31"));
        assert!(refused(&format!("whsk_{}", STANDARD.encode([1; 64]))).contains("does not belong"));
    }

    /// RFC 8032, 7.1, test 1.
    #[test]
    fn a_private_key_has_the_public_key_of_the_rfc() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let both = [bytes(seed), bytes(public)].concat();
        for written in [bytes(seed), both] {
            let key = Key::read(&SecretText::new(format!("whsk_{}", STANDARD.encode(written)))).unwrap();
            assert_eq!(key.public_text(), format!("whpk_{}", STANDARD.encode(bytes(public))));
        }
    }
}
