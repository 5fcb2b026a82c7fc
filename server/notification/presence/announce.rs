//! The events of presence: `user.online` and `user.offline`, once for each change, in the order of the changes.
//!
//! Whoever publishes a change publishes those before it that are not known to be published in the same write, so that two
//! nodes that do so at a time can not turn the order around.  The request id makes what is published already come to
//! nothing.

use std::sync::Arc;

use serde_json::json;

use super::store::{self, Standing};
use super::{BATCH, Presence};
use crate::error::Result;
use crate::event::request::RequestKey;
use crate::event::{Fact, PublishWrite, topic};
use crate::id::Kind;

const ONLINE: &str = "user.online";
const OFFLINE: &str = "user.offline";
/// Who publishes.
const SERVER: &str = "switchboard";
/// About how many events one write has.
const EVENTS: usize = 500;

impl Standing {
    /// The changes that are still to be published: for each its generation, and whether the user came or went.
    fn changes(&self) -> impl Iterator<Item = (i64, bool)> + '_ {
        (self.announced + 1..=self.generation)
            .map(|generation| (generation, ((self.generation - generation) % 2 == 0) == self.online))
    }
}

impl Presence {
    /// Publishes what could not be published at its time.
    pub(super) async fn announce_due(&self) -> Result<()> {
        loop {
            let due = store::unannounced(&mut self.parts.db.reader().await?, BATCH as i64).await?;
            let full = due.len() == BATCH;
            self.announce(due).await?;
            if !full {
                return Ok(());
            }
        }
    }

    /// Publishes the changes of these users.
    pub(super) async fn announce(&self, mut standings: Vec<Standing>) -> Result<()> {
        standings.retain(|standing| standing.announced < standing.generation);
        while !standings.is_empty() {
            let rest = standings.split_off(standings.len().min(EVENTS));
            self.parts.publishes.write(self.write_of(&standings)).await??;
            self.parts
                .db
                .transaction(move |conn| Box::pin(async move { store::announced(conn, &standings).await }))
                .await?;
            standings = rest;
        }
        Ok(())
    }

    fn write_of(&self, standings: &[Standing]) -> PublishWrite {
        let now = self.parts.clock.now();
        let (mut facts, mut keys) = (Vec::new(), Vec::new());
        for standing in standings {
            let Standing { user_id, username, .. } = standing;
            for (generation, online) in standing.changes() {
                let event_type = if online { ONLINE } else { OFFLINE };
                let request_id = format!("{event_type}/{user_id}/{generation}");
                // Without the name, which may be another one by now.
                keys.push(RequestKey::new(SERVER, &request_id, "AnnouncePresence", &[]));
                facts.push(Arc::new(Fact {
                    id: self.parts.ids.next(Kind::Event).into(),
                    event_type: event_type.into(),
                    data: json!({ "user_id": user_id, "username": username }).to_string(),
                    actor: SERVER.into(),
                    subject: user_id.clone(),
                    topic: topic::PRESENCE.into(),
                    created_at: now,
                }));
            }
        }
        PublishWrite { facts, keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn what_is_to_be_published_alternates_and_ends_with_how_they_stand() {
        let standing = |online, announced, generation| Standing {
            user_id: "jo".into(),
            username: String::new(),
            online,
            generation,
            announced,
            changed_at: Timestamp::default(),
        };
        let changes = |standing: Standing| standing.changes().collect::<Vec<_>>();
        assert!(changes(standing(true, 7, 7)).is_empty());
        assert_eq!(changes(standing(true, 6, 7)), [(7, true)]);
        assert_eq!(changes(standing(false, 6, 8)), [(7, true), (8, false)]);
        assert_eq!(changes(standing(true, 6, 9)), [(7, true), (8, false), (9, true)]);
    }
}
