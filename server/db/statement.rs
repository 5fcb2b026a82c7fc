//! Statements written as SQL text, kept prepared by the connection.
//!
//! diesel's own batch insert spells out one row per value, so that on PostgreSQL each batch size is another statement to
//! prepare.  Here a batch is one array per column, unnested by the server: one text, prepared once.  And diesel prepares
//! an UPDATE anew each time, on both databases: the one for every result of an attempt is written here instead.  A `?` in
//! the text stands for the next bind.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Untyped};
use diesel::sqlite::Sqlite;

use super::types::sql::Instant;
use crate::clock::Timestamp;

/// A value for one `?`.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is named after the column type that it binds")]
pub enum Bind<'a> {
    Bool(bool),
    Bools(Vec<bool>),
    BigInt(i64),
    SmallInt(i16),
    SmallInts(Vec<i16>),
    Instant(Timestamp),
    Integer(i32),
    NullableInteger(Option<i32>),
    Text(&'a str),
    NullableText(Option<&'a str>),
    Texts(Vec<&'a str>),
    NullableTexts(Vec<Option<&'a str>>),
    Integers(Vec<i32>),
    NullableIntegers(Vec<Option<i32>>),
    BigInts(Vec<i64>),
    NullableBigInts(Vec<Option<i64>>),
    Instants(Vec<Timestamp>),
    NullableInstant(Option<Timestamp>),
    NullableInstants(Vec<Option<Timestamp>>),
    Binary(&'a [u8]),
    Binaries(Vec<&'a [u8]>),
}

/// A statement with its binds.
#[derive(Debug)]
pub struct Statement<'a> {
    sql: &'a str,
    binds: Vec<Bind<'a>>,
}

impl<'a> Statement<'a> {
    /// A statement; `sql` has one `?` for each bind.
    pub fn new(sql: &'a str, binds: Vec<Bind<'a>>) -> Self {
        debug_assert_eq!(sql.matches('?').count(), binds.len(), "{sql}");
        Self { sql, binds }
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut parts = self.sql.split('?');
        pass.push_sql(parts.next().unwrap_or_default());
        for (bind, part) in self.binds.iter().zip(parts) {
            match bind {
                Bind::Bool(v) => pass.push_bind_param::<Bool, _>(v)?,
                Bind::BigInt(v) => pass.push_bind_param::<BigInt, _>(v)?,
                Bind::Bools(v) => pass.push_bind_param::<Array<Bool>, _>(v)?,
                Bind::SmallInt(v) => pass.push_bind_param::<SmallInt, _>(v)?,
                Bind::SmallInts(v) => pass.push_bind_param::<Array<SmallInt>, _>(v)?,
                Bind::Instant(v) => pass.push_bind_param::<Instant, _>(v)?,
                Bind::Integer(v) => pass.push_bind_param::<Integer, _>(v)?,
                Bind::NullableInteger(v) => pass.push_bind_param::<Nullable<Integer>, _>(v)?,
                Bind::Text(v) => pass.push_bind_param::<Text, _>(v)?,
                Bind::NullableText(v) => pass.push_bind_param::<Nullable<Text>, _>(v)?,
                Bind::Texts(v) => pass.push_bind_param::<Array<Text>, _>(v)?,
                Bind::NullableTexts(v) => pass.push_bind_param::<Array<Nullable<Text>>, _>(v)?,
                Bind::Integers(v) => pass.push_bind_param::<Array<Integer>, _>(v)?,
                Bind::NullableIntegers(v) => pass.push_bind_param::<Array<Nullable<Integer>>, _>(v)?,
                Bind::BigInts(v) => pass.push_bind_param::<Array<BigInt>, _>(v)?,
                Bind::NullableBigInts(v) => pass.push_bind_param::<Array<Nullable<BigInt>>, _>(v)?,
                Bind::Instants(v) => pass.push_bind_param::<Array<Instant>, _>(v)?,
                Bind::NullableInstant(v) => pass.push_bind_param::<Nullable<Instant>, _>(v)?,
                Bind::NullableInstants(v) => pass.push_bind_param::<Array<Nullable<Instant>>, _>(v)?,
                Bind::Binary(v) => pass.push_bind_param::<Binary, _>(v)?,
                Bind::Binaries(v) => pass.push_bind_param::<Array<Binary>, _>(v)?,
            }
            pass.push_sql(part);
        }
        Ok(())
    }
}

impl QueryFragment<Sqlite> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let mut parts = self.sql.split('?');
        pass.push_sql(parts.next().unwrap_or_default());
        for (bind, part) in self.binds.iter().zip(parts) {
            match bind {
                Bind::Bool(v) => pass.push_bind_param::<Bool, _>(v)?,
                Bind::BigInt(v) => pass.push_bind_param::<BigInt, _>(v)?,
                Bind::SmallInt(v) => pass.push_bind_param::<SmallInt, _>(v)?,
                Bind::Instant(v) => pass.push_bind_param::<Instant, _>(v)?,
                Bind::Integer(v) => pass.push_bind_param::<Integer, _>(v)?,
                Bind::NullableInteger(v) => pass.push_bind_param::<Nullable<Integer>, _>(v)?,
                Bind::Text(v) => pass.push_bind_param::<Text, _>(v)?,
                Bind::NullableText(v) => pass.push_bind_param::<Nullable<Text>, _>(v)?,
                Bind::NullableInstant(v) => pass.push_bind_param::<Nullable<Instant>, _>(v)?,
                Bind::Binary(v) => pass.push_bind_param::<Binary, _>(v)?,
                arrays => {
                    let what = format!("SQLite has no arrays: {arrays:?}");
                    return Err(diesel::result::Error::QueryBuilderError(what.into()));
                }
            }
            pass.push_sql(part);
        }
        Ok(())
    }
}

/// Without a static id the connection keeps the prepared statement under its text.
impl QueryId for Statement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<C> diesel::query_dsl::RunQueryDsl<C> for Statement<'_> {}
