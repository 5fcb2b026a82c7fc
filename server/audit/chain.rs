//! The keyed hashes that make a chain of the entries.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::store::{Base, Entry, Head};
use crate::secret::KEY_LENGTH;

/// Makes the hashes.
pub(super) struct Chain(Hmac<Sha256>);

impl Chain {
    pub(super) fn new(key: &[u8; KEY_LENGTH]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The hash of an entry: over everything in it but the hash itself.
    pub(super) fn hash(&self, entry: &Entry) -> String {
        let (seq, time) = (entry.seq.to_string(), entry.created_at.micros().to_string());
        self.over(&[
            "switchboard audit entry 1",
            &entry.prev_hash,
            &seq,
            &time,
            &entry.actor,
            &entry.action,
            &entry.resource_type,
            &entry.resource_id,
            &entry.before,
            &entry.after,
            &entry.reason,
            &entry.request_id,
            &entry.address,
        ])
    }

    /// The head of a chain that ends here.
    pub(super) fn head(&self, seq: i64, hash: String) -> Head {
        let mac = self.over(&["switchboard audit head 1", &seq.to_string(), &hash]);
        Head { id: 1, seq, hash, mac }
    }

    /// The base of a chain that goes on from here.
    pub(super) fn base(&self, seq: i64, hash: String) -> Base {
        let mac = self.over(&["switchboard audit base 1", &seq.to_string(), &hash]);
        Base { id: 1, seq, hash, mac }
    }

    /// Whether a base is one that was made with the key.
    pub(super) fn is_base(&self, base: &Base) -> bool {
        self.base(base.seq, base.hash.clone()).mac == base.mac
    }

    /// Whether an entry is as it was recorded, and follows this one.
    pub(super) fn follows(&self, entry: &Entry, seq: i64, hash: &str) -> bool {
        entry.seq == seq + 1 && entry.prev_hash == hash && entry.hash == self.hash(entry)
    }

    /// Whether a head is one that was made with the key.
    pub(super) fn is_head(&self, head: &Head) -> bool {
        self.head(head.seq, head.hash.clone()).mac == head.mac
    }

    pub(super) fn fingerprint(&self, place: &str, secret: &str) -> String {
        match secret {
            "" => String::new(),
            secret => {
                format!("hmac:{}", &self.over(&["switchboard audit fingerprint 1", place, secret])[..16])
            }
        }
    }

    /// Each part goes in with its length before it, so that no two lists of parts are the same bytes.
    fn over(&self, parts: &[&str]) -> String {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let mut hex = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;

    fn entry(texts: &[String], seq: i64, micros: i64) -> Entry {
        let text = |at: usize| texts[at].clone();
        Entry {
            seq,
            created_at: Timestamp::from_micros(micros),
            actor: text(0),
            action: text(1),
            resource_type: text(2),
            resource_id: text(3),
            before: text(4),
            after: text(5),
            reason: text(6),
            request_id: text(7),
            address: text(8),
            prev_hash: text(9),
            hash: String::new(),
        }
    }

    proptest! {
        #[test]
        fn entries_have_the_same_hash_only_if_they_are_the_same(
            one in prop::collection::vec("[ab]{0,2}", 10),
            other in prop::collection::vec("[ab]{0,2}", 10),
            numbers in (0..2_i64, 0..2_i64, 0..2_i64, 0..2_i64),
        ) {
            let chain = Chain::new(&[7; KEY_LENGTH]);
            let (one, other) = (entry(&one, numbers.0, numbers.1), entry(&other, numbers.2, numbers.3));
            prop_assert_eq!(chain.hash(&one) == chain.hash(&other), one == other);
        }
    }

    #[test]
    fn hashes_depend_on_the_key_and_on_their_purpose() {
        let (one, other) = (Chain::new(&[1; KEY_LENGTH]), Chain::new(&[2; KEY_LENGTH]));
        let head = one.head(3, "a".into());
        assert!(one.is_head(&head) && !other.is_head(&head));
        assert!(!one.is_head(&Head { seq: 4, ..head.clone() }));
        assert!(!one.is_head(&Head { hash: "b".into(), ..head }));
        let fingerprint = one.fingerprint("webhook", "secret");
        assert_eq!(fingerprint.len(), "hmac:".len() + 16);
        assert_ne!(fingerprint, other.fingerprint("webhook", "secret"));
        assert_ne!(fingerprint, one.fingerprint("header", "secret"));
        assert_eq!(one.fingerprint("webhook", ""), "");
    }
}
