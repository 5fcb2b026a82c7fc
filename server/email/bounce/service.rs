//! The use case of reports.

use std::sync::Arc;

use super::parse::{self, Reported};
use super::store;
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Conn, Db};
use crate::email::activity::{self, ActivityKind, NewActivity};
use crate::email::suppression::{self, NewSuppression, Origin, Reason};
use crate::error::{Error, Result};
use crate::id::{IdGenerator, Kind};

const MESSAGE_LIMIT: usize = 1024 * 1024;

/// What a report says of a recipient, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounced {
    /// The address.
    pub address: String,
    /// [`ActivityKind::Bounced`] or [`ActivityKind::Complained`].
    pub kind: ActivityKind,
    /// The enhanced status code (RFC 3463); empty for a complaint.
    pub status: String,
    /// What the far server said.
    pub diagnostic: String,
    /// The mail; `None` when it is not one that this server sent to the address.
    pub email_id: Option<String>,
    /// Whether the address is suppressed by this report.
    pub suppressed: bool,
}

/// Takes reports.
pub struct BounceService {
    /// The database.
    pub db: Db,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl BounceService {
    /// Takes a report as it came by mail (RFC 3464, RFC 5965); answers the recipients that did not get a mail, or
    /// complained.  Recipients whose mail is only late are not among them.
    ///
    /// Anybody can send such a report, so that it is believed only about a mail that this server sent, to a recipient
    /// of that mail; of any other, nothing is written.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a message that is no report.
    pub async fn report(&self, message: &[u8]) -> Result<Vec<Bounced>> {
        if message.len() > MESSAGE_LIMIT {
            return Err(Error::field("message", "must have at most 1 MiB"));
        }
        let report = parse::parse(message).map_err(|wrong| Error::field("message", wrong))?;
        let (ids, now) = (Arc::clone(&self.ids), self.clock.now());
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    let mail = sent(conn, &report.email_ids).await?;
                    let mut answers = Vec::with_capacity(report.recipients.len());
                    for reported in report.recipients {
                        let mut bounced = of_mail(reported, mail.as_ref());
                        write(conn, &ids, now, &mut bounced).await?;
                        answers.push(bounced.answer);
                    }
                    Ok(answers)
                })
            })
            .await
    }
}

/// A mail of this server's.
struct Sent {
    email_id: String,
    recipients: Vec<String>,
}

/// The first of the mails that exists.
async fn sent(conn: &mut Conn, email_ids: &[String]) -> Result<Option<Sent>> {
    for email_id in email_ids {
        let recipients = store::recipients(conn, email_id).await?;
        if !recipients.is_empty() {
            return Ok(Some(Sent { email_id: email_id.clone(), recipients }));
        }
    }
    Ok(None)
}

struct Believed {
    answer: Bounced,
    is_gone: bool,
}

/// Whom a report is about, if it can be believed.
fn of_mail(reported: Reported, mail: Option<&Sent>) -> Believed {
    let found = mail.and_then(|mail| {
        let named = reported.addresses.iter().find(|address| mail.recipients.contains(address));
        // Those who forward complaints often leave the address out; with one recipient there is no doubt.
        let only = match mail.recipients.as_slice() {
            [only] if reported.kind == ActivityKind::Complained => Some(only),
            _ => None,
        };
        named.or(only).map(|address| (mail.email_id.clone(), address.clone()))
    });
    let named = reported.addresses.into_iter().next().unwrap_or_default();
    let (email_id, address) = found.map_or((None, named), |(email_id, address)| (Some(email_id), address));
    let Reported { kind, status, diagnostic, is_gone, .. } = reported;
    let answer = Bounced { address, kind, status, diagnostic, email_id, suppressed: false };
    Believed { answer, is_gone }
}

async fn write(conn: &mut Conn, ids: &IdGenerator, now: Timestamp, bounced: &mut Believed) -> Result<()> {
    let answer = &mut bounced.answer;
    let Some(email_id) = answer.email_id.clone() else {
        return Ok(());
    };
    let said = format!("{} {}", answer.status, answer.diagnostic);
    let detail = said.trim().to_owned();
    let activity = NewActivity {
        id: ids.next(Kind::EmailActivity),
        email_id: email_id.clone(),
        address: answer.address.clone(),
        kind: answer.kind,
        detail: detail.clone(),
        automated: false,
        at: now,
    };
    activity::record(conn, &activity).await?;
    if bounced.is_gone {
        let (reason, origin) = match answer.kind {
            ActivityKind::Complained => (Reason::Complaint, Origin::Complaint),
            _ => (Reason::Bounce, Origin::Bounce),
        };
        let suppression = NewSuppression {
            address: answer.address.clone(),
            topic: String::new(),
            reason,
            origin,
            detail,
            email_id: Some(email_id),
            expires_at: None,
            now,
        };
        suppression::add(conn, &suppression).await?;
        answer.suppressed = true;
    }
    Ok(())
}
