//! Events about endpoints: kept with what was decided, and published by the way that every event takes.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::record::Record;
use super::store;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::db::group::Lane;
use crate::error::Result;
use crate::event::request::RequestKey;
use crate::event::{Fact, PublishWrite};
use crate::id::{IdGenerator, Kind};
use crate::webhook::model::Webhook;

/// An endpoint has only failed for a while.
pub const FAILING: &str = "webhook.failing";
/// The server disabled an endpoint.
pub const DISABLED: &str = "webhook.disabled";
/// Who publishes.
const SERVER: &str = "switchboard";

/// An event that was decided and is not known to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The request id of its publish.
    pub id: String,
    /// The endpoint.
    pub webhook_id: String,
    /// Its type.
    pub event_type: String,
    /// Its payload.
    pub data: String,
}

impl Notice {
    /// An endpoint has only failed for a while.
    pub fn failing(webhook: &Webhook, record: &Record) -> Self {
        let since = record.failing_since.unwrap_or_default().micros();
        Self::new(FAILING, webhook, since, fields(webhook, record))
    }

    /// An endpoint is disabled, at the version that it has now.
    pub fn disabled(webhook: &Webhook, record: &Record) -> Self {
        let mut fields = fields(webhook, record);
        fields.insert("reason".into(), webhook.disabled_reason.as_str().into());
        Self::new(DISABLED, webhook, webhook.version, fields)
    }

    fn new(event_type: &str, webhook: &Webhook, number: i64, fields: Map<String, Value>) -> Self {
        let webhook_id = webhook.id.clone();
        let id = format!("{event_type}/{webhook_id}/{number}");
        Self { id, webhook_id, event_type: event_type.into(), data: Value::Object(fields).to_string() }
    }
}

fn fields(webhook: &Webhook, record: &Record) -> Map<String, Value> {
    // A query may hold a token, and the event goes to whoever subscribes to it.
    let url = webhook.url.split('?').next().unwrap_or_default();
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let fields = json!({
        "webhook_id": webhook.id,
        "name": webhook.name,
        "url": url,
        "failing_since": time(record.failing_since),
        "failures": record.failures,
        "last_error": record.last_error,
    });
    let Value::Object(fields) = fields else { unreachable!("it was written as an object") };
    fields
}

/// Whether an event tells of this endpoint itself: it is not asked to take what says that it takes nothing.
pub fn is_about(fact: &Fact, webhook_id: &str) -> bool {
    fact.subject == webhook_id && [FAILING, DISABLED].contains(&&*fact.event_type)
}

/// Publishes what was decided.  A notice that is published already, by another node or before a crash, is only forgotten.
///
/// # Errors
/// When the database can not be reached; what is left is published the next time.
pub(super) async fn publish_all(
    db: &Db,
    publishes: &Lane<PublishWrite>,
    ids: &IdGenerator,
    now: Timestamp,
) -> Result<()> {
    for notice in store::notices(&mut db.reader().await?).await? {
        let Notice { id, webhook_id, event_type, data } = notice;
        let parts = [event_type.as_bytes(), data.as_bytes()];
        let key = RequestKey::new(SERVER, &id, "PublishNotice", &parts);
        let fact = Arc::new(Fact {
            id: ids.next(Kind::Event).into(),
            event_type: event_type.into(),
            data,
            actor: SERVER.into(),
            subject: webhook_id,
            topic: crate::event::topic::DEFAULT.into(),
            created_at: now,
        });
        let published = publishes.write(PublishWrite { facts: vec![fact], keys: vec![key] }).await?;
        if let Err(error) = published {
            // One that can not be published must not keep the others back.
            tracing::error!(id, %error, "an event about an endpoint is refused");
            continue;
        }
        db.transaction(move |conn| Box::pin(async move { store::forget_notice(conn, &id).await })).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::catalogue;

    #[test]
    fn every_notice_has_the_fields_of_the_catalogue_and_no_secret_of_the_url() {
        let webhook = Webhook {
            id: "wh_1".into(),
            url: "https://example.com/hook?token=1".into(),
            disabled_reason: "x".into(),
            version: 7,
            ..Webhook::default()
        };
        let record = Record {
            failing_since: Some(Timestamp::from_micros(5)),
            last_failure_at: Some(Timestamp::from_micros(6)),
            ..Record::default()
        };
        for notice in [Notice::failing(&webhook, &record), Notice::disabled(&webhook, &record)] {
            let data: Map<String, Value> = serde_json::from_str(&notice.data).unwrap();
            let mut known: Vec<_> = catalogue::find(&notice.event_type)
                .unwrap()
                .fields()
                .into_iter()
                .map(|field| field.name)
                .collect();
            known.sort();
            assert_eq!(data.keys().cloned().collect::<Vec<_>>(), known, "{}", notice.event_type);
            assert_eq!(data["url"], "https://example.com/hook");
        }
        assert_eq!(Notice::failing(&webhook, &record).id, "webhook.failing/wh_1/5");
        assert_eq!(Notice::disabled(&webhook, &record).id, "webhook.disabled/wh_1/7");
    }
}
