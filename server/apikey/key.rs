//! The form of a key: `swb_<11 characters>_<43 characters of secret><6 characters of checksum>`.
//!
//! All characters are base62, so that a double click selects the whole of it.  The first 15 characters are the prefix
//! that finds it and that people may see.  The checksum is the CRC-32 of everything before it: a mistyped key is told
//! from a wrong one without asking anybody.  The prefix of a test key goes on with `test`, and no other does.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::model::KeyKind;
use crate::secret::{KEY_LENGTH, Random, SecretText};

/// The length of the visible prefix.
pub const PREFIX_LENGTH: usize = 15;
const ID_LENGTH: usize = 11;
/// 43 characters of base62 hold 256 bits.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;
const LENGTH: usize = PREFIX_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;
const START: &str = "swb_";
const TEST: &str = "test";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes a key.
pub fn generate(kind: KeyKind, random: &dyn Random) -> SecretText {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(LENGTH));
    text.push_str(START);
    match kind {
        KeyKind::Test => {
            text.push_str(TEST);
            push_random(&mut text, ID_LENGTH - TEST.len(), random);
        }
        KeyKind::Live => {
            push_random(&mut text, ID_LENGTH, random);
            // One in fifteen million looks like a test key by chance.
            while text[START.len()..].starts_with(TEST) {
                text.truncate(START.len());
                push_random(&mut text, ID_LENGTH, random);
            }
        }
    }
    text.push('_');
    push_random(&mut text, SECRET_LENGTH, random);
    let checksum = checksum(&text);
    text.extend(checksum.map(char::from));
    SecretText::new(text.as_str())
}

/// Whether a text has the form of a key, with its checksum.
pub fn is_well_formed(text: &str) -> bool {
    if text.len() != LENGTH || !text.starts_with(START) || text.as_bytes()[PREFIX_LENGTH] != b'_' {
        return false;
    }
    let parts = [&text.as_bytes()[START.len()..PREFIX_LENGTH], &text.as_bytes()[PREFIX_LENGTH + 1..]];
    parts.iter().all(|part| part.iter().all(u8::is_ascii_alphanumeric))
        && text.as_bytes()[LENGTH - CHECKSUM_LENGTH..] == checksum(&text[..LENGTH - CHECKSUM_LENGTH])
}

/// The visible prefix of a well-formed key.
pub fn prefix(text: &str) -> &str {
    &text[..PREFIX_LENGTH]
}

/// The part of a well-formed key, or of its prefix, that tells it from others.
pub fn id(text: &str) -> Option<[u8; ID_LENGTH]> {
    text.as_bytes().get(START.len()..PREFIX_LENGTH)?.try_into().ok()
}

/// The visible prefix of the key with this id.
pub fn prefix_of(id: &[u8; ID_LENGTH]) -> String {
    format!("{START}{}", String::from_utf8_lossy(id))
}

/// Makes what the database has of a key.
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// With this key.
    pub fn new(mac_key: &[u8; KEY_LENGTH]) -> Self {
        Self(Hmac::new_from_slice(mac_key).expect("HMAC takes keys of any length"))
    }

    /// The MAC of a whole key.
    pub fn mac(&self, text: &str) -> [u8; 32] {
        // A copy begins where the key is worked in already.
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

fn push_random(text: &mut String, count: usize, random: &dyn Random) {
    let mut pushed = 0;
    while pushed < count {
        let mut bytes = [0; 64];
        random.fill(&mut bytes);
        // Only bytes below a multiple of 62, so that every character is equally likely.
        for byte in bytes.into_iter().filter(|&byte| byte < 248).take(count - pushed) {
            text.push(char::from(ALPHABET[usize::from(byte) % 62]));
            pushed += 1;
        }
    }
}

fn checksum(text: &str) -> [u8; CHECKSUM_LENGTH] {
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::SystemRandom;

    #[test]
    fn a_new_key_is_well_formed_and_unlike_any_other() {
        let (one, other) = (generate(KeyKind::Live, &SystemRandom), generate(KeyKind::Test, &SystemRandom));
        assert!(is_well_formed(one.reveal()), "{}", one.reveal());
        assert_ne!(one.reveal(), other.reveal());
        assert_ne!(prefix(one.reveal()), prefix(other.reveal()));
        assert!(is_well_formed(other.reveal()) && prefix(other.reveal()).starts_with("swb_test"));
        assert_ne!(generate(KeyKind::Live, &SystemRandom).reveal(), one.reveal());
    }

    proptest! {
        #[test]
        fn a_key_with_one_character_changed_is_not_well_formed(at in 0..LENGTH, to in "[0-9A-Za-z_]") {
            let key = generate(KeyKind::Live, &SystemRandom);
            let mut bent = key.reveal().to_owned();
            bent.replace_range(at..=at, &to);
            prop_assert_eq!(is_well_formed(&bent), bent == key.reveal());
        }

        #[test]
        fn other_text_is_not_well_formed_and_no_panic(text in "\\PC{0,80}") {
            prop_assert!(!is_well_formed(&text));
        }
    }
}
