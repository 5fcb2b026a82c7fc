//! The events of keys: `key.created`, `key.revoked` and `key.expiring`.
//!
//! What is to be announced is noted in the key's row by the transaction that makes it true, and published right after; a
//! server that dies in between publishes it when it next looks.  The request id of the publish makes a repeat harmless, also
//! one by another node, so that each event is published once.

use std::time::Duration;

use serde_json::json;

use super::service::{ApiKeyService, DAY};
use super::store::{self, ApiKey};
use crate::error::Result;
use crate::event::{EventService, NewEvent, Requester};

/// A key was made.
pub(super) const CREATED: &str = "key.created";
/// A key was ended.
pub(super) const REVOKED: &str = "key.revoked";
const EXPIRING: &str = "key.expiring";
/// How many days before its end a key is announced to end, the last first.
const NOTICES: [i16; 3] = [1, 7, 14];
const AT_A_TIME: i64 = 500;

/// Notes an event that is to be published.
pub(super) fn add(key: &mut ApiKey, event: &str) {
    if !key.unannounced.is_empty() {
        key.unannounced.push(' ');
    }
    key.unannounced.push_str(event);
}

impl ApiKeyService {
    /// Publishes what was noted of a key, and answers it.  A publish that fails is made up for later: the key is as it is.
    pub(super) async fn announced(&self, key: ApiKey) -> ApiKey {
        if let Some(events) = self.events.get()
            && !key.unannounced.is_empty()
            && let Err(error) = self.announce(events, &key).await
        {
            tracing::warn!(%error, "the event of a key could not be published; it is tried again");
        }
        key
    }

    /// Publishes what could not be published at its time, and that keys end soon.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn announce_due(&self) -> Result<()> {
        let Some(events) = self.events.get() else { return Ok(()) };
        for key in store::unannounced(&mut self.db.reader().await?, AT_A_TIME).await? {
            self.announce(events, &key).await?;
        }
        for days in NOTICES {
            self.announce_ending(events, days).await?;
        }
        Ok(())
    }

    async fn announce(&self, events: &EventService, key: &ApiKey) -> Result<()> {
        for event in key.unannounced.split(' ') {
            publish(events, event, key, json!({}), event).await?;
        }
        let (id, published) = (key.id.clone(), key.unannounced.clone());
        self.db
            .transaction(move |conn| Box::pin(async move { store::announced(conn, &id, &published).await }))
            .await
    }

    async fn announce_ending(&self, events: &EventService, days: i16) -> Result<()> {
        loop {
            let now = self.clock.now();
            let end = now + DAY * u32::from(days.unsigned_abs());
            let keys = store::ending(&mut self.db.reader().await?, now, end, days, AT_A_TIME).await?;
            for key in &keys {
                // A key that got more time is announced again, and that is another event.
                let what = format!("{EXPIRING} {days} {}", key.expires_at.micros());
                publish(events, EXPIRING, key, json!({ "days_left": days }), &what).await?;
                let (id, expires_at) = (key.id.clone(), key.expires_at);
                let noted = self.db.transaction(move |conn| {
                    Box::pin(async move { store::noticed(conn, &id, expires_at, days).await })
                });
                noted.await?;
            }
            if keys.len() < AT_A_TIME as usize {
                return Ok(());
            }
        }
    }
}

/// How often a server looks for what is to be announced.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);

async fn publish(
    events: &EventService,
    event_type: &str,
    key: &ApiKey,
    more: serde_json::Value,
    what: &str,
) -> Result<()> {
    let mut data = json!({
        "key_id": key.id,
        "name": key.name,
        "key_prefix": key.key_prefix,
        "expires_at": key.expires_at.to_string(),
    });
    if !key.external_id.is_empty() {
        data["external_id"] = key.external_id.clone().into();
    }
    if let (Some(data), serde_json::Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    let event = NewEvent {
        event_type: event_type.into(),
        data: data.to_string(),
        actor: key.created_by.clone(),
        subject: key.id.clone(),
        request_id: format!("{what} {}", key.id),
        ..NewEvent::default()
    };
    match events.publish(Requester { principal: "server" }, vec![event], false).await {
        // Another node published it, when the key had another name.
        Err(error) if error.reason() == "REQUEST_ID_REUSED" => Ok(()),
        published => published.map(drop),
    }
}
