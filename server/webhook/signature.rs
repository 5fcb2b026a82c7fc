//! Signatures: two schemes on each request.
//!
//! * `x-webhook-signature: sha256=<hex>` is the HMAC-SHA256 of the body, keyed with the secret as it is written.  It holds
//!   one signature only: that of the newest secret.
//! * `webhook-signature` is Standard Webhooks 1.0.0: over `id.timestamp.body`, `v1,<base64>` with HMAC-SHA256 or
//!   `v1a,<base64>` with Ed25519; one for each secret that has not ended, newest first, with spaces between.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac;
use http::HeaderMap;

use super::message::{SIGNATURE, STANDARD_SIGNATURE};
use super::secret::Key;
use crate::clock::Timestamp;

/// Which of the two schemes requests are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schemes {
    /// Both.
    #[default]
    Both,
    /// `webhook-signature` alone.
    Standard,
    /// `x-webhook-signature` alone, at endpoints that can have it.
    Plain,
}

impl Schemes {
    /// Those of a name; both for any other.
    pub fn named(name: &str) -> Self {
        match name {
            "standard" => Self::Standard,
            "plain" => Self::Plain,
            _ => Self::Both,
        }
    }

    /// Takes the others off a request.  None goes out without a signature.
    pub(super) fn keep(self, headers: &mut HeaderMap) {
        match self {
            Self::Both => {}
            Self::Standard => drop(headers.remove(SIGNATURE)),
            Self::Plain if headers.contains_key(SIGNATURE) => drop(headers.remove(STANDARD_SIGNATURE)),
            Self::Plain => {}
        }
    }
}

/// Signs for one endpoint.
pub struct Signer {
    newest: Key,
    /// Those that were replaced, with their ends; newest first.
    former: Vec<(Key, Timestamp)>,
}

impl Signer {
    /// A signer with these keys.
    pub fn new(newest: Key, former: Vec<(Key, Timestamp)>) -> Self {
        Self { newest, former }
    }

    /// The keys that sign at this time, newest first.
    pub fn keys(&self, now: Timestamp) -> impl Iterator<Item = &Key> {
        let former = self.former.iter().filter(move |(_, end)| *end > now).map(|(key, _)| key);
        std::iter::once(&self.newest).chain(former)
    }

    /// The value of `x-webhook-signature`; `None` when no key is one that both sides know.
    pub fn plain(&self, body: &[u8], now: Timestamp) -> Option<String> {
        let mut mac = self.keys(now).find_map(|key| match key {
            Key::Hmac(key) => Some(key.plain.clone()),
            Key::Ed25519(_) => None,
        })?;
        mac.update(body);
        let mut value = String::with_capacity(7 + 64);
        value.push_str("sha256=");
        for byte in mac.finalize().into_bytes() {
            write!(value, "{byte:02x}").expect("writing to memory");
        }
        Some(value)
    }

    /// The value of `webhook-signature`; the request says that it was made `now`, in seconds.
    pub fn standard(&self, id: &str, body: &[u8], now: Timestamp) -> String {
        let head = format!("{id}.{}.", now.seconds());
        let mut value = String::with_capacity(48);
        for key in self.keys(now) {
            if !value.is_empty() {
                value.push(' ');
            }
            match key {
                Key::Hmac(key) => {
                    let mut mac = key.standard.clone();
                    mac.update(head.as_bytes());
                    mac.update(body);
                    value.push_str("v1,");
                    STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
                }
                Key::Ed25519(pair) => {
                    let signature = pair.sign(&[head.as_bytes(), body].concat());
                    value.push_str("v1a,");
                    STANDARD.encode_string(signature.as_ref(), &mut value);
                }
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretText;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn key(text: &str) -> Key {
        Key::read(&SecretText::new(text)).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_parts(seconds, 0)
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_standard_signature_is_that_of_the_specification() {
        let signer = Signer::new(key(SECRET), Vec::new());
        let signature =
            signer.standard("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, at(1_614_265_330));
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn none_goes_out_without_a_signature() {
        for (schemes, left) in [
            (Schemes::Both, [true, true]),
            (Schemes::Standard, [false, true]),
            (Schemes::Plain, [true, false]),
        ] {
            let value = http::HeaderValue::from_static("x");
            let mut headers =
                HeaderMap::from_iter([(SIGNATURE, value.clone()), (STANDARD_SIGNATURE, value.clone())]);
            schemes.keep(&mut headers);
            assert_eq!([SIGNATURE, STANDARD_SIGNATURE].map(|name| headers.contains_key(name)), left);
            let mut headers = HeaderMap::from_iter([(STANDARD_SIGNATURE, value)]);
            schemes.keep(&mut headers);
            assert!(headers.contains_key(STANDARD_SIGNATURE), "{schemes:?}");
        }
    }

    /// RFC 4231 has no case with a text key of this form, so that the value was computed with Python's hmac.
    #[test]
    fn the_plain_signature_is_keyed_with_the_secret_as_written() {
        let signature = Signer::new(key(SECRET), Vec::new()).plain(b"hello", at(0));
        let expected = "sha256=c770c8b4e83a988d5236a41db64cb85cf40319a4d0c94a69aacc5703cf225ee4";
        assert_eq!(signature.as_deref(), Some(expected));
    }

    #[test]
    fn former_secrets_sign_until_they_end() {
        let pair = key("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
        let signer = Signer::new(pair, vec![(key(SECRET), at(100))]);
        let both = signer.standard("id", b"body", at(99));
        let schemes: Vec<_> = both.split(' ').map(|one| one.split_once(',').unwrap().0).collect();
        assert_eq!(schemes, ["v1a", "v1"]);
        assert!(signer.plain(b"body", at(99)).is_some());
        let one = signer.standard("id", b"body", at(100));
        assert!(one.starts_with("v1a,") && !one.contains(' '));
        assert_eq!(signer.plain(b"body", at(100)), None);
    }
}
