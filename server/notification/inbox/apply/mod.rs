//! Does to inboxes what events say, in the transaction that publishes them.
//!
//! Whoever changes an inbox holds its row in `inboxes` until the commit, in the order of the users, so that the counts
//! there are those of the rows whatever happens at the same time.  Counts change by what the very rows were that a change
//! found.

mod broadcasts;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::AddAssign;

use futures_util::FutureExt;

use super::model::{BROADCAST_LIMIT, Content, INBOX_LIMIT, Mark, Priority, Selection};
use super::preferences::Wishes;
use crate::clock::Timestamp;
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};
use store::Tx;

/// A notification for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the table")]
pub struct Delivery {
    pub user_id: String,
    pub id: String,
    pub position: i64,
    pub event_id: String,
    pub content: Content,
    pub replace_key: Option<String>,
    pub created_at: Timestamp,
    /// The mail if it is not seen.
    pub mail: Option<Due>,
}

/// When a mail is to go, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the table")]
pub struct Due {
    pub at: Timestamp,
    pub email_address: String,
}

/// A notification for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the table")]
pub struct Broadcast {
    pub id: String,
    pub position: i64,
    pub event_id: String,
    pub content: Content,
    pub created_at: Timestamp,
}

/// What is different about a notification; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the table")]
pub struct Change {
    pub category: Option<String>,
    pub title: Option<String>,
    pub message: Option<String>,
    pub priority: Option<Priority>,
    pub action_url: Option<String>,
    pub data: Option<String>,
    pub expires_at: Option<Option<Timestamp>>,
}

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the events")]
pub enum Op {
    Deliver(Box<Delivery>),
    Broadcast(Box<Broadcast>),
    Mark {
        mark: Mark,
        selection: Selection,
        at: Timestamp,
        event_id: String,
    },
    /// Of a broadcast when there is no user.
    Change {
        user_id: Option<String>,
        id: String,
        change: Change,
        mark_unread: bool,
        at: Timestamp,
        position: i64,
    },
    /// Of a broadcast when there is no user.
    Withdraw {
        user_id: Option<String>,
        id: String,
        at: Timestamp,
    },
}

impl Op {
    fn user_id(&self) -> Option<&str> {
        match self {
            Self::Deliver(delivery) => Some(&delivery.user_id),
            Self::Broadcast(_) => None,
            Self::Mark { selection, .. } => Some(&selection.user_id),
            Self::Change { user_id, .. } | Self::Withdraw { user_id, .. } => user_id.as_deref(),
        }
    }
}

/// How counts change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Delta {
    unread: i64,
    unseen: i64,
    total: i64,
}

impl AddAssign for Delta {
    fn add_assign(&mut self, other: Self) {
        self.unread += other.unread;
        self.unseen += other.unseen;
        self.total += other.total;
    }
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many notifications each marking event changed.
    pub changed: HashMap<String, i64>,
    /// Whose counts may be others now.
    pub users: BTreeSet<String>,
    /// Whether everybody's may be.
    pub everybody: bool,
}

/// Does it on SQLite.
pub fn sqlite(conn: &mut SqliteWriter, ops: &[Op]) -> QueryResult<Applied> {
    let mut tx = Tx::Sqlite(conn);
    // Nothing on this connection waits.
    store::at_once(all(&mut tx, ops).now_or_never())
}

/// Does it on PostgreSQL.
pub async fn postgres(conn: &mut PostgresWriter, ops: &[Op]) -> QueryResult<Applied> {
    all(&mut Tx::Postgres(conn), ops).await
}

async fn all(tx: &mut Tx<'_>, ops: &[Op]) -> QueryResult<Applied> {
    let mut applied = Applied::default();
    let users: BTreeSet<&str> = ops.iter().filter_map(Op::user_id).collect();
    tx.hold(&users).await?;
    let mut rest = ops;
    while let Some(op) = rest.first() {
        let run = deliveries(rest);
        if !run.is_empty() {
            deliver(tx, &run, &mut applied).await?;
            rest = &rest[run.len()..];
            continue;
        }
        one(tx, op, &mut applied).await?;
        rest = &rest[1..];
    }
    Ok(applied)
}

/// The deliveries that come first, as long as none takes the place of another of them.
fn deliveries(ops: &[Op]) -> Vec<&Delivery> {
    let mut places = HashSet::new();
    let mut fits = |delivery: &Delivery| match &delivery.replace_key {
        Some(key) => places.insert((delivery.user_id.clone(), key.clone())),
        None => true,
    };
    ops.iter()
        .map_while(|op| match op {
            Op::Deliver(delivery) if fits(delivery) => Some(&**delivery),
            _ => None,
        })
        .collect()
}

async fn deliver(tx: &mut Tx<'_>, run: &[&Delivery], applied: &mut Applied) -> QueryResult<()> {
    let users: BTreeSet<&str> = run.iter().map(|delivery| delivery.user_id.as_str()).collect();
    let wishes = Wishes::of(tx.wishes(&users).await?);
    let wanted = |delivery: &&&Delivery| {
        delivery.content.priority == Priority::Critical
            || wishes.want(&delivery.user_id, &delivery.content.category)
    };
    let wanted: Vec<&Delivery> = run.iter().filter(wanted).copied().collect();
    let mut deltas: BTreeMap<String, Delta> = BTreeMap::new();
    for (user_id, tally) in tx.remove_replaced(&wanted).await? {
        *deltas.entry(user_id).or_default() += tally.removed();
    }
    let inserted: HashSet<(String, String)> = tx.insert(&wanted).await?.into_iter().collect();
    for (user_id, _) in &inserted {
        *deltas.entry(user_id.clone()).or_default() += Delta { unread: 1, unseen: 1, total: 1 };
    }
    let is_new = |delivery: &&Delivery| inserted.contains(&(delivery.user_id.clone(), delivery.id.clone()));
    let new: Vec<&Delivery> = wanted.into_iter().filter(|delivery| is_new(delivery)).collect();
    tx.insert_mails(&new).await?;
    for (user_id, total) in tx.count(&deltas).await? {
        let over = total - INBOX_LIMIT;
        if over > 0 {
            let tally = tx.remove_oldest(&user_id, over).await?;
            tx.count(&BTreeMap::from([(user_id, tally.removed())])).await?;
        }
    }
    applied.users.extend(deltas.into_keys());
    Ok(())
}

async fn one(tx: &mut Tx<'_>, op: &Op, applied: &mut Applied) -> QueryResult<()> {
    match op {
        // A run of at least one.
        Op::Deliver(delivery) => deliver(tx, &[&**delivery], applied).await,
        Op::Broadcast(broadcast) => {
            if tx.insert_broadcast(broadcast).await? {
                tx.limit_broadcasts(BROADCAST_LIMIT, broadcast.created_at).await?;
                tx.count_broadcasts().await?;
                applied.everybody = true;
            }
            Ok(())
        }
        Op::Mark { mark, selection, at, event_id } => {
            let tally = tx.mark(*mark, selection, *at).await?;
            let broadcasts = tx.mark_broadcasts(*mark, selection, *at).await?;
            let changed = tally.rows + broadcasts;
            applied.changed.insert(event_id.clone(), changed);
            if changed > 0 {
                counted(tx, applied, &selection.user_id, tally.marked(*mark)).await?;
            }
            Ok(())
        }
        Op::Change { user_id: Some(user_id), id, change, mark_unread, at, position } => {
            let unread_at = mark_unread.then_some(*position);
            let tally = tx.change(user_id, id, change, unread_at, *at).await?;
            if tally.rows > 0 {
                let delta = if *mark_unread { tally.reset() } else { Delta::default() };
                counted(tx, applied, user_id, delta).await?;
            }
            Ok(())
        }
        Op::Change { user_id: None, id, change, mark_unread, at, position } => {
            if tx.change_broadcast(id, change, mark_unread.then_some(*position), *at).await? {
                tx.count_broadcasts().await?;
                applied.everybody = true;
            }
            Ok(())
        }
        Op::Withdraw { user_id: Some(user_id), id, .. } => {
            let tally = tx.remove(user_id, id).await?;
            if tally.rows > 0 {
                counted(tx, applied, user_id, tally.removed()).await?;
            }
            Ok(())
        }
        Op::Withdraw { user_id: None, id, at } => {
            if tx.withdraw_broadcast(id, *at).await? {
                tx.count_broadcasts().await?;
                applied.everybody = true;
            }
            Ok(())
        }
    }
}

async fn counted(tx: &mut Tx<'_>, applied: &mut Applied, user_id: &str, delta: Delta) -> QueryResult<()> {
    tx.count(&BTreeMap::from([(user_id.to_owned(), delta)])).await?;
    applied.users.insert(user_id.to_owned());
    Ok(())
}
