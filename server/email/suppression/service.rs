//! The use cases of suppressions.

use serde_json::{Map, Value, json};

use super::model::{DETAIL_LIMIT, Origin, Reason, Suppression, SuppressionFilter, is_topic, key};
use super::store;
use crate::audit::{self, Change, Recorder};
use crate::clock::{SharedClock, Timestamp};
use crate::db::Db;
use crate::error::{Result, Violations};

/// The last second of the year 9999, the last that the contract's times can tell.
const LAST: Timestamp = Timestamp::from_parts(253_402_300_799, 0);
/// Longer than any address.
const PREFIX_LIMIT: usize = 320;

/// What to set of a suppression; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct SuppressionChange {
    /// Why.
    pub reason: Option<Reason>,
    /// What was said.
    pub detail: Option<String>,
    /// When it ends; `Some(None)` for never.
    pub expires_at: Option<Option<Timestamp>>,
}

/// The use cases.
pub struct SuppressionService {
    /// The database.
    pub db: Db,
    /// Records what is changed.
    pub audit: Recorder,
    /// The time.
    pub clock: SharedClock,
}

impl SuppressionService {
    /// Puts an address on the list.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when it is there, for this topic.
    pub async fn create(&self, address: &str, topic: &str, change: SuppressionChange) -> Result<Suppression> {
        let now = self.clock.now();
        let mut violations = Violations::default();
        let address = name(&mut violations, "suppression.", address, topic);
        check(&mut violations, &change, now);
        violations.finish()?;
        let suppression = Suppression {
            address,
            topic: topic.to_owned(),
            reason: change.reason.unwrap_or(Reason::Manual),
            origin: Origin::Api.word().to_owned(),
            detail: change.detail.unwrap_or_default(),
            email_id: None,
            expires_at: change.expires_at.flatten(),
            created_at: now,
            updated_at: now,
        };
        let audit = self.audit.clone();
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    store::insert(conn, &suppression).await?;
                    audit.record(conn, entry(&suppression, "create").to(audited(&suppression))).await?;
                    Ok(suppression)
                })
            })
            .await
    }

    /// Why an address gets no mail of a topic, or of any (`''`).
    pub async fn get(&self, address: &str, topic: &str) -> Result<Suppression> {
        let mut violations = Violations::default();
        let address = name(&mut violations, "", address, topic);
        violations.finish()?;
        store::find(&mut self.db.reader().await?, &address, topic, self.clock.now()).await
    }

    /// Those that hold, by address and topic.
    pub async fn list(&self, mut filter: SuppressionFilter, limit: i64) -> Result<Vec<Suppression>> {
        let mut violations = Violations::default();
        let prefix = &filter.address_prefix;
        let ok = prefix.len() <= PREFIX_LIMIT && !prefix.chars().any(char::is_control);
        violations.require(ok, "address_prefix", "must have at most 320 bytes and no control characters");
        require_topic(&mut violations, "topic", &filter.topic);
        violations.finish()?;
        filter.address_prefix = filter.address_prefix.trim_start().to_lowercase();
        store::list(&mut self.db.reader().await?, &filter, self.clock.now(), limit).await
    }

    /// Changes one.
    pub async fn update(&self, address: &str, topic: &str, change: SuppressionChange) -> Result<Suppression> {
        let now = self.clock.now();
        let mut violations = Violations::default();
        let address = name(&mut violations, "suppression.", address, topic);
        check(&mut violations, &change, now);
        violations.finish()?;
        let (topic, audit) = (topic.to_owned(), self.audit.clone());
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    let mut suppression = store::find(conn, &address, &topic, now).await?;
                    let entry = entry(&suppression, "update").from(audited(&suppression));
                    suppression.reason = change.reason.unwrap_or(suppression.reason);
                    suppression.detail = change.detail.unwrap_or(suppression.detail);
                    suppression.expires_at = change.expires_at.unwrap_or(suppression.expires_at);
                    suppression.updated_at = now;
                    store::update(conn, &suppression).await?;
                    audit.record(conn, entry.to(audited(&suppression))).await?;
                    Ok(suppression)
                })
            })
            .await
    }

    /// Lets an address get mail again.
    pub async fn delete(&self, address: &str, topic: &str) -> Result<()> {
        let mut violations = Violations::default();
        let address = name(&mut violations, "", address, topic);
        violations.finish()?;
        let (topic, now, audit) = (topic.to_owned(), self.clock.now(), self.audit.clone());
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    let suppression = store::find(conn, &address, &topic, now).await?;
                    store::delete(conn, &address, &topic).await?;
                    audit.record(conn, entry(&suppression, "delete").from(audited(&suppression))).await
                })
            })
            .await
    }
}

/// An entry of the audit log about one, which its address and its topic name.
fn entry(suppression: &Suppression, verb: &str) -> Change {
    let Suppression { address, topic, .. } = suppression;
    let id = if topic.is_empty() { address.clone() } else { format!("{address}/{topic}") };
    Change::new("suppression", id, verb)
}

/// One as the audit log tells it.
fn audited(suppression: &Suppression) -> Map<String, Value> {
    audit::fields(&json!({
        "reason": suppression.reason.word(),
        "origin": suppression.origin,
        "detail": suppression.detail,
        "expire_time": suppression.expires_at.map(|time| time.to_string()),
    }))
}

/// Checks what names a suppression; answers its address in its one form.
fn name(violations: &mut Violations, path: &str, address: &str, topic: &str) -> String {
    let address = violations.check(&format!("{path}address"), key(address)).unwrap_or_default();
    require_topic(violations, &format!("{path}topic"), topic);
    address
}

fn require_topic(violations: &mut Violations, field: &str, topic: &str) {
    violations.require(is_topic(topic), field, "must have at most 64 of a-z, 0-9, _, . and -");
}

fn check(violations: &mut Violations, change: &SuppressionChange, now: Timestamp) {
    let detail = change.detail.as_deref().unwrap_or_default();
    let short = detail.chars().count() <= DETAIL_LIMIT && !detail.contains('\0');
    violations.require(short, "suppression.detail", "must have at most 1024 characters");
    let end = change.expires_at.flatten();
    violations.require(
        end.is_none_or(|end| end > now && end <= LAST),
        "suppression.expire_time",
        "must lie in the future, before the year 10000",
    );
}
