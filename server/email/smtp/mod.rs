//! The SMTP lane: our own client.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::config::Smtp;
use super::transport::{Hold, Message, Report, Transport, Verdict};
use crate::clock::SharedClock;
use crate::secret::SharedRandom;

/// The providers of the newest settings, with their connections.
pub struct SmtpTransport {
    _clock: SharedClock,
    _random: SharedRandom,
}

impl SmtpTransport {
    /// A transport without providers.
    pub fn new(clock: SharedClock, random: SharedRandom) -> Self {
        Self { _clock: clock, _random: random }
    }

    /// Uses these providers from now on.  Those that stay the same keep their connections.
    pub fn reconfigure(&self, _providers: &[Smtp]) {}
}

impl Transport for SmtpTransport {
    fn send(&self, message: Message) -> BoxFuture<'_, Report> {
        let held = Verdict::Held { why: "there is no provider".into(), retry_in: Duration::from_secs(60) };
        async move {
            Report {
                recipients: vec![held; message.to.len()],
                summary: "there is no provider".into(),
                code: None,
                transcript: None,
            }
        }
        .boxed()
    }

    fn holds(&self) -> Vec<Hold> {
        Vec::new()
    }
}
