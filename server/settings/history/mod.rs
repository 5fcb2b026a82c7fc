//! The history of settings: what each revision changed, who made it, and why.
//!
//! Every commit that changes settings is one revision, kept in that commit, so that the history has no gaps: from its
//! oldest revision on it says what the settings were at each.  It is bounded in number and in age, and forgets the oldest
//! first.  Of secrets it keeps fingerprints: they say whether two values are the same and nothing else.

mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::db::{Conn, Db, revision};
use crate::error::{Error, Kind, Result};
use crate::secret::KEY_LENGTH;

/// How many revisions are kept.
pub const KEPT: i64 = 1_000;
/// How long a revision is kept: somewhat more than a year, so that a yearly audit finds all of it.
pub const KEPT_FOR: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What made a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// New values.
    Update,
    /// Back to the defaults.
    Reset,
    /// Back to an earlier revision.
    Rollback,
    /// Values of an exported document.
    Import,
}

impl Action {
    const ALL: [Self; 4] = [Self::Update, Self::Reset, Self::Rollback, Self::Import];

    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Reset => "reset",
            Self::Rollback => "rollback",
            Self::Import => "import",
        }
    }
}

/// What a revision did to a setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The setting.
    pub key: String,
    /// Whether it is a secret: then the values are fingerprints, or empty for an empty secret.
    pub secret: bool,
    /// The value before; `None` when none was stored.
    pub old: Option<Value>,
    /// The value after; `None` when none is stored any more.
    pub new: Option<Value>,
}

/// A revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Its number: they are counted without gaps.
    pub number: i64,
    /// What made it; `None` for something that a newer version does.
    pub action: Option<Action>,
    /// The key that made it.
    pub actor: String,
    /// Why, in the words of whoever made it.
    pub reason: String,
    /// When.
    pub created_at: Timestamp,
    /// What it changed, by key.
    pub changes: Vec<Change>,
}

/// Makes fingerprints of secrets.
#[derive(Clone)]
pub(super) struct Fingerprints(Zeroizing<[u8; KEY_LENGTH]>);

impl Fingerprints {
    pub(super) fn new(key: &[u8; KEY_LENGTH]) -> Self {
        Self(Zeroizing::new(*key))
    }

    /// The fingerprint of a secret's value: keyed, so that nobody can try values against it, and bound to the setting.
    pub(super) fn of(&self, key: &str, text: &str) -> Value {
        if text.is_empty() {
            return Value::from("");
        }
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        mac.update(format!("setting\n{key}\n{text}").as_bytes());
        let tag = mac.finalize().into_bytes();
        let hex: String = tag.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Value::from(format!("hmac:{hex}"))
    }
}

/// Keeps a revision, and forgets what is too old.
pub(super) async fn record(conn: &mut Conn, revision: Revision) -> Result<()> {
    let Revision { number, action, actor, reason, created_at, changes } = revision;
    let rows = changes.into_iter().map(|change| store::Row {
        revision: number,
        key: change.key,
        secret: change.secret,
        old_value: change.old.map(|value| value.to_string()),
        new_value: change.new.map(|value| value.to_string()),
        action: action.map(Action::word).unwrap_or_default().to_owned(),
        actor: actor.clone(),
        reason: reason.clone(),
        created_at,
    });
    store::insert(conn, rows.collect()).await?;
    compact(conn, number, created_at).await
}

/// Forgets what is too old.
///
/// # Errors
/// When the database can not be reached.
pub async fn forget_old(db: &Db, now: Timestamp) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let current = revision::current(conn, revision::SETTINGS).await?;
            compact(conn, current, now).await
        })
    })
    .await
}

async fn compact(conn: &mut Conn, current: i64, now: Timestamp) -> Result<()> {
    // By number, and never by time alone: revisions go from the oldest on, whatever the clocks of the nodes said.
    let too_old = store::newest_before(conn, now - KEPT_FOR).await?;
    let end = (current - KEPT).max(too_old.unwrap_or(0));
    store::delete_until(conn, end).await
}

/// Refuses a revision that nothing is known of any more: it must be the one before the oldest that is kept, or later.
pub(super) async fn require_known(conn: &mut Conn, revision: i64, current: i64) -> Result<()> {
    let first = store::oldest(conn).await?.map_or(current, |oldest| oldest - 1);
    if revision >= first {
        return Ok(());
    }
    let message =
        format!("revision {revision} of the settings is forgotten; the oldest that is known is {first}");
    Err(Error::new(Kind::OutOfRange, "REVISION_COMPACTED", message)
        .with("oldest_revision", first.to_string()))
}

/// The revisions after this one, in their order, at most `limit` of them.
pub(super) async fn after(conn: &mut Conn, revision: i64, limit: Option<i64>) -> Result<Vec<Revision>> {
    Ok(revisions(store::after(conn, revision, limit).await?))
}

/// The newest revisions before this one, the newest first, with what they did to one setting or to all.
pub(super) async fn before(
    conn: &mut Conn,
    revision: Option<i64>,
    key: Option<&str>,
    limit: usize,
) -> Result<Vec<Revision>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(revisions(store::before(conn, revision, key, limit).await?))
}

/// What undoes everything after a revision: of each setting, its first change since then and its last.
pub(super) async fn since(conn: &mut Conn, revision: i64) -> Result<BTreeMap<String, (Change, Change)>> {
    let mut undo: BTreeMap<String, (Change, Change)> = BTreeMap::new();
    for change in after(conn, revision, None).await?.into_iter().flat_map(|revision| revision.changes) {
        match undo.get_mut(&change.key) {
            Some((_, last)) => *last = change,
            None => drop(undo.insert(change.key.clone(), (change.clone(), change))),
        }
    }
    Ok(undo)
}

fn revisions(rows: Vec<store::Row>) -> Vec<Revision> {
    let mut revisions: Vec<Revision> = Vec::new();
    for row in rows {
        let value = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        let change =
            Change { key: row.key, secret: row.secret, old: value(row.old_value), new: value(row.new_value) };
        match revisions.last_mut().filter(|last| last.number == row.revision) {
            Some(last) => last.changes.push(change),
            None => revisions.push(Revision {
                number: row.revision,
                action: Action::ALL.into_iter().find(|action| action.word() == row.action),
                actor: row.actor,
                reason: row.reason,
                created_at: row.created_at,
                changes: vec![change],
            }),
        }
    }
    revisions
}
