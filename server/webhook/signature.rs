//! Signatures: two schemes on each request, over one secret.
//!
//! * `x-webhook-signature: sha256=<hex>` is the HMAC-SHA256 of the body, keyed with the secret as it is written.
//! * `webhook-signature: v1,<base64>` is Standard Webhooks 1.0.0: the HMAC-SHA256 of `id.timestamp.body`, keyed with the
//!   bytes that the secret's base64 part stands for.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::{Random, SecretText};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 32;

/// Makes a secret of 256 random bits.
pub fn generate(random: &dyn Random) -> SecretText {
    let mut bytes = zeroize::Zeroizing::new([0; SECRET_BYTES]);
    random.fill(&mut *bytes);
    SecretText::new(format!("{PREFIX}{}", STANDARD.encode(*bytes)))
}

/// Signs for one endpoint; the keys are expanded once.
#[derive(Clone)]
pub struct Signer {
    plain: Hmac<Sha256>,
    standard: Hmac<Sha256>,
}

impl Signer {
    /// A signer with this secret; `None` when it is not a `whsec_` secret.
    pub fn new(secret: &SecretText) -> Option<Self> {
        let text = secret.reveal();
        let bytes = zeroize::Zeroizing::new(STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?);
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).ok();
        Some(Self { plain: keyed(text.as_bytes())?, standard: keyed(&bytes)? })
    }

    /// The value of `x-webhook-signature`.
    pub fn plain(&self, body: &[u8]) -> String {
        let mut mac = self.plain.clone();
        mac.update(body);
        let mut value = String::with_capacity(7 + 64);
        value.push_str("sha256=");
        for byte in mac.finalize().into_bytes() {
            write!(value, "{byte:02x}").expect("writing to memory");
        }
        value
    }

    /// The value of `webhook-signature`; `timestamp` is in seconds since 1970.
    pub fn standard(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.standard.clone();
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_standard_signature_is_that_of_the_specification() {
        let signer = Signer::new(&SecretText::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature =
            signer.standard("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// RFC 4231 has no case with a text key of this form, so that the value was computed with Python's hmac.
    #[test]
    fn the_plain_signature_is_keyed_with_the_secret_as_written() {
        let signer = Signer::new(&SecretText::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        assert_eq!(
            signer.plain(b"hello"),
            "sha256=c770c8b4e83a988d5236a41db64cb85cf40319a4d0c94a69aacc5703cf225ee4"
        );
    }

    #[test]
    fn secrets_differ_and_can_sign() {
        let one = generate(&crate::secret::SystemRandom);
        let other = generate(&crate::secret::SystemRandom);
        assert!(one != other && Signer::new(&one).is_some());
        assert!(Signer::new(&SecretText::new("hunter2")).is_none());
    }
}
