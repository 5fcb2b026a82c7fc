//! Credits: a stock of uses, shared by a key and those that replace it.

pub mod lease;
pub mod store;

pub use store::Credits;

use std::collections::HashMap;

use super::model::NewCredits;
use super::store::ApiKey;
use super::{service::ApiKeyService, store as keys};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::error::Result;

/// Sets the credits of a key inside the transaction that changes it, for all keys that share them; answers the prefixes of those.
pub(super) async fn set(
    conn: &mut Conn,
    key: &mut ApiKey,
    new: Option<NewCredits>,
    revision: i64,
    now: Timestamp,
) -> Result<Vec<String>> {
    let Some(new) = new else {
        key.credits_id = None;
        return Ok(Vec::new());
    };
    let id = key.credits_id.get_or_insert_with(|| key.id.clone()).clone();
    let version = store::hold(conn, &id).await?.map_or(1, |held| held.version + 1);
    store::put(conn, &Credits::new(id.clone(), new, version, now)).await?;
    keys::touch_sharing(conn, &id, revision).await
}

impl ApiKeyService {
    /// Gives back the credits that this node took and did not use, when the server stops.
    ///
    /// # Errors
    /// When the database refuses it: what is left is lost.
    pub async fn give_back_credits(&self) -> Result<()> {
        for record in self.verifier.in_memory() {
            if let Some(lease) = record.bounds().and_then(|bounds| bounds.lease.as_ref()) {
                lease.give_back(&self.db).await?;
            }
        }
        Ok(())
    }

    /// The credits of keys, by their id.
    pub async fn credits(&self, keys: &[ApiKey]) -> Result<HashMap<String, Credits>> {
        let ids: Vec<String> = keys.iter().filter_map(|key| key.credits_id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let now = self.clock.now();
        let all = store::all(&mut self.db.reader().await?, &ids).await?;
        let mut in_hand = HashMap::new();
        for key in keys {
            // What this node took and did not use is there for who asks it.
            if let Some(lease) = self.verifier.lease(&key.key_prefix) {
                *in_hand.entry((key.credits_id.clone(), lease.version())).or_insert(0) += lease.left();
            }
        }
        let filled = |mut credits: Credits| {
            credits.remaining += in_hand.get(&(Some(credits.id.clone()), credits.version)).unwrap_or(&0);
            credits.refill(now);
            (credits.id.clone(), credits)
        };
        Ok(all.into_iter().map(filled).collect())
    }
}
