//! What inboxes need of other parts: mails for what was not seen, and the way to devices.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::email::intake::{Arrival, Intake};
use crate::email::model::Mail;
use crate::email::{SharedConfig, address};
use crate::error::Result;
use crate::event::Fact;
use crate::event::ephemeral::{Ephemeral, EphemeralHub};
use crate::id::{IdGenerator, Kind};
use crate::notification::inbox::mails::AfterCommit;
use crate::notification::inbox::{Devices, FallbackMail, InboxService, Mails};
use crate::notification::registry::Registry as LiveStreams;

/// How often a node looks for mails that are due and for what has expired.
const INTERVAL: Duration = Duration::from_secs(15);

/// Mails about notifications go the way of all mails.
pub(super) struct FallbackMails {
    pub intake: Intake,
    pub config: SharedConfig,
    pub ids: Arc<IdGenerator>,
}

impl FallbackMails {
    fn mail(&self, mail: FallbackMail, now: Timestamp) -> Option<Arrival> {
        let FallbackMail { event_id, email_address, template, mut variables } = mail;
        // An application may have published one with whatever it likes.
        let to = address::parse(&email_address).ok()?.to_string();
        let path =
            variables.get("action_url").and_then(|url| url.as_str()).filter(|url| url.starts_with('/'));
        if let Some(path) = path {
            let config = self.config.load();
            let site = config.branding.site_url.trim_end_matches('/');
            let url = if site.is_empty() { String::new() } else { format!("{site}{path}") };
            variables.insert("action_url".into(), url.into());
        }
        let mail = Mail {
            id: self.ids.next(Kind::Email),
            event_id: Some(event_id),
            template: template.to_owned(),
            variables,
            to: vec![to],
            created_at: now,
            ..Mail::default()
        };
        Some(Arc::new(mail).into())
    }
}

impl Mails for FallbackMails {
    fn check_address(&self, text: &str) -> Result<String, String> {
        address::parse(text).map(|mailbox| mailbox.to_string())
    }

    fn queue<'a>(
        &'a self,
        conn: &'a mut Conn,
        mails: Vec<FallbackMail>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<AfterCommit>> {
        let arrivals = mails.into_iter().filter_map(|mail| self.mail(mail, now)).collect();
        async move { self.intake.queue(conn, arrivals, now).await }.boxed()
    }
}

/// Devices are live streams.
pub(super) struct Streams {
    pub hub: Arc<EphemeralHub>,
    pub live: Arc<LiveStreams>,
}

impl Devices for Streams {
    fn tell(&self, fact: Arc<Fact>, collapse_key: &str, everywhere: bool) {
        let event = Ephemeral::new(fact, collapse_key);
        if everywhere { self.hub.publish(event) } else { self.hub.publish_local(event) }
    }

    fn users(&self) -> Vec<String> {
        self.live.users()
    }
}

/// Looks for what is due, until it is stopped.
pub(super) async fn run(inbox: Arc<InboxService>, wake: Arc<Notify>, stop: CancellationToken) {
    loop {
        let looked = async {
            while inbox.send_due().await? > 0 {}
            while inbox.expire().await? > 0 {}
            Ok::<_, crate::error::Error>(())
        };
        if let Err(error) = looked.await {
            tracing::warn!(%error, "what is due in inboxes could not be done; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
