//! Keys by their ids, for what outlives the request that showed a key: calls that last, and the tokens that were made with it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::memory::Id;
use super::record::Record;
use super::{Verifier, invalid, key, store};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::rpc::{Access, Makers, Principal};

/// How many ids are known at most: more keys than that have no streams and make no tokens.
const ROOM: usize = 100_000;

/// Which prefix the key with an id has.  That never changes.
#[derive(Default)]
pub(super) struct Prefixes(RwLock<HashMap<Box<str>, Id>>);

impl Prefixes {
    fn get(&self, key_id: &str) -> Option<Id> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key_id).copied()
    }

    fn put(&self, key_id: &str, id: Id) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ROOM {
            known.clear();
        }
        known.insert(key_id.into(), id);
    }
}

impl Verifier {
    /// Whether the key of a call that lasts still works, and for that call; answers when it ends, `None` when nobody could be
    /// asked.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it has ended, `PERMISSION_DENIED` when it has not the scope or may not be used from the address.
    pub async fn revalidate(&self, principal: &Principal, access: &Access) -> Result<Option<Timestamp>> {
        let record = match self.known_record(&principal.key_id) {
            Some(record) => Some(record),
            None => match self.find_record(&principal.key_id).await {
                Ok(record) => record,
                // A database that is away for a moment must not end every stream.
                Err(_) => return Ok(None),
            },
        };
        let works = record.filter(|record| record.works(self.clock.now()));
        let record = works.ok_or_else(invalid)?;
        record.principal.require(access.scope)?;
        record.require_from(access.address)?;
        Ok(Some(record.expires_at))
    }

    fn known_record(&self, key_id: &str) -> Option<Arc<Record>> {
        let id = self.prefixes.get(key_id)?;
        self.memory.get(&id, |record, read| self.is_believed(record, read, self.now()))
    }

    async fn find_record(&self, key_id: &str) -> Result<Option<Arc<Record>>> {
        let id = match self.prefixes.get(key_id) {
            Some(id) => id,
            None => {
                let prefix = store::prefix(&mut self.db.reader().await?, key_id).await?;
                let Some(id) = prefix.as_deref().and_then(key::id) else { return Ok(None) };
                self.prefixes.put(key_id, id);
                id
            }
        };
        self.read(id, &key::prefix_of(&id)).await.map(Some)
    }

    fn scopes_of(&self, record: &Record) -> Option<Arc<[String]>> {
        record.works(self.clock.now()).then(|| Arc::clone(&record.principal.scopes))
    }
}

impl Makers for Verifier {
    fn known_maker(&self, key_id: &str) -> Option<Option<Arc<[String]>>> {
        self.known_record(key_id).map(|record| self.scopes_of(&record))
    }

    fn find_maker<'a>(&'a self, key_id: &'a str) -> BoxFuture<'a, Result<Option<Arc<[String]>>>> {
        async {
            let record = self.find_record(key_id).await?;
            Ok(record.and_then(|record| self.scopes_of(&record)))
        }
        .boxed()
    }
}
