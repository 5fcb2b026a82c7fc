//! Column types that the two databases hold differently.
//!
//! | type | PostgreSQL | SQLite |
//! | --- | --- | --- |
//! | `Instant` | `timestamptz` | microseconds since 1970 as an integer: it sorts and compares as a number |
//! | `StringList` | `text[]` | a JSON array as text |

use std::io::Write;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::data_types::PgTimestamp;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types;
use diesel::sqlite::{Sqlite, SqliteValue};

use crate::clock::Timestamp;

/// The SQL types themselves, for `schema.rs`.
pub mod sql {
    use diesel::query_builder::QueryId;
    use diesel::sql_types::SqlType;

    /// A moment in UTC.
    #[derive(Debug, Clone, Copy, QueryId, SqlType)]
    #[diesel(postgres_type(oid = 1184, array_oid = 1185), sqlite_type(name = "Long"))]
    pub struct Instant;

    /// A list of texts.
    #[derive(Debug, Clone, Copy, QueryId, SqlType)]
    #[diesel(postgres_type(oid = 1009, array_oid = 0), sqlite_type(name = "Text"))]
    pub struct StringList;
}

/// PostgreSQL counts microseconds from 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The first and the last moment that PostgreSQL knows, 4714 BC and AD 294276, counted from then (its `timestamp.h`).
const POSTGRES_MOMENTS: [i64; 2] = [-211_813_488_000_000_000, 9_223_371_331_200_000_000 - 1];

#[derive(AsExpression, FromSqlRow)]
#[diesel(foreign_derive)]
#[diesel(sql_type = sql::Instant)]
#[expect(dead_code, reason = "names the foreign type for the derives")]
struct TimestampProxy(Timestamp);

impl ToSql<sql::Instant, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        // What a caller asks about may lie beyond: nothing that is kept does, so that the nearest answers as well.
        let [first, last] = POSTGRES_MOMENTS;
        let since_2000 = self.micros().saturating_sub(POSTGRES_EPOCH_MICROS).clamp(first, last);
        ToSql::<sql_types::Timestamptz, Pg>::to_sql(&PgTimestamp(since_2000), &mut out.reborrow())
    }
}

impl FromSql<sql::Instant, Pg> for Timestamp {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let PgTimestamp(since_2000) = FromSql::<sql_types::Timestamptz, Pg>::from_sql(value)?;
        Ok(Self::from_micros(since_2000 + POSTGRES_EPOCH_MICROS))
    }
}

impl ToSql<sql::Instant, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.micros());
        Ok(IsNull::No)
    }
}

impl FromSql<sql::Instant, Sqlite> for Timestamp {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        <i64 as FromSql<sql_types::BigInt, Sqlite>>::from_sql(value).map(Self::from_micros)
    }
}

/// A list of texts in one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::StringList)]
pub struct StringList(pub Vec<String>);

impl From<Vec<String>> for StringList {
    fn from(list: Vec<String>) -> Self {
        Self(list)
    }
}

impl ToSql<sql::StringList, Pg> for StringList {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql_types::Array<sql_types::Text>, Pg>::to_sql(&self.0, &mut out.reborrow())
    }
}

impl FromSql<sql::StringList, Pg> for StringList {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        <Vec<String> as FromSql<sql_types::Array<sql_types::Text>, Pg>>::from_sql(value).map(Self)
    }
}

impl ToSql<sql::StringList, Sqlite> for StringList {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(serde_json::to_string(&self.0)?);
        Ok(IsNull::No)
    }
}

impl FromSql<sql::StringList, Sqlite> for StringList {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<sql_types::Text, Sqlite>>::from_sql(value)?;
        Ok(Self(serde_json::from_str(&text)?))
    }
}

/// A list of lists can not be an array parameter of PostgreSQL, so that a batch passes each list as its array literal.
pub fn postgres_array_literal(list: &[String]) -> String {
    let mut out = Vec::with_capacity(2 + list.len() * 16);
    out.push(b'{');
    for (index, item) in list.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let escaped = item.replace('\\', "\\\\").replace('"', "\\\"");
        write!(out, "{comma}\"{escaped}\"").expect("writing to memory");
    }
    out.push(b'}');
    String::from_utf8(out).expect("made of text")
}

#[cfg(test)]
mod tests {
    #[test]
    fn array_literals_quote_what_would_end_an_item() {
        let list = ["plain".to_owned(), "a\"b\\c,{}".to_owned(), String::new()];
        assert_eq!(super::postgres_array_literal(&list), r#"{"plain","a\"b\\c,{}",""}"#);
    }
}
