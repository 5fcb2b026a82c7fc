//! Finds deliveries that are due in the database: retries, what did not fit in hand, what a dead process left behind.
//!
//! It looks every half second, at once when a lane with a backlog has room again, and when it is woken.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::block::{self, Hold};
use super::engine::{Channel, Leased, Shared};
use super::worker::submit;
use super::{set_back, store};
use crate::clock::Stopwatch;
use crate::error::Result;
use crate::failpoint;

const INTERVAL: Duration = Duration::from_millis(500);
/// How often to look for strays.
const STRAY_INTERVAL: Duration = Duration::from_secs(5);
/// How many rows of a blocked lane get their label at a time.
const LABELS: i64 = 500;
/// How many are claimed at a time.
const CLAIM: usize = 256;

pub(super) async fn run<C: Channel>(shared: Arc<Shared<C>>, stop: CancellationToken) {
    let (mut strays, mut watch) = (Strays::default(), set_back::Watch::default());
    let mut set_back = None;
    if failpoint::bug("recovery_late") {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    loop {
        if shared.db.is_shared()
            && let Err(error) = strays.look(&shared).await
        {
            tracing::warn!(channel = shared.channel.table().channel(), %error, "looking for strays failed");
        }
        set_back = watch.set_back(&shared.clock).or(set_back);
        if let Some(back) = set_back {
            match after_set_back(&shared, back).await {
                Ok(()) => set_back = None,
                Err(error) => {
                    tracing::warn!(channel = shared.channel.table().channel(), %error, "what waits could not be brought forward");
                }
            }
        }
        if shared.node.holds_lease()
            && let Err(error) = poll(&shared).await
        {
            tracing::warn!(channel = shared.channel.table().channel(), %error, "looking for due deliveries failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => {}
            () = shared.lanes.room.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Deliveries that the database says this node has in hand, and that it has not.
///
/// A commit whose outcome is unknown, as when the connection broke in it, may have leased rows to this node that it
/// never took.  What is a stray twice, with time between, was no hand-over under way.
#[derive(Default)]
struct Strays {
    seen: HashSet<(String, i64)>,
    looked: Option<Stopwatch>,
}

impl Strays {
    async fn look<C: Channel>(&mut self, shared: &Arc<Shared<C>>) -> Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < STRAY_INTERVAL) {
            return Ok(());
        }
        self.looked = Some(Stopwatch::start());
        let (table, owner) = (shared.channel.table(), shared.node.id());
        let owned = store::owned(&mut shared.db.reader().await?, table, owner).await?;
        let strays: HashSet<_> = shared.lanes.without(owned).into_iter().collect();
        let lost: Vec<_> = strays.intersection(&self.seen).cloned().collect();
        self.seen = strays;
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            channel = table.channel(),
            count = lost.len(),
            "deliveries of an unknown commit return to the queue"
        );
        store::give_back(&shared.db, table, owner, lost, shared.clock.now()).await
    }
}

/// The clock was ahead, and was set back: nothing is to wait for the time that it told before.
async fn after_set_back<C: Channel>(shared: &Arc<Shared<C>>, back: Duration) -> Result<()> {
    let table = shared.channel.table();
    shared.blocks.clear();
    let moved = set_back::store::bring_forward(&shared.db, table, shared.clock.now()).await?;
    tracing::warn!(channel = table.channel(), ?back, moved, "the clock was set back");
    Ok(())
}

async fn poll<C: Channel>(shared: &Arc<Shared<C>>) -> Result<()> {
    let abandoned = std::mem::take(&mut *shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner));
    if !abandoned.is_empty() {
        let (table, owner, now) = (shared.channel.table(), shared.node.id(), shared.clock.now());
        if let Err(error) = store::give_back(&shared.db, table, owner, abandoned.clone(), now).await {
            shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner).extend(abandoned);
            return Err(error);
        }
    }
    let now = shared.clock.now();
    let mut due = store::due_lanes(&mut shared.db.reader().await?, shared.channel.table(), now).await?;
    due.sort_by_key(|lane| shared.channel.rank(lane));
    for lane in due {
        let lane: Arc<str> = lane.into();
        if let Some(hold) = shared.blocks.hold(&lane, now) {
            shared.lanes.set_backlog(&lane, false);
            label(shared, &lane, &hold).await?;
            continue;
        }
        let more = claim(shared, &lane).await?;
        shared.lanes.set_backlog(&lane, more);
    }
    Ok(())
}

/// Says on some of the rows of a blocked lane that they are held, and why.
async fn label<C: Channel>(shared: &Arc<Shared<C>>, lane: &Arc<str>, hold: &Hold) -> Result<()> {
    let Some(cursor) = shared.blocks.cursor(lane) else {
        return Ok(());
    };
    let (table, now) = (shared.channel.table(), shared.clock.now());
    let next = block::store::label_held(&shared.db, table, lane, &hold.why, cursor, now, LABELS).await?;
    if next.is_some() {
        shared.wake.notify_one();
    }
    shared.blocks.labelled(lane, next);
    Ok(())
}

/// Claims what fits; answers whether there may be more.
async fn claim<C: Channel>(shared: &Arc<Shared<C>>, lane: &Arc<str>) -> Result<bool> {
    let term = shared.node.term();
    let wanted = shared.lanes.free(lane).min(CLAIM);
    let mut slots: Vec<_> = (0..wanted).map_while(|_| shared.lanes.reserve(lane, term)).collect();
    if slots.is_empty() {
        return Ok(true);
    }
    let (table, owner, now, limit) =
        (shared.channel.table(), shared.node.id(), shared.clock.now(), slots.len());
    let (name, channel) = (Arc::clone(lane), Arc::clone(&shared.channel));
    let ended = shared.blocks.ended();
    let (claimed, payloads, room) = shared
        .db
        .transaction(move |conn| {
            Box::pin(async move {
                let room = channel.room(conn, &name, limit, now).await?;
                if room.granted == 0 {
                    return Ok((Vec::new(), Vec::new(), room));
                }
                let claimed = store::claim(conn, table, &name, owner, now, room.granted as i64).await?;
                channel.claimed(conn, &name, claimed.len(), now).await?;
                let ids = claimed.iter().map(|row| row.id.clone()).collect();
                let payloads = channel.load(conn, ids).await?;
                Ok((claimed, payloads, room))
            })
        })
        .await?;
    let more = claimed.len() == limit;
    if let Some(hold) = room.hold.filter(|_| claimed.len() == room.granted) {
        tracing::info!(channel = table.channel(), %lane, why = hold.why, "the lane is held");
        shared.blocks.block(lane, hold, ended);
        // Labels what waits.
        shared.wake.notify_one();
    }
    let mut payloads: std::collections::HashMap<_, _> = payloads.into_iter().collect();
    let mut lost = Vec::new();
    for row in claimed {
        let Some(slot) = slots.pop() else { break };
        let Some(payload) = payloads.remove(&row.id) else {
            lost.push(row.id);
            continue;
        };
        let count = |count| u32::try_from(count).unwrap_or(0);
        let (attempts, attempts_before) = (count(row.attempts), count(row.attempts_before));
        let job = Leased {
            id: row.id,
            lane: Arc::clone(lane),
            attempts,
            attempts_before,
            due: row.next_attempt_at,
            token: row.lease_token,
            ordering_key: row.ordering_key.map(Arc::from),
            payload,
        };
        submit(shared, slot, job);
    }
    if !lost.is_empty() {
        tracing::warn!(
            channel = table.channel(),
            count = lost.len(),
            "deliveries have lost what they should deliver"
        );
        store::give_up(&shared.db, table, lost, now).await?;
    }
    Ok(more)
}
