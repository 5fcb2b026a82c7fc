//! Where there are sealed values: every column of every table.

use diesel::sql_types::{BigInt, Binary, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::statement::{Bind, Statement};
use crate::error::{Error, Result};
use crate::on;
use crate::secret::{KeyNumber, Place, named_by};

/// A column with sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedColumn {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The column that names a row.
    key: &'static str,
    /// The column that numbers the rows of one name, if there are several: the row is `<name>/<number>` then.
    number: Option<&'static str>,
}

/// All of them.  A column that is not here is left behind when a key is dropped; a test compares this with the tables.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn { table: "settings", column: "sealed", key: "key", number: None },
    SealedColumn { table: "webhooks", column: "secret", key: "id", number: None },
    SealedColumn { table: "webhooks", column: "client_key", key: "id", number: None },
    SealedColumn {
        table: "webhook_former_secrets",
        column: "secret",
        key: "webhook_id",
        number: Some("version"),
    },
];

/// A sealed value.
#[derive(Debug, Clone, QueryableByName)]
pub struct SealedValue {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
    /// The value.
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many values begin alike.
#[derive(QueryableByName)]
pub(super) struct Group {
    #[diesel(sql_type = Binary)]
    pub head: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

impl SealedColumn {
    /// What the row of a value is called where the value is bound to its place.
    pub fn row(&self, value: &SealedValue) -> String {
        match self.number {
            None => value.name.clone(),
            Some(_) => format!("{}/{}", value.name, value.number),
        }
    }

    /// The place of a value whose row is called this.
    pub fn place<'a>(&self, row: &'a str) -> Place<'a> {
        Place { table: self.table, column: self.column, row }
    }

    /// Up to `limit` values after this one, in the order of their rows.
    pub async fn page(
        &self,
        conn: &mut Conn,
        after: Option<&SealedValue>,
        limit: i64,
    ) -> Result<Vec<SealedValue>> {
        let Self { table, column, key, .. } = self;
        let (number, after_key, order) = match self.number {
            None => ("0".to_owned(), format!("{key} > ?"), (*key).to_owned()),
            Some(number) => {
                (number.to_owned(), format!("({key}, {number}) > (?, ?)"), format!("{key}, {number}"))
            }
        };
        let mut sql = format!(
            "SELECT {key} AS name, CAST({number} AS BIGINT) AS number, {column} AS sealed FROM {table} \
             WHERE {column} IS NOT NULL"
        );
        let mut binds = Vec::new();
        if let Some(after) = after {
            sql = format!("{sql} AND {after_key}");
            binds.push(Bind::Text(&after.name));
            binds.extend(self.number.map(|_| Bind::BigInt(after.number)));
        }
        sql = format!("{sql} ORDER BY {order} LIMIT ?");
        binds.push(Bind::BigInt(limit));
        let query = Statement::new(&sql, binds);
        Ok(on!(conn, |c| query.load(c).await)?)
    }

    /// Puts a value in the place of another, if that is still there; answers whether it was.
    pub(super) async fn replace(&self, conn: &mut Conn, old: &SealedValue, new: &[u8]) -> Result<bool> {
        let Self { table, column, key, number } = self;
        let mut binds = vec![Bind::Binary(new), Bind::Text(&old.name)];
        let and_number = number.map(|number| format!(" AND {number} = ?")).unwrap_or_default();
        binds.extend(number.map(|_| Bind::BigInt(old.number)));
        binds.push(Bind::Binary(&old.sealed));
        let sql = format!("UPDATE {table} SET {column} = ? WHERE {key} = ?{and_number} AND {column} = ?");
        let query = Statement::new(&sql, binds);
        Ok(on!(conn, |c| query.execute(c).await)? == 1)
    }

    /// How many values another key than this one sealed.
    pub(super) async fn count_others(&self, conn: &mut Conn, active: KeyNumber) -> Result<i64> {
        let Self { table, column, .. } = self;
        let head = named_by(active);
        let length = head.len();
        let sql = format!(
            "SELECT COUNT(*) AS count FROM {table} WHERE {column} IS NOT NULL AND substr({column}, 1, {length}) <> ?"
        );
        let query = Statement::new(&sql, vec![Bind::Binary(&head)]);
        let counted: Vec<Counted> = on!(conn, |c| query.load(c).await)?;
        Ok(counted.iter().map(|counted| counted.count).sum())
    }

    /// How many values there are of each beginning, as long as the version and a key's number.
    pub(super) async fn groups(&self, conn: &mut Conn) -> Result<Vec<Group>> {
        let Self { table, column, .. } = self;
        let length = named_by(KeyNumber::default()).len();
        let sql = format!(
            "SELECT substr({column}, 1, {length}) AS head, COUNT(*) AS count FROM {table} \
             WHERE {column} IS NOT NULL GROUP BY 1"
        );
        Ok(on!(conn, |c| sql_query(sql.as_str()).load(c).await)?)
    }
}

/// A value that no key opens.
pub(super) fn does_not_open(places: &[String]) -> Error {
    let some = places.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    Error::new(
        crate::error::Kind::FailedPrecondition,
        "SECRETS_DO_NOT_OPEN",
        format!("{} sealed values open under no key: {some}; give them anew", places.len()),
    )
}
