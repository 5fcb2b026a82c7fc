//! The queries of templates.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::model::{Stored, Text, Version};
use crate::clock::Timestamp;
use crate::db::schema::{email_template_versions as versions, email_templates as templates};
use crate::db::{Conn, on_duplicate};
use crate::error::{Error, Result};
use crate::on;

/// Which text there is, without the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Queryable)]
pub(super) struct Head {
    pub name: String,
    pub locale: String,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = templates)]
struct Row {
    name: String,
    locale: String,
    description: String,
    variables: String,
    subject: String,
    html_body: String,
    plain_body: String,
    preheader: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = versions)]
struct VersionRow {
    name: String,
    locale: String,
    version: i64,
    subject: String,
    html_body: String,
    plain_body: String,
    preheader: String,
    created_by: String,
    created_at: Timestamp,
}

impl From<&Stored> for Row {
    fn from(stored: &Stored) -> Self {
        let variables = serde_json::to_string(&stored.variables).expect("variables are plain text");
        let Stored { name, locale, description, text, version, created_at, updated_at, .. } = stored.clone();
        let Text { subject, html_body, plain_body, preheader } = text;
        Self {
            name,
            locale,
            description,
            variables,
            subject,
            html_body,
            plain_body,
            preheader,
            version,
            created_at,
            updated_at,
        }
    }
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let variables = serde_json::from_str(&row.variables).map_err(Error::internal)?;
        let Row { name, locale, description, version, created_at, updated_at, .. } = row;
        let Row { subject, html_body, plain_body, preheader, .. } = row;
        let text = Text { subject, html_body, plain_body, preheader };
        Ok(Self { name, locale, description, variables, text, version, created_at, updated_at })
    }
}

impl From<VersionRow> for Version {
    fn from(row: VersionRow) -> Self {
        let VersionRow { version, created_by, created_at, .. } = row;
        let VersionRow { subject, html_body, plain_body, preheader, .. } = row;
        Self { version, text: Text { subject, html_body, plain_body, preheader }, created_by, created_at }
    }
}

/// Which texts there are, by name and language.
pub(super) async fn heads(conn: &mut Conn) -> Result<Vec<Head>> {
    Ok(on!(conn, |c| templates::table
        .order((templates::name, templates::locale))
        .select((
            templates::name,
            templates::locale,
            templates::version,
            templates::created_at,
            templates::updated_at
        ))
        .load(c)
        .await)?)
}

/// Every text of a template, by language.
pub(super) async fn languages(conn: &mut Conn, name: &str) -> Result<Vec<Stored>> {
    let rows: Vec<Row> = on!(conn, |c| templates::table
        .filter(templates::name.eq(name))
        .order(templates::locale)
        .select(Row::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// The texts in the language that others fall back to.
pub(super) async fn defaults(conn: &mut Conn) -> Result<Vec<Stored>> {
    let rows: Vec<Row> = on!(conn, |c| templates::table
        .filter(templates::locale.eq(""))
        .select(Row::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// One text.
pub(super) async fn find(conn: &mut Conn, name: &str, locale: &str) -> Result<Option<Stored>> {
    let row: Option<Row> = on!(conn, |c| templates::table
        .find((name, locale))
        .select(Row::as_select())
        .first(c)
        .await
        .optional())?;
    row.map(Stored::try_from).transpose()
}

/// Adds a text.
pub(super) async fn insert(conn: &mut Conn, stored: &Stored) -> Result<()> {
    let insert = diesel::insert_into(templates::table).values(Row::from(stored));
    on!(conn, |c| insert.execute(c).await).map_err(|error| on_duplicate(error, "template", &stored.name))?;
    Ok(())
}

/// Writes a changed text.
pub(super) async fn update(conn: &mut Conn, stored: &Stored) -> Result<()> {
    let key = (stored.name.clone(), stored.locale.clone());
    let update = diesel::update(templates::table.find(key)).set(Row::from(stored));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Removes one text.
pub(super) async fn delete(conn: &mut Conn, name: &str, locale: &str) -> Result<()> {
    let delete = diesel::delete(templates::table.find((name, locale)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// Removes a template in all its languages.
pub(super) async fn delete_all(conn: &mut Conn, name: &str) -> Result<()> {
    let texts = diesel::delete(templates::table.filter(templates::name.eq(name)));
    on!(conn, |c| texts.execute(c).await)?;
    let old = diesel::delete(versions::table.filter(versions::name.eq(name)));
    on!(conn, |c| old.execute(c).await)?;
    Ok(())
}

/// Removes the versions of one text.
pub(super) async fn delete_versions(conn: &mut Conn, name: &str, locale: &str) -> Result<()> {
    let of_text = versions::table.filter(versions::name.eq(name)).filter(versions::locale.eq(locale));
    let delete = diesel::delete(of_text);
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// Keeps a text as the version that it is, and forgets those up to `forget`.
pub(super) async fn keep_version(
    conn: &mut Conn,
    stored: &Stored,
    created_by: &str,
    forget: i64,
) -> Result<()> {
    let Stored { name, locale, text, version, updated_at, .. } = stored.clone();
    let Text { subject, html_body, plain_body, preheader } = text;
    let old = versions::table
        .filter(versions::name.eq(name.clone()))
        .filter(versions::locale.eq(locale.clone()))
        .filter(versions::version.le(forget));
    let old = diesel::delete(old);
    on!(conn, |c| old.execute(c).await)?;
    let row = VersionRow {
        name,
        locale,
        version,
        subject,
        html_body,
        plain_body,
        preheader,
        created_by: created_by.into(),
        created_at: updated_at,
    };
    let insert = diesel::insert_into(versions::table).values(row);
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// The versions of a text, newest first.
pub(super) async fn versions(conn: &mut Conn, name: &str, locale: &str) -> Result<Vec<Version>> {
    let rows: Vec<VersionRow> = on!(conn, |c| versions::table
        .filter(versions::name.eq(name))
        .filter(versions::locale.eq(locale))
        .order(versions::version.desc())
        .select(VersionRow::as_select())
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(Version::from).collect())
}

/// One version of a text.
pub(super) async fn version(
    conn: &mut Conn,
    name: &str,
    locale: &str,
    version: i64,
) -> Result<Option<Version>> {
    let row: Option<VersionRow> = on!(conn, |c| versions::table
        .find((name, locale, version))
        .select(VersionRow::as_select())
        .first(c)
        .await
        .optional())?;
    Ok(row.map(Version::from))
}

/// The number of a text's newest version; 0 when there is none.
pub(super) async fn newest(conn: &mut Conn, name: &str, locale: &str) -> Result<i64> {
    let newest: Option<i64> = on!(conn, |c| versions::table
        .filter(versions::name.eq(name))
        .filter(versions::locale.eq(locale))
        .select(diesel::dsl::max(versions::version))
        .first(c)
        .await)?;
    Ok(newest.unwrap_or_default())
}

/// Whether there is a template of this name, in the transaction that asks.
///
/// # Errors
/// When the database can not be read.
pub async fn exists(conn: &mut Conn, name: &str) -> Result<bool> {
    Ok(crate::email::template::definition(name).is_some() || find(conn, name, "").await?.is_some())
}
