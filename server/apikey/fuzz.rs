//! Keys.

use super::key::{MacKey, generate, id, is_well_formed, prefix, prefix_of};
use super::model::KeyKind;
use crate::fuzz::{SameRandom, texts};

const ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The form of a key, told without the code that is tested.
fn is_key(text: &str) -> bool {
    let Some(parts) = text.strip_prefix("swb_").and_then(|rest| rest.split_once('_')) else { return false };
    let is_base62 = |part: &str| part.bytes().all(|byte| ALPHABET.contains(&byte));
    let (name, secret) = parts;
    if name.len() != 11 || secret.len() != 49 || !is_base62(name) || !is_base62(secret) {
        return false;
    }
    let (signed, checksum) = text.split_at(text.len() - 6);
    checksum == base62(crc32(signed.as_bytes()))
}

/// CRC-32 of IEEE 802.3, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn base62(mut number: u32) -> String {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[number as usize % 62];
        number /= 62;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

/// What has the form of a key, and that none but the key has its MAC.
pub fn api_key(data: &[u8]) {
    let Some([text, bend]) = texts(data) else { return };
    assert_eq!(is_well_formed(text), is_key(text), "{text:?}");
    let mac_key = MacKey::new(&[7; 32]);
    let seed = bend.bytes().next().unwrap_or_default();
    let kind = if seed % 2 == 0 { KeyKind::Live } else { KeyKind::Test };
    let own = generate(kind, &SameRandom(seed));
    let own = own.reveal();
    assert!(is_well_formed(own) && is_key(own));
    assert_eq!(prefix(own).starts_with("swb_test"), kind == KeyKind::Test);
    assert_eq!(mac_key.mac(text) == mac_key.mac(own), text == own);
    if is_well_formed(text) {
        let id = id(text).expect("a key has an id");
        assert_eq!(prefix_of(&id), prefix(text));
        // With another checksum it is none.
        let (signed, checksum) = text.split_at(text.len() - 6);
        for digit in 0..6 {
            let mut other = checksum.as_bytes().to_vec();
            other[digit] = if other[digit] == b'0' { b'1' } else { b'0' };
            assert!(!is_well_formed(&format!("{signed}{}", String::from_utf8_lossy(&other))));
        }
    }
    // A key that was mistyped in one place is none.
    let place = bend.as_bytes().get(1).map_or(0, |byte| usize::from(*byte)) % own.len();
    let mut bent = own.to_owned();
    bent.replace_range(place..=place, bend.get(2..3).unwrap_or("~"));
    assert_eq!(is_well_formed(&bent), bent == own, "{bent}");
}
