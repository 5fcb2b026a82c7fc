//! Callers that queue mails, and the settings under which the server hands them over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use switchboard::rpc::convert::{from_json, from_json_value};
use switchboard_client::Authenticated;
use switchboard_client::email::v1::batch_send_emails_result::Result as Outcome;
use switchboard_client::email::v1::email_service_client::EmailServiceClient;
use switchboard_client::email::v1::{BatchMode, BatchSendEmailsRequest, SendEmailRequest};
use switchboard_client::settings::v1::UpdateSettingsRequest;
use tonic::transport::Channel;

use crate::client::{client, connections};
use crate::error::{Context, Result};

/// As many connections as each that is measured has to the SMTP server.
pub const CONNECTIONS: usize = 20;

/// The key that signs, Ed25519: of the right form, and in nobody's DNS.
const DKIM_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFRoZU1haWxzVGhhdFRoaXNLZXlTaWduc0dvTm93aGVy
-----END PRIVATE KEY-----
";

/// The template of the mails.
const TEMPLATE: &str = "ticket_created";

/// Lets the server hand mails over at this port of loopback, signed and without limits.
pub async fn configure(server: &str, port: u16) -> Result<()> {
    let settings = json!({
        "email.dkim_private_key": DKIM_KEY,
        "email.hourly_limit": 0,
        "email.smtp_connections": CONNECTIONS,
        "email.smtp_host": "127.0.0.1",
        "email.smtp_messages_per_connection": 100_000,
        "email.smtp_port": port,
        "email.smtp_tls": "none",
    });
    let values = object(settings).into_iter().map(|(key, value)| (key, from_json_value(value))).collect();
    let request = UpdateSettingsRequest { values, ..UpdateSettingsRequest::default() };
    let channel = connections(server, 1).await?.remove(0);
    client(channel)?.settings().update_settings(request).await.context("UpdateSettings")?;
    Ok(())
}

/// Makes mails, each to somebody else about another ticket.
#[derive(Clone, Default)]
pub struct Mails {
    number: Arc<AtomicU64>,
    send_time: Option<prost_types::Timestamp>,
}

impl Mails {
    /// Such that wait until then.
    pub fn due_at(time: prost_types::Timestamp) -> Self {
        Self { number: Arc::default(), send_time: Some(time) }
    }

    /// The next one.
    fn next(&self) -> SendEmailRequest {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        SendEmailRequest {
            to: vec![format!("recipient-{number}@example.net")],
            template: TEMPLATE.to_owned(),
            variables: Some(from_json(object(variables(number)))),
            send_time: self.send_time,
            ..SendEmailRequest::default()
        }
    }
}

/// As an application would give them.
fn variables(number: u64) -> Value {
    json!({
        "user_name": "Ada",
        "ticket_id": number,
        "ticket_title": "Pump 3 in hall B has stopped and does not start again",
        "priority": "High",
        "status": "Open",
        "ticket_url": format!("https://desk.example.com/tickets/{number}"),
        "created_at": "2026-01-31T10:29:55Z",
    })
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// Queues many mails in each call.
#[derive(Clone)]
pub struct Mailer {
    client: EmailServiceClient<Authenticated>,
    mails: Mails,
}

impl Mailer {
    /// One that uses this connection.
    pub fn new(channel: Channel, mails: &Mails) -> Result<Self> {
        Ok(Self { client: client(channel)?.emails(), mails: mails.clone() })
    }

    /// Queues so many mails and gives their ids. One that is refused ends the measurement.
    pub async fn queue(&mut self, count: usize) -> Result<Vec<String>> {
        let emails = (0..count).map(|_| self.mails.next()).collect();
        let request = BatchSendEmailsRequest { emails, mode: BatchMode::Strict.into() };
        let answer = self.client.batch_send_emails(request).await.context("BatchSendEmails")?.into_inner();
        let ids = answer.results.into_iter().map(|result| match result.result {
            Some(Outcome::Sent(sent)) => Ok(sent.email_id),
            other => Err(format!("a mail was not queued: {other:?}").into()),
        });
        let ids = ids.collect::<Result<Vec<String>>>()?;
        if ids.len() == count {
            Ok(ids)
        } else {
            Err(format!("{} answers for {count} mails", ids.len()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard::email::template::{Branding, render};

    use super::*;

    #[test]
    fn the_mails_are_of_4_kib_or_more() {
        let branding = Branding {
            company_name: "Switchboard".into(),
            site_url: "https://example.com".into(),
            support_email: "support@example.com".into(),
            logo_url: None,
            colour: "#2F6FDE".into(),
        };
        let rendered = render(TEMPLATE, &object(variables(4_711)), &branding).unwrap();
        let size = rendered.html.len() + rendered.text.len();
        assert!((4_096..=8_192).contains(&size), "{size}");
    }

    #[test]
    fn every_mail_is_to_somebody_else() {
        let mails = Mails::default();
        let (one, other) = (mails.next(), mails.next());
        assert_ne!(one.to, other.to);
        assert_ne!(one.variables, other.variables);
        assert!(one.send_time.is_none());
    }
}
