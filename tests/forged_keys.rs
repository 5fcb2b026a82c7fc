//! A million keys that nobody made, at random and by small changes of one that somebody did: none is accepted, and what is
//! malformed never reaches the database.

use std::sync::atomic::{AtomicUsize, Ordering};

use switchboard::apikey::Verifier;
use switchboard::apikey::key::{generate, is_well_formed};
use switchboard::apikey::model::KeyKind;
use switchboard::secret::{Random, SystemRandom};
use switchboard_client::apikey::v1::{BatchVerifyApiKeysRequest, VerificationCode, VerifyApiKeyRequest};
use tonic::Code;

use crate::api_keys::{connection, open};
use crate::api_keys_change::{make, new_key};
use crate::harness::{on_both, status};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MILLION: u32 = 1_000_000;
/// Those that are also sent to the server.
const OVER_THE_WIRE: u32 = 3_000;
/// Those whose prefix no key has: each is read once.
const STRANGERS: u64 = 300;
/// Where the secret begins, and where the checksum does.
const SECRET: usize = 16;
const CHECKSUM: usize = 59;

/// A key whose last six characters are what the rest asks for.
pub fn with_checksum(key: &str) -> String {
    let body = &key[..key.len() - 6];
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    format!("{body}{}", String::from_utf8_lossy(&digits))
}

/// One of a million that are not the key, but look like it.
fn forged(key: &str, number: u32) -> String {
    let (way, round) = (number % 16, number as usize / 16);
    let at = round % key.len();
    let by = round / key.len();
    let mut text = key.as_bytes().to_vec();
    let other = |letter: u8, by: usize| {
        let place = ALPHABET.iter().position(|&one| one == letter).unwrap_or(0);
        ALPHABET[(place + 1 + by % 61) % 62]
    };
    let with = |text: Vec<u8>| String::from_utf8(text).expect("it is ASCII");
    match way {
        // One character, two of them, one less, one more.
        0..4 => text[at] = other(text[at], by),
        4 => {
            let next = (at + 7) % text.len();
            (text[at], text[next]) = (other(text[at], by), other(text[next], by / 7));
        }
        5 => {
            text.remove(at);
        }
        6 => text.insert(at, other(b'0', by)),
        // Half of it, it and more, its neighbours changed about, its letters in the other case.
        7 => text.truncate(at),
        8 => text.extend((0..=at).map(|_| other(b'0', by))),
        9 => {
            let next = (at + 1 + by % (key.len() - 1)) % key.len();
            text.swap(at, next);
        }
        10 => {
            for (place, letter) in text.iter_mut().enumerate().skip(4) {
                if place == at || (by >> (place % 20)) & 1 == 1 {
                    *letter ^= if letter.is_ascii_alphabetic() { 0x20 } else { 0 };
                }
            }
        }
        // Anything of the right length, with and without the right beginning.
        11 | 12 => {
            let from = if way == 11 { SECRET } else { 0 };
            for (letter, byte) in text[from..].iter_mut().zip(bytes()) {
                *letter = ALPHABET[usize::from(byte) % 62];
            }
        }
        // The right checksum: one character of the secret, and another secret.
        13 | 14 => {
            let at = SECRET + round % (CHECKSUM - SECRET);
            text[at] = other(text[at], round / (CHECKSUM - SECRET));
            return with_checksum(&with(text));
        }
        _ => {
            for (letter, byte) in text[SECRET..CHECKSUM].iter_mut().zip(bytes()) {
                *letter = ALPHABET[usize::from(byte) % 62];
            }
            return with_checksum(&with(text));
        }
    }
    with(text)
}

fn bytes() -> [u8; 65] {
    let mut bytes = [0; 65];
    SystemRandom.fill(&mut bytes);
    bytes
}

/// Verifies those with these numbers; answers how many were well-formed.
fn verify(verifier: &Verifier, key: &str, numbers: impl Iterator<Item = u32>) -> usize {
    let mut well_formed = 0;
    for number in numbers {
        let text = forged(key, number);
        if text == key {
            continue;
        }
        let found = verifier.look(&text);
        if is_well_formed(&text) {
            well_formed += 1;
            // On a busy machine the key has to be read again now and then: that it may not be believed is no acceptance.
            assert!(found.is_none_or(|found| found.is_none()), "{text}");
        } else {
            assert!(found.is_some_and(|found| found.is_none()), "{text}");
        }
    }
    well_formed
}

on_both! {
    async fn none_of_a_million_is_accepted(server: Server) {
        let (_, key) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let verifier = server.verifier();
        assert!(verifier.find(&key).await.unwrap().is_some());
        let (before, well_formed) = (verifier.reads(), AtomicUsize::new(0));
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                for part in 0..2 {
                    let (key, well_formed) = (&key, &well_formed);
                    scope.spawn(move || {
                        let numbers = (0..MILLION).filter(|number| number / 16 % 2 == part);
                        well_formed.fetch_add(verify(verifier, key, numbers), Ordering::Relaxed);
                    });
                }
            });
        });
        let well_formed = well_formed.into_inner();
        assert!((150_000..250_000).contains(&well_formed), "{well_formed} reached the MAC");
        assert_eq!(verifier.reads(), before, "none reached the database");
        assert!(verifier.find(&key).await.unwrap().is_some());

        // Those whose checksum is right are read once for each prefix that no key has.
        let before = verifier.reads();
        for _ in 0..STRANGERS {
            let stranger = generate(KeyKind::Live, &SystemRandom);
            for _ in 0..3 {
                assert!(verifier.find(stranger.reveal()).await.unwrap().is_none());
            }
        }
        // On a busy machine what was read a second ago may be read again.
        let reads = verifier.reads() - before;
        assert!((STRANGERS..STRANGERS + 30).contains(&reads), "{reads}");
    }

    async fn none_is_accepted_over_the_wire(server: Server = no_limit_of_failed_keys) {
        let (_, key) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let step = MILLION / OVER_THE_WIRE;
        let texts: Vec<String> = (0..OVER_THE_WIRE)
            .map(|number| forged(&key, number * step + number % 16))
            .filter(|text| *text != key)
            .collect();
        assert!(texts.len() > 2_900, "{}", texts.len());
        for some in texts.chunks(100) {
            let requests = some.iter().map(|key| VerifyApiKeyRequest { key: key.clone(), ..Default::default() }).collect();
            let answers = server.client.api_keys().batch_verify_api_keys(BatchVerifyApiKeysRequest { requests }).await;
            let answers = answers.unwrap().into_inner().responses;
            assert_eq!(answers.len(), some.len());
            for (answer, text) in answers.iter().zip(some) {
                assert!(answer.code() == VerificationCode::Invalid && !answer.valid && answer.api_key_id.is_empty(), "{text}");
            }
        }
        let channel = connection(&server).await;
        let list = "/switchboard.event.v1.EventService/ListEvents";
        for text in &texts {
            let refused = open(&channel, Some(text), list, b"").await.expect_err(text);
            status::expect(&refused, Code::Unauthenticated, "KEY_INVALID");
        }
        open(&channel, Some(&key), list, b"").await.expect("the key itself");
    }
}

/// Nobody is turned away unread.
fn no_limit_of_failed_keys(config: &mut switchboard::config::Config) {
    config.set = vec!["security.failed_keys_per_minute=0".into()];
}
