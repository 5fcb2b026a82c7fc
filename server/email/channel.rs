//! One attempt: render, compose, sign and hand over; or capture, while mail is not to leave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::{EmailConfig, SharedConfig};
use super::intake::SMALL;
use super::message::Composer;
use super::model::{Attachment, Content, Mail, Priority};
use super::transport::{Message, Transport};
use super::{address, compose, limit, outcome, store};
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Conn, Db};
use crate::delivery::limit::store as limits;
use crate::delivery::{Attempt, Channel, Hold, Leased, Outcome, Policy, Room, Table};
use crate::error::Result;

/// How much memory large mails may take while they are sent, in KiB.
const LARGE_BUDGET: usize = 96 * 1024;

/// The email channel of the delivery engine.
pub struct EmailChannel {
    db: Db,
    config: SharedConfig,
    transport: Arc<dyn Transport>,
    composer: Composer,
    clock: SharedClock,
    policies: [Arc<Policy>; 2],
    large: Semaphore,
}

impl EmailChannel {
    /// A channel that follows these settings.
    pub fn new(
        db: Db,
        config: SharedConfig,
        transport: Arc<dyn Transport>,
        composer: Composer,
        clock: SharedClock,
    ) -> Self {
        let policies = Priority::ALL.map(|priority| Arc::new(policy(priority)));
        Self { db, config, transport, composer, clock, policies, large: Semaphore::new(LARGE_BUDGET) }
    }

    async fn capture(&self, mail: &Mail, content: Content, config: &EmailConfig) -> Attempt {
        let from = compose::sender(config).map_or_else(|_| String::new(), |sender| sender.to_string());
        match store::capture(&self.db, mail.id.clone(), from, content, self.clock.now()).await {
            Ok(()) => Attempt { response_body: Some("captured".into()), ..Attempt::new(Outcome::Succeeded) },
            Err(error) => Attempt::failed(
                Outcome::Retry { after: None },
                format!("the mail could not be captured: {}", error.message()),
            ),
        }
    }

    /// Room in memory for a mail that is large, which is kept until it is handed over.
    async fn budget(&self, mail: &Mail) -> Option<SemaphorePermit<'_>> {
        let files: u64 = mail.attachments.iter().map(|file| file.size).sum();
        let is_read_late =
            mail.template.is_empty() && mail.html_body.is_empty() && mail.plain_body.is_empty();
        if files == 0 && !is_read_late {
            return None;
        }
        // What is read, what is composed of it, and what is on its way.
        let kilobytes = (files / 1024 * 4) as usize + if is_read_late { 8 * 1024 } else { 0 } + SMALL / 1024;
        self.large.acquire_many(kilobytes.min(LARGE_BUDGET) as u32).await.ok()
    }

    /// The mail with the bodies that were not kept in memory.
    async fn bodies(&self, mail: &Mail) -> Result<Option<Mail>> {
        if !mail.template.is_empty() || !mail.html_body.is_empty() || !mail.plain_body.is_empty() {
            return Ok(None);
        }
        let found = store::content_of(&self.db, &mail.id).await?;
        Ok(found.map(|(html_body, plain_body)| Mail { html_body, plain_body, ..mail.clone() }))
    }

    async fn files(&self, mail: &Mail) -> Result<Vec<(Attachment, Bytes)>> {
        let mut files = Vec::with_capacity(mail.attachments.len());
        for file in &mail.attachments {
            let content = store::blob(&self.db, &file.blob_id).await?;
            files.push((file.clone(), content.unwrap_or_default()));
        }
        Ok(files)
    }

    /// Sends a mail to those of its recipients that are not done.
    async fn send(&self, mail: &Arc<Mail>, to: Vec<String>) -> Attempt {
        let config = self.config.load_full();
        let written = match self.composer.write(mail, &config) {
            Ok(written) => written,
            Err(error) => {
                let error = format!("the template {} can not be rendered: {error}", mail.template);
                return Attempt::failed(Outcome::Refused, error);
            }
        };
        if !config.sends() {
            return self.capture(mail, written.content, &config).await;
        }
        let files = match self.files(mail).await {
            Ok(files) => files,
            Err(error) => return Attempt::failed(Outcome::Retry { after: None }, error.message()),
        };
        let composed = match self.composer.compose(mail, written, files, &config, self.clock.now()).await {
            Ok(composed) => composed,
            Err((outcome, error)) => return Attempt::failed(outcome, error),
        };
        let urgent = mail.priority == Priority::Transactional;
        let message = Message { from: composed.from, to: to.clone(), content: composed.content, urgent };
        let report = self.transport.send(message).await;
        let delivered_before = mail.settled.iter().any(|settled| settled.delivered);
        outcome::judge(&mail.id, &to, report, delivered_before, self.clock.now())
    }
}

impl Channel for EmailChannel {
    type Payload = Arc<Mail>;

    fn table(&self) -> Table {
        Table::EmailQueue
    }

    fn policy(&self, job: &Leased<Arc<Mail>>) -> Arc<Policy> {
        Arc::clone(&self.policies[job.payload.priority as usize])
    }

    async fn attempt(&self, job: &Leased<Arc<Mail>>) -> Attempt {
        let mail = &job.payload;
        if mail.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Attempt::failed(Outcome::Withdrawn, "it had gone stale before it could be sent");
        }
        if let Some(Hold { why, until }) = &mail.hold {
            return Attempt::failed(Outcome::Held { until: *until }, why.clone());
        }
        if mail.recipients().next().is_none() {
            return Attempt::failed(
                Outcome::Refused,
                "the mail has no recipient: the event's data has no mail address where the route looks for it",
            );
        }
        let to = open_recipients(mail);
        if to.is_empty() {
            let delivered = mail.settled.iter().any(|settled| settled.delivered);
            let outcome = if delivered { Outcome::Succeeded } else { Outcome::Withdrawn };
            return Attempt::failed(outcome, "nobody is left to get it");
        }
        let _budget = self.budget(mail).await;
        match self.bodies(mail).await {
            Ok(Some(whole)) => self.send(&Arc::new(whole), to).await,
            Ok(None) => self.send(mail, to).await,
            Err(error) => Attempt::failed(Outcome::Retry { after: None }, error.message()),
        }
    }

    fn rank(&self, lane: &str) -> u8 {
        Priority::of_lane(lane) as u8
    }

    fn room<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        wanted: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Room>> {
        async move {
            let config = self.config.load_full();
            if !config.sends() {
                return Ok(Room { granted: wanted, hold: None });
            }
            if let Some(hold) = self.transport.holds().into_iter().next() {
                let hold = Hold { why: hold.why, until: now + hold.retry_in };
                return Ok(Room { granted: 0, hold: Some(hold) });
            }
            let Some(limit) = limit::of_lane(&config, Priority::of_lane(lane)) else {
                return Ok(Room { granted: wanted, hold: None });
            };
            let usage = limits::usage_of(conn, &limit::hourly(limit), now).await?;
            let granted = usize::try_from(usage.left(limit)).unwrap_or(usize::MAX).min(wanted);
            Ok(Room { granted, hold: (granted < wanted).then(|| limit::hold(&config, usage)) })
        }
        .boxed()
    }

    fn claimed<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        count: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let config = self.config.load_full();
            let Some(limit) = limit::of_lane(&config, Priority::of_lane(lane)).filter(|_| count > 0) else {
                return Ok(());
            };
            let limit = limit::hourly(limit);
            let mut usage = limits::usage_of(conn, &limit, now).await?;
            usage.used += count as u64;
            limits::put(conn, &limit, usage).await
        }
        .boxed()
    }

    fn load<'a>(
        &'a self,
        conn: &'a mut Conn,
        ids: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<(String, Arc<Mail>)>>> {
        async move {
            let config = self.config.load_full();
            store::load(conn, ids, &config, self.clock.now()).await
        }
        .boxed()
    }
}

/// When a mail is tried again: for about a day when somebody waits for it, for three when nobody does.
fn policy(priority: Priority) -> Policy {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut schedule = vec![Duration::from_secs(30)];
    schedule.extend([2, 10, 30, 60, 2 * 60, 4 * 60].map(minutes));
    let long = match priority {
        Priority::Transactional => 2,
        Priority::Bulk => 8,
    };
    schedule.extend(std::iter::repeat_n(minutes(8 * 60), long));
    Policy { schedule, longest_wait: minutes(4 * 60) }
}

/// The addresses, each once, of the recipients that are not done.
fn open_recipients(mail: &Mail) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    for address in mail.recipients().filter_map(address::envelope_address) {
        let is_settled = || mail.settled.iter().any(|done| done.address.eq_ignore_ascii_case(&address));
        if !open.iter().any(|known| known.eq_ignore_ascii_case(&address)) && !is_settled() {
            open.push(address);
        }
    }
    open
}
