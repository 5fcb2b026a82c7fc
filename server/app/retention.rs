//! Removes what is kept for a limited time, on every node, as the settings say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::audit::Recorder;
use crate::clock::{SharedClock, Timestamp};
use crate::db::Db;
use crate::db::partition::{Droppable, Kept};
use crate::db::sweep::{Round, Sweep, Swept};
use crate::delivery::Table;
use crate::delivery::retention::{Ended, Orphans};
use crate::error::Result;
use crate::id::Kind;
use crate::notification::inbox::{self, Changed, Herald};
use crate::settings::SettingsService;
use crate::{delivery, email, event, webhook};

const INTERVAL: Duration = Duration::from_secs(60);
/// The same after a round that failed, as one does that meets somebody's lock.
const SOON: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What removes, and how far it is.
pub(super) struct Retention {
    pub db: Db,
    pub clock: SharedClock,
    pub settings: Arc<SettingsService>,
    pub audit: Recorder,
    /// Tells the counts of inboxes.
    pub herald: Arc<Herald>,
    /// Asks for a round now.
    pub wake: Arc<Notify>,
    pub stop: CancellationToken,
}

/// How far each table was gone through.
#[derive(Default)]
struct Sweeps {
    deliveries: Sweep,
    emails: Sweep,
    events: Sweep,
    notifications: Sweep,
    broadcasts: Sweep,
    inboxes: Sweep,
    /// On PostgreSQL.
    attempts: Sweep,
    attempt_days: Kept,
    event_days: Kept,
}

impl Retention {
    /// Removes, until it is stopped.
    pub(super) async fn run(self) {
        let mut sweeps = Sweeps::default();
        loop {
            let pause = match self.round(&mut sweeps).await {
                Ok(true) if !self.stop.is_cancelled() => continue,
                Ok(_) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "what is too old could not be removed; it is tried again");
                    SOON
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round over everything; answers whether there is more to do now.
    ///
    /// All of it goes by one time: by a later one than its mails, an event would be found needed that is not any more, and
    /// its day be left alone for an hour.
    async fn round(&self, sweeps: &mut Sweeps) -> Result<bool> {
        let (mut more, now) = (false, self.clock.now());
        prepare(&self.db, now).await?;
        if let Some(before) = self.before("retention.deliveries_days", now) {
            let old = Ended::new(Table::WebhookDeliveries, Kind::WebhookDelivery, before);
            let left = self.sweep(&mut sweeps.deliveries, "webhook deliveries", &old, now).await?;
            more |= left;
            if !left {
                webhook::log::forget_versions(&self.db, before).await?;
            }
            if self.db.is_shared() && !left {
                let orphans = Orphans::new(before);
                self.drop_days(&mut sweeps.attempt_days, &orphans, now).await?;
                more |= self.sweep(&mut sweeps.attempts, "attempts", &orphans, now).await?;
            }
        }
        if let Some(before) = self.before("retention.emails_days", now) {
            more |= self.sweep(&mut sweeps.emails, "mails", &email::retention::Old::new(before), now).await?;
        }
        if let Some(before) = self.before("audit.retention_days", now) {
            more |= self.audit.prune(&self.db, before).await?;
        }
        more |= self.inboxes(sweeps, now).await?;
        // The last: what was made from them may just have gone.
        if let Some(before) = self.before("retention.events_days", now) {
            let mut old = event::retention::Old::new(before);
            if self.db.is_shared() {
                old = event::retention::Old::of_days(before);
                // Not while what needs a day is being removed: it would count as one that can not go for an hour.
                if !more {
                    self.drop_days(&mut sweeps.event_days, &old, now).await?;
                }
            }
            more |= self.sweep(&mut sweeps.events, "events", &old, now).await?;
        }
        Ok(more)
    }

    /// Old notifications and broadcasts; and the counts of inboxes, once a day.
    async fn inboxes(&self, sweeps: &mut Sweeps, now: Timestamp) -> Result<bool> {
        let (mut more, changed) = (false, Changed::default());
        if let Some(before) = self.before("notifications.retention_days", now) {
            let old = inbox::retention::Old { before, changed: changed.clone() };
            more |= self.sweep(&mut sweeps.notifications, "notifications", &old, now).await?;
            let old = inbox::retention::OldBroadcasts { before };
            let round = sweeps.broadcasts.round(&self.db, &old, now, &self.stop).await?;
            more |= round.removed > 0;
        }
        let recount = inbox::retention::Recount { changed: changed.clone() };
        let Round { removed, more: left } = sweeps.inboxes.round(&self.db, &recount, now, &self.stop).await?;
        changed.tell(&self.herald);
        if removed > 0 {
            tracing::error!(inboxes = removed, "the counts of inboxes were not those of their notifications");
        }
        Ok(more | left)
    }

    async fn sweep<W: Swept>(&self, sweep: &mut Sweep, name: &str, what: &W, now: Timestamp) -> Result<bool> {
        let Round { removed, more } = sweep.round(&self.db, what, now, &self.stop).await?;
        if removed > 0 {
            tracing::info!(removed, "{name} were removed for their age");
        }
        Ok(more)
    }

    async fn drop_days<D: Droppable>(&self, kept: &mut Kept, what: &D, now: Timestamp) -> Result<()> {
        let dropped = kept.drop_old(&self.db, what, now).await?;
        if dropped > 0 {
            tracing::info!(dropped, table = what.daily().table, "partitions were dropped for their age");
        }
        Ok(())
    }

    /// What is older than this may go now; `None` when it is kept for ever.
    fn before(&self, setting: &str, now: Timestamp) -> Option<Timestamp> {
        let days = u32::try_from(self.settings.values().integer(setting)).ok().filter(|days| *days > 0)?;
        Some(now - days * DAY)
    }
}

/// Makes the partitions of the next days, where there are any.
pub(super) async fn prepare(db: &Db, now: Timestamp) -> Result<()> {
    event::retention::DAILY.prepare(db, now).await?;
    delivery::retention::DAILY.prepare(db, now).await
}
