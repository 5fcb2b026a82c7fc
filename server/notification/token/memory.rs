//! The tokens that were verified a while ago, by their hash, so that a signature is not computed for every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::model::{Maker, Verified};
use crate::clock::Timestamp;

const SHARDS: usize = 16;
/// Tokens in each shard: 16 384 together.
const ROOM: usize = 1_024;
/// Longer tokens are verified at every use: together with [`ROOM`] this bounds the memory.
const KEPT: usize = 2 * 1024;

/// What no two tokens have in common.
type Hash = [u8; 32];

/// The memory.
#[derive(Default)]
pub(super) struct Memory([Mutex<HashMap<Hash, Arc<Verified>>>; SHARDS]);

impl Memory {
    /// A token that was verified; `generation` is that of the identity provider's keys.
    pub fn get(&self, text: &str, generation: Option<u64>) -> Option<Arc<Verified>> {
        let hash = hash(text)?;
        let kept = self.shard(&hash).lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&hash).filter(|verified| is_current(verified, generation)).map(Arc::clone)
    }

    /// Keeps a token that was verified.
    pub fn put(&self, text: &str, verified: &Arc<Verified>, now: Timestamp) {
        let Some(hash) = hash(text) else { return };
        let mut kept = self.shard(&hash).lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ROOM {
            kept.retain(|_, verified| verified.until > now);
        }
        if kept.len() >= ROOM {
            let victims: Vec<Hash> = kept.keys().take(ROOM / 8).copied().collect();
            victims.iter().for_each(|victim| drop(kept.remove(victim)));
        }
        kept.insert(hash, Arc::clone(verified));
    }

    fn shard(&self, hash: &Hash) -> &Mutex<HashMap<Hash, Arc<Verified>>> {
        &self.0[usize::from(hash[0]) % SHARDS]
    }
}

fn hash(text: &str) -> Option<Hash> {
    (text.len() <= KEPT).then(|| Sha256::digest(text).into())
}

fn is_current(verified: &Verified, generation: Option<u64>) -> bool {
    match verified.maker {
        Maker::Key(_) => true,
        Maker::Provider(then) => Some(then) == generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::User;

    fn verified(maker: Maker, until: i64) -> Arc<Verified> {
        let user = User {
            id: "jo".into(),
            name: String::new(),
            topics: Vec::new(),
            event_types: Vec::new(),
            issued_at: Timestamp::default(),
            expires_at: Timestamp::from_micros(until),
        };
        let until = user.expires_at;
        Arc::new(Verified {
            user: Arc::new(user),
            scopes: Arc::new([]),
            maker,
            from: Timestamp::default(),
            until,
        })
    }

    #[test]
    fn what_is_kept_has_a_bound_and_what_has_ended_goes_first() {
        let (memory, now) = (Memory::default(), Timestamp::from_micros(10));
        let lasting = verified(Maker::Key("key_1".into()), 20);
        memory.put("lasting", &lasting, now);
        for number in 0..20 * ROOM {
            memory.put(&format!("ended {number}"), &verified(Maker::Key("key_1".into()), 5), now);
        }
        let kept: usize = memory.0.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * ROOM, "{kept}");
        assert!(memory.get("lasting", None).is_some());
        for number in 0..20 * ROOM {
            memory.put(&format!("lasting {number}"), &lasting, now);
        }
        let kept: usize = memory.0.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!((SHARDS * ROOM / 2..=SHARDS * ROOM).contains(&kept), "{kept}");
    }

    #[test]
    fn other_keys_of_a_provider_are_asked_again() {
        let (memory, now) = (Memory::default(), Timestamp::from_micros(10));
        memory.put("a", &verified(Maker::Provider(3), 20), now);
        assert!(memory.get("a", Some(3)).is_some() && memory.get("b", Some(3)).is_none());
        assert!(memory.get("a", Some(4)).is_none() && memory.get("a", None).is_none());
        let long = "a".repeat(KEPT + 1);
        memory.put(&long, &verified(Maker::Provider(3), 20), now);
        assert!(memory.get(&long, Some(3)).is_none());
    }
}
