//! The queries that make mails' rows.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::NewMail;
use crate::db::schema::{email_attachments, email_blobs, email_contents, email_queue, email_recipients};
use crate::db::statement::{Bind, Statement};
use crate::db::types::{StringList, postgres_array_literal};
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::{State, Table};
use crate::email::model::Mail;

fn word(state: State) -> &'static str {
    state.word(Table::EmailQueue)
}

/// Queues mails, on SQLite.
pub(super) fn insert_sqlite(conn: &mut SqliteWriter, rows: &[NewMail]) -> QueryResult<()> {
    for row in rows {
        insert_mail(conn, row)?;
        if row.mail.template.is_empty() {
            insert_content(conn, &row.mail)?;
        }
        for recipient in &row.recipients {
            let status = recipient.suppressed.as_ref().map(|_| word(State::Cancelled));
            let values = (
                email_recipients::email_id.eq(&row.mail.id),
                email_recipients::address.eq(&recipient.address),
                email_recipients::status.eq(status),
                email_recipients::reply.eq(&recipient.suppressed),
                email_recipients::updated_at.eq(status.map(|_| row.now)),
            );
            let insert = diesel::insert_into(email_recipients::table).values(values);
            diesel::RunQueryDsl::execute(insert, conn)?;
        }
        insert_files(conn, row)?;
    }
    Ok(())
}

fn insert_mail(conn: &mut SqliteWriter, row: &NewMail) -> QueryResult<()> {
    use email_queue as e;
    let mail = &*row.mail;
    let values = (
        e::id.eq(&mail.id),
        e::event_id.eq(&mail.event_id),
        e::route_id.eq(&mail.route_id),
        e::template.eq(&mail.template),
        e::variables.eq(&row.variables),
        (
            e::to_addresses.eq(StringList(mail.to.clone())),
            e::cc_addresses.eq(StringList(mail.cc.clone())),
            e::bcc_addresses.eq(StringList(mail.bcc.clone())),
            e::reply_to.eq(&mail.reply_to),
            e::subject.eq(&mail.subject),
            e::destination.eq(mail.priority.lane()),
            e::options.eq(&row.options),
            e::expires_at.eq(mail.expires_at),
        ),
        (
            e::status.eq(word(row.state)),
            e::attempts.eq(0),
            e::error_message.eq(&row.error),
            e::next_attempt_at.eq(row.due),
            e::lease_owner.eq(row.lease_owner),
            e::lease_token.eq(row.token()),
            e::created_at.eq(mail.created_at),
            e::updated_at.eq(row.now),
        ),
    );
    diesel::RunQueryDsl::execute(diesel::insert_into(e::table).values(values), conn).map(drop)
}

fn insert_content(conn: &mut SqliteWriter, mail: &Mail) -> QueryResult<()> {
    let values = (
        email_contents::email_id.eq(&mail.id),
        email_contents::html_body.eq(&mail.html_body),
        email_contents::plain_body.eq(&mail.plain_body),
    );
    diesel::RunQueryDsl::execute(diesel::insert_into(email_contents::table).values(values), conn).map(drop)
}

fn insert_files(conn: &mut SqliteWriter, row: &NewMail) -> QueryResult<()> {
    use email_attachments as a;
    for (id, content) in &*row.files {
        let values = (
            email_blobs::id.eq(id),
            email_blobs::content.eq(&content[..]),
            email_blobs::created_at.eq(row.now),
        );
        let insert = diesel::insert_into(email_blobs::table).values(values).on_conflict_do_nothing();
        diesel::RunQueryDsl::execute(insert, conn)?;
    }
    for (number, file) in (0..).zip(&row.mail.attachments) {
        let values = (
            a::email_id.eq(&row.mail.id),
            a::number.eq(number),
            a::filename.eq(&file.filename),
            a::content_type.eq(&file.content_type),
            a::content_id.eq(&file.content_id),
            a::size.eq(file.size as i64),
            a::blob_id.eq(&file.blob_id),
        );
        diesel::RunQueryDsl::execute(diesel::insert_into(a::table).values(values), conn)?;
    }
    Ok(())
}

/// Queues mails, on PostgreSQL.
pub(super) async fn insert_postgres(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    insert_mails(conn, rows).await?;
    insert_contents(conn, rows).await?;
    insert_recipients(conn, rows).await?;
    insert_files_postgres(conn, rows).await
}

async fn insert_mails(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    let sql = "INSERT INTO email_queue (id, event_id, route_id, template, variables, to_addresses, cc_addresses,
                   bcc_addresses, reply_to, subject, destination, options, expires_at, status, error_message,
                   next_attempt_at, lease_owner, lease_token, created_at, updated_at)
               SELECT id, event_id, route_id, template, variables, to_addresses::text[], cc_addresses::text[],
                   bcc_addresses::text[], reply_to, subject, destination, options, expires_at, status, error_message,
                   next_attempt_at, lease_owner, lease_token, created_at, updated_at
               FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               AS e (id, event_id, route_id, template, variables, to_addresses, cc_addresses, bcc_addresses, reply_to,
                     subject, destination, options, expires_at, status, error_message, next_attempt_at, lease_owner,
                     lease_token, created_at, updated_at)";
    let lists = |pick: fn(&Mail) -> &[String]| -> Vec<String> {
        rows.iter().map(|row| postgres_array_literal(pick(&row.mail))).collect()
    };
    let (to, cc, bcc) = (lists(|mail| &mail.to), lists(|mail| &mail.cc), lists(|mail| &mail.bcc));
    let texts = |pick: fn(&Mail) -> &str| Bind::Texts(rows.iter().map(|row| pick(&row.mail)).collect());
    let optional = |pick: fn(&Mail) -> Option<&str>| {
        Bind::NullableTexts(rows.iter().map(|row| pick(&row.mail)).collect())
    };
    let binds = vec![
        texts(|mail| &mail.id),
        optional(|mail| mail.event_id.as_deref()),
        optional(|mail| mail.route_id.as_deref()),
        texts(|mail| &mail.template),
        Bind::Texts(rows.iter().map(|row| row.variables.as_str()).collect()),
        Bind::Texts(to.iter().map(String::as_str).collect()),
        Bind::Texts(cc.iter().map(String::as_str).collect()),
        Bind::Texts(bcc.iter().map(String::as_str).collect()),
        texts(|mail| &mail.reply_to),
        texts(|mail| &mail.subject),
        texts(|mail| mail.priority.lane()),
        Bind::Texts(rows.iter().map(|row| row.options.as_str()).collect()),
        Bind::NullableInstants(rows.iter().map(|row| row.mail.expires_at).collect()),
        Bind::Texts(rows.iter().map(|row| word(row.state)).collect()),
        Bind::NullableTexts(rows.iter().map(|row| row.error.as_deref()).collect()),
        Bind::Instants(rows.iter().map(|row| row.due).collect()),
        Bind::NullableBigInts(rows.iter().map(|row| row.lease_owner).collect()),
        Bind::BigInts(rows.iter().map(NewMail::token).collect()),
        Bind::Instants(rows.iter().map(|row| row.mail.created_at).collect()),
        Bind::Instants(rows.iter().map(|row| row.now).collect()),
    ];
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

async fn insert_contents(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    let raw: Vec<&Mail> = rows.iter().map(|row| &*row.mail).filter(|mail| mail.template.is_empty()).collect();
    if raw.is_empty() {
        return Ok(());
    }
    let binds = vec![
        Bind::Texts(raw.iter().map(|mail| mail.id.as_str()).collect()),
        Bind::Texts(raw.iter().map(|mail| mail.html_body.as_str()).collect()),
        Bind::Texts(raw.iter().map(|mail| mail.plain_body.as_str()).collect()),
    ];
    let sql = "INSERT INTO email_contents (email_id, html_body, plain_body) SELECT * FROM unnest(?, ?, ?)";
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

async fn insert_recipients(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    let all: Vec<_> = rows.iter().flat_map(|row| row.recipients.iter().map(move |r| (row, r))).collect();
    if all.is_empty() {
        return Ok(());
    }
    let cancelled = word(State::Cancelled);
    let binds = vec![
        Bind::Texts(all.iter().map(|(row, _)| row.mail.id.as_str()).collect()),
        Bind::Texts(all.iter().map(|(_, recipient)| recipient.address.as_str()).collect()),
        Bind::NullableTexts(all.iter().map(|(_, r)| r.suppressed.as_ref().map(|_| cancelled)).collect()),
        Bind::NullableTexts(all.iter().map(|(_, r)| r.suppressed.as_deref()).collect()),
        Bind::NullableInstants(all.iter().map(|(row, r)| r.suppressed.as_ref().map(|_| row.now)).collect()),
    ];
    let sql = "INSERT INTO email_recipients (email_id, address, status, reply, updated_at)
               SELECT * FROM unnest(?, ?, ?, ?, ?)";
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

async fn insert_files_postgres(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    use email_attachments as a;
    let mut files: Vec<_> =
        rows.iter().flat_map(|row| row.files.iter().map(move |file| (file, row.now))).collect();
    // In one order everywhere: two nodes that keep the same files must not wait for each other.
    files.sort_unstable_by(|((one, _), _), ((other, _), _)| one.cmp(other));
    for ((id, content), now) in files {
        let values =
            (email_blobs::id.eq(id), email_blobs::content.eq(&content[..]), email_blobs::created_at.eq(now));
        // One that is there is held until the commit, so that nobody removes it as unused meanwhile.
        diesel::insert_into(email_blobs::table)
            .values(values)
            .on_conflict(email_blobs::id)
            .do_update()
            .set(email_blobs::created_at.eq(now))
            .execute(conn)
            .await?;
    }
    for row in rows {
        for (number, file) in (0..).zip(&row.mail.attachments) {
            let values = (
                a::email_id.eq(&row.mail.id),
                a::number.eq(number),
                a::filename.eq(&file.filename),
                a::content_type.eq(&file.content_type),
                a::content_id.eq(&file.content_id),
                a::size.eq(file.size as i64),
                a::blob_id.eq(&file.blob_id),
            );
            diesel::insert_into(a::table).values(values).execute(conn).await?;
        }
    }
    Ok(())
}
