//! The queries of the channel: what an attempt needs to know of a mail, and what it leaves behind.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::address;
use super::config::EmailConfig;
use super::intake::SMALL;
use super::limit;
use super::model::{Attachment, Content, Mail, Priority, Settled};
use crate::clock::Timestamp;
use crate::db::schema::{
    captured_emails, email_attachments, email_blobs, email_contents, email_queue, email_recipients,
    suppressions,
};
use crate::db::types::StringList;
use crate::db::{Conn, Db};
use crate::delivery::limit::store as limits;
use crate::delivery::{Hold, State, Table};
use crate::error::Result;
use crate::on;

/// A mail's row, without what belongs to its delivery.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_queue)]
pub(super) struct MailRow {
    pub id: String,
    event_id: Option<String>,
    route_id: Option<String>,
    template: String,
    variables: String,
    to_addresses: StringList,
    cc_addresses: StringList,
    bcc_addresses: StringList,
    reply_to: String,
    subject: String,
    created_at: Timestamp,
    destination: String,
    options: String,
    expires_at: Option<Timestamp>,
}

impl From<MailRow> for Mail {
    fn from(row: MailRow) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            route_id: row.route_id,
            template: row.template,
            variables: serde_json::from_str(&row.variables).unwrap_or_default(),
            to: row.to_addresses.0,
            cc: row.cc_addresses.0,
            bcc: row.bcc_addresses.0,
            reply_to: row.reply_to,
            subject: row.subject,
            created_at: row.created_at,
            priority: Priority::of_lane(&row.destination),
            options: serde_json::from_str(&row.options).unwrap_or_default(),
            expires_at: row.expires_at,
            ..Self::default()
        }
    }
}

/// A file's row.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_attachments)]
pub(super) struct AttachmentRow {
    pub email_id: String,
    filename: String,
    content_type: String,
    content_id: String,
    size: i64,
    blob_id: String,
}

impl From<AttachmentRow> for Attachment {
    fn from(row: AttachmentRow) -> Self {
        Self {
            filename: row.filename,
            content_type: row.content_type,
            content_id: row.content_id,
            size: row.size.unsigned_abs(),
            blob_id: row.blob_id,
        }
    }
}

/// The mails of these ids, just taken in hand, in their transaction: with what was decided about their recipients
/// before, and what the lists and limits say now.
pub(super) async fn load(
    conn: &mut Conn,
    ids: Vec<String>,
    config: &EmailConfig,
    now: Timestamp,
) -> Result<Vec<(String, Arc<Mail>)>> {
    let rows: Vec<MailRow> = on!(conn, |c| email_queue::table
        .filter(email_queue::id.eq_any(&ids))
        .select(MailRow::as_select())
        .load(c)
        .await)?;
    let mut mails: HashMap<String, Mail> = rows.into_iter().map(|row| (row.id.clone(), row.into())).collect();
    contents(conn, &ids, &mut mails).await?;
    files(conn, &ids, &mut mails).await?;
    settled(conn, &ids, &mut mails).await?;
    suppress(conn, &ids, &mut mails, now).await?;
    if config.sends() && !config.domain_limits.is_empty() {
        hold_by_domain(conn, &ids, &mut mails, config, now).await?;
    }
    let mails = ids.into_iter().filter_map(|id| Some((id.clone(), Arc::new(mails.remove(&id)?))));
    Ok(mails.collect())
}

/// The bodies of mails without a template, but for large ones: those are read when they are sent.
async fn contents(conn: &mut Conn, ids: &[String], mails: &mut HashMap<String, Mail>) -> Result<()> {
    let raw: Vec<&String> =
        ids.iter().filter(|id| mails.get(*id).is_some_and(|m| m.template.is_empty())).collect();
    if raw.is_empty() {
        return Ok(());
    }
    let size = diesel::dsl::sql::<diesel::sql_types::Bool>("length(html_body) + length(plain_body) <= ")
        .bind::<diesel::sql_types::Integer, _>(SMALL as i32);
    let query = email_contents::table.filter(email_contents::email_id.eq_any(raw)).filter(size).select((
        email_contents::email_id,
        email_contents::html_body,
        email_contents::plain_body,
    ));
    let rows: Vec<(String, String, String)> = on!(conn, |c| query.load(c).await)?;
    for (id, html, text) in rows {
        if let Some(mail) = mails.get_mut(&id) {
            (mail.html_body, mail.plain_body) = (html, text);
        }
    }
    Ok(())
}

async fn files(conn: &mut Conn, ids: &[String], mails: &mut HashMap<String, Mail>) -> Result<()> {
    for row in attachments(conn, ids).await? {
        if let Some(mail) = mails.get_mut(&row.email_id) {
            mail.attachments.push(row.into());
        }
    }
    Ok(())
}

/// The files of these mails, in their order.
pub(super) async fn attachments(conn: &mut Conn, ids: &[String]) -> Result<Vec<AttachmentRow>> {
    Ok(on!(conn, |c| email_attachments::table
        .filter(email_attachments::email_id.eq_any(ids))
        .order((email_attachments::email_id, email_attachments::number))
        .select(AttachmentRow::as_select())
        .load(c)
        .await)?)
}

async fn settled(conn: &mut Conn, ids: &[String], mails: &mut HashMap<String, Mail>) -> Result<()> {
    use email_recipients as r;
    let query = r::table.filter(r::email_id.eq_any(ids)).filter(r::status.is_not_null()).select((
        r::email_id,
        r::address,
        r::status,
    ));
    let rows: Vec<(String, String, Option<String>)> = on!(conn, |c| query.load(c).await)?;
    for (id, address, status) in rows {
        if let Some(mail) = mails.get_mut(&id) {
            let delivered = status.as_deref() == Some(State::Succeeded.word(Table::EmailQueue));
            mail.settled.push(Settled { address, delivered });
        }
    }
    Ok(())
}

/// Settles the recipients that were suppressed while the mail waited.
async fn suppress(
    conn: &mut Conn,
    ids: &[String],
    mails: &mut HashMap<String, Mail>,
    now: Timestamp,
) -> Result<()> {
    use {email_recipients as r, suppressions as s};
    let query = r::table
        .inner_join(s::table.on(s::address.eq(r::address)))
        .filter(r::email_id.eq_any(ids))
        .filter(r::status.is_null())
        .filter(s::expires_at.is_null().or(s::expires_at.gt(now)))
        .select((r::email_id, r::address, s::topic, s::reason));
    let rows: Vec<(String, String, String, String)> = on!(conn, |c| query.load(c).await)?;
    for (id, address, topic, reason) in rows {
        let Some(mail) = mails.get_mut(&id) else { continue };
        let known = mail.settled.iter().any(|settled| settled.address == address);
        if known || !topic.is_empty() && topic != mail.options.topic {
            continue;
        }
        let update = diesel::update(r::table.find((&id, &address))).set((
            r::status.eq(State::Cancelled.word(Table::EmailQueue)),
            r::reply.eq(format!("suppressed: {reason}")),
            r::updated_at.eq(now),
        ));
        on!(conn, |c| update.execute(c).await)?;
        mail.settled.push(Settled { address, delivered: false });
    }
    Ok(())
}

/// Takes the mails from the limits of their domains; those that are over one must wait.
async fn hold_by_domain(
    conn: &mut Conn,
    ids: &[String],
    mails: &mut HashMap<String, Mail>,
    config: &EmailConfig,
    now: Timestamp,
) -> Result<()> {
    let mut usages = HashMap::new();
    for id in ids {
        let Some(mail) = mails.get_mut(id) else { continue };
        let mut domains: Vec<String> = mail.recipients().filter_map(address::domain).collect();
        domains.retain(|domain| config.domain_limits.contains_key(domain));
        domains.sort_unstable();
        domains.dedup();
        for domain in &domains {
            if !usages.contains_key(domain) {
                let limit = limit::of_domain(domain, config.domain_limits[domain]);
                let usage = limits::usage_of(conn, &limit, now).await?;
                usages.insert(domain.clone(), usage);
            }
        }
        let over = domains.iter().find(|domain| usages[*domain].left(config.domain_limits[*domain]) == 0);
        if let Some(domain) = over {
            let why = format!("the limit of mails an hour to {domain} is used up (email.domain_limits)");
            mail.hold = Some(Hold { why, until: usages[domain].end() });
            continue;
        }
        for domain in &domains {
            usages.entry(domain.clone()).and_modify(|usage| usage.used += 1);
        }
    }
    for (domain, usage) in usages {
        limits::put(conn, &limit::of_domain(&domain, config.domain_limits[&domain]), usage).await?;
    }
    Ok(())
}

/// The bodies of one mail without a template.
pub(super) async fn content_of(db: &Db, email_id: &str) -> Result<Option<(String, String)>> {
    let query =
        email_contents::table.find(email_id).select((email_contents::html_body, email_contents::plain_body));
    let mut conn = db.reader().await?;
    Ok(on!(&mut conn, |c| query.first(c).await.optional())?)
}

/// The content of a file.
pub(super) async fn blob(db: &Db, id: &str) -> Result<Option<Bytes>> {
    let query = email_blobs::table.find(id).select(email_blobs::content);
    let mut conn = db.reader().await?;
    let content: Option<Vec<u8>> = on!(&mut conn, |c| query.first(c).await.optional())?;
    Ok(content.map(Bytes::from))
}

/// Keeps what a mail looks like, instead of sending it.
pub(super) async fn capture(
    db: &Db,
    email_id: String,
    from: String,
    content: Content,
    now: Timestamp,
) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            // An attempt whose result was lost may have captured it before.
            let old = diesel::delete(captured_emails::table.find(email_id.clone()));
            on!(conn, |c| old.execute(c).await)?;
            let values = (
                captured_emails::email_id.eq(email_id),
                captured_emails::from_address.eq(from),
                captured_emails::subject.eq(content.subject),
                captured_emails::html_body.eq(content.html),
                captured_emails::plain_body.eq(content.text),
                captured_emails::created_at.eq(now),
            );
            on!(conn, |c| diesel::insert_into(captured_emails::table).values(values).execute(c).await)?;
            Ok(())
        })
    })
    .await
}
