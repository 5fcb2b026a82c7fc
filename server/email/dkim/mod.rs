//! Signatures by which a recipient's server knows who answers for a mail (DKIM, RFC 6376; Ed25519, RFC 8463).
//!
//! Every signature covers the same body in relaxed form, hashed once.  The headers are oversigned: each is named once more
//! than there are of it, so that a second Subject or a foreign List-Unsubscribe breaks the signature.  A signature does
//! not end: a mail that waits in somebody's queue for a week is still ours.

mod canonical;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{self, SHA256};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::address::domain_to_ascii;
use super::config::EmailConfig;
use crate::clock::Timestamp;

/// What is signed, whether or not a mail has it.
const HEADERS: &[&str] = &[
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "in-reply-to",
    "references",
];
/// Where lines of a signature are folded.
const FOLD: usize = 72;

/// A key that signs for a domain.
#[derive(Debug)]
pub struct Signer {
    domain: String,
    selector: String,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    /// A signer with a private key: Ed25519 or RSA of at least 2048 bits as PKCS #8 PEM, or RSA as PKCS #1 PEM.
    ///
    /// # Errors
    /// What is wrong with the key, the domain or the selector.
    pub fn new(domain: &str, selector: &str, pem: &str) -> Result<Self, String> {
        check_selector(selector)?;
        let domain = domain_to_ascii(domain)?;
        let key = PrivateKeyDer::from_pem_slice(pem.trim().as_bytes())
            .map_err(|_| "is not a private key as PEM".to_owned())?;
        let weak = |why: ring::error::KeyRejected| format!("is not an RSA key of at least 2048 bits: {why}");
        let key = match key {
            PrivateKeyDer::Pkcs1(der) => {
                Key::Rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(weak)?)
            }
            // Keys of OpenSSL come without their public half.
            PrivateKeyDer::Pkcs8(der) => {
                match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()) {
                    Ok(key) => Key::Ed25519(key),
                    Err(_) => Key::Rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|why| {
                        format!("is neither an Ed25519 key nor an RSA key of at least 2048 bits: {why}")
                    })?),
                }
            }
            _ => return Err("must be an Ed25519 or RSA key: DKIM has no other".into()),
        };
        Ok(Self { domain, selector: selector.to_ascii_lowercase(), key })
    }

    /// The DNS record that the domain needs: its name and its value, a TXT (RFC 6376, section 3.6).
    pub fn dns_record(&self) -> (String, String) {
        let (kind, key) = match &self.key {
            Key::Ed25519(key) => ("ed25519", key.public_key().as_ref().to_vec()),
            Key::Rsa(key) => ("rsa", subject_public_key_info(key.public_key().as_ref())),
        };
        let name = format!("{}._domainkey.{}", self.selector, self.domain);
        (name, format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(key)))
    }

    /// Whether a signature takes so long (RSA, some 0.3 ms and more) that it is to be made where blocking is allowed.
    pub fn is_slow(&self) -> bool {
        matches!(self.key, Key::Rsa(_))
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Ed25519(_) => "ed25519-sha256",
            Key::Rsa(_) => "rsa-sha256",
        }
    }

    fn signature(&self, signed: &[u8]) -> Option<Vec<u8>> {
        match &self.key {
            // RFC 8463, section 3: the hash is what is signed.
            Key::Ed25519(key) => Some(key.sign(digest::digest(&SHA256, signed).as_ref()).as_ref().to_vec()),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                // The randomness blinds the computation; the signature does not depend on it.
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

/// Checks a selector: labels of a domain name.
///
/// # Errors
/// What is wrong with it.
pub fn check_selector(selector: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    let good = selector.len() <= 200 && selector.split('.').all(label);
    good.then_some(()).ok_or_else(|| format!("{selector:?} is not a selector: letters, digits, - and _"))
}

/// A public RSA key as the DNS has it: RFC 8017's structure in RFC 5280's envelope.
fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    /// The identifier of rsaEncryption with its empty parameters.
    const ALGORITHM: &[u8] =
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits: Vec<u8> = [&[0], key].concat();
    der(0x30, &[ALGORITHM, &der(0x03, &bits)].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        // At most eight bytes.
        out.push(0x80 | length.len() as u8);
    }
    out.extend_from_slice(if content.is_empty() { &[0] } else { length });
    out.extend_from_slice(content);
    out
}

/// The `DKIM-Signature` headers of a message, one per signer, to be put in front of it.
///
/// The message has CRLF at the end of each line.
pub fn sign(signers: &[Signer], message: &[u8], now: Timestamp) -> String {
    if signers.is_empty() {
        return String::new();
    }
    let (head, body) = canonical::split(message);
    let body_hash = STANDARD.encode(canonical::body_hash(body));
    let fields = canonical::fields(head);
    let (mut names, mut covered) = (Vec::new(), Vec::with_capacity(1024));
    for &name in HEADERS {
        // Of several the last one comes first (RFC 6376, section 5.4.2).
        for field in fields.iter().rev().filter(|field| field.is(name)) {
            names.push(name);
            field.relaxed(&mut covered);
        }
        names.push(name);
    }
    let mut out = String::new();
    for signer in signers {
        let mut header = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed;\r\n d={}; s={};\r\n t={};\r\n",
            signer.algorithm(),
            signer.domain,
            signer.selector,
            now.seconds(),
        );
        fold(" h=", names.iter().copied(), ":", &mut header);
        header.push_str(";\r\n bh=");
        header.push_str(&body_hash);
        header.push_str(";\r\n b=");
        let mut signed = covered.clone();
        for field in canonical::fields(header.as_bytes()) {
            field.relaxed(&mut signed);
        }
        // Signed without its own value and without a line end (RFC 6376, section 3.7).
        signed.truncate(signed.len() - 2);
        let Some(signature) = signer.signature(&signed) else {
            tracing::error!(domain = signer.domain, selector = signer.selector, "the DKIM key does not sign");
            continue;
        };
        let signature = STANDARD.encode(signature);
        let pieces =
            signature.as_bytes().chunks(FOLD - 4).map(|piece| std::str::from_utf8(piece).expect("ASCII"));
        fold("", pieces, "", &mut header);
        header.push_str("\r\n");
        out.push_str(&header);
    }
    out
}

/// Appends words, on a new line where one is full.
fn fold<'a>(start: &str, words: impl Iterator<Item = &'a str>, separator: &str, out: &mut String) {
    out.push_str(start);
    let mut column = start.len();
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push_str(separator);
            if column + separator.len() + word.len() > FOLD {
                out.push_str("\r\n ");
                column = 1;
            }
        }
        out.push_str(word);
        column += word.len() + separator.len();
    }
}

/// The signers of the newest settings: made once, because reading a key takes longer than signing with it.
#[derive(Debug, Default)]
pub struct Signers(ArcSwapOption<(Arc<EmailConfig>, Vec<Signer>)>);

/// Signers, and the settings that they are of.
pub type SignersOf = Arc<(Arc<EmailConfig>, Vec<Signer>)>;

impl Signers {
    /// The signers of these settings.
    ///
    /// # Errors
    /// Which key can not be used, and why.  Mail then waits for better settings: it must not go out unsigned in silence.
    pub fn of(&self, config: &Arc<EmailConfig>) -> Result<SignersOf, String> {
        if let Some(kept) = self.0.load_full().filter(|kept| Arc::ptr_eq(&kept.0, config)) {
            return Ok(kept);
        }
        let signers = config.dkim.iter().map(|key| {
            Signer::new(&key.domain, &key.selector, key.private_key.reveal())
                .map_err(|wrong| format!("the DKIM key {} of {:?} {wrong}", key.selector, key.domain))
        });
        let made = Arc::new((Arc::clone(config), signers.collect::<Result<Vec<_>, _>>()?));
        self.0.store(Some(Arc::clone(&made)));
        Ok(made)
    }
}

#[cfg(test)]
mod tests;
