//! Credits: a stock of uses, shared by a key and those that replace it.

pub mod store;

pub use store::Credits;

use std::collections::HashMap;

use super::model::NewCredits;
use super::store::ApiKey;
use super::{service::ApiKeyService, store as keys};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::error::Result;

/// Sets the credits of a key inside the transaction that changes it, for all keys that share them.
pub(super) async fn set(
    conn: &mut Conn,
    key: &mut ApiKey,
    new: Option<NewCredits>,
    revision: i64,
    now: Timestamp,
) -> Result<()> {
    let Some(new) = new else {
        key.credits_id = None;
        return Ok(());
    };
    let id = key.credits_id.get_or_insert_with(|| key.id.clone()).clone();
    let version = store::hold(conn, &id).await?.map_or(1, |held| held.version + 1);
    store::put(conn, &Credits::new(id.clone(), new, version, now)).await?;
    keys::touch_sharing(conn, &id, revision).await
}

impl ApiKeyService {
    /// The credits of keys, by their id.
    pub async fn credits(&self, keys: &[ApiKey]) -> Result<HashMap<String, Credits>> {
        let ids: Vec<String> = keys.iter().filter_map(|key| key.credits_id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let now = self.clock.now();
        let all = store::all(&mut self.db.reader().await?, &ids).await?;
        let filled = |mut credits: Credits| {
            credits.refill(now);
            (credits.id.clone(), credits)
        };
        Ok(all.into_iter().map(filled).collect())
    }
}
