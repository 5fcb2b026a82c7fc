//! Writing what the server said about recipients, in the transaction of the mail's result.

use diesel::prelude::*;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Settlements;
use crate::db::schema::email_recipients as r;
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::{Effect, Table};
use crate::email::suppression::{self, NewSuppression, Origin, Reason};

impl Settlements {
    fn suppressions(&self) -> impl Iterator<Item = NewSuppression> + '_ {
        self.bad.iter().map(|(address, reply)| NewSuppression {
            address: address.clone(),
            topic: String::new(),
            reason: Reason::Bounce,
            origin: Origin::Smtp,
            detail: reply.clone(),
            email_id: Some(self.email_id.clone()),
            expires_at: None,
            now: self.now,
        })
    }
}

macro_rules! update {
    ($settlements:expr, $recipient:expr) => {
        diesel::update(r::table.find((&$settlements.email_id, &$recipient.address))).set((
            r::status.eq($recipient.state.word(Table::EmailQueue)),
            r::reply.eq(&$recipient.reply),
            r::response_status.eq($recipient.code.map(i32::from)),
            r::updated_at.eq($settlements.now),
        ))
    };
}

impl Effect for Settlements {
    fn sqlite(&self, conn: &mut SqliteWriter) -> QueryResult<()> {
        for recipient in &self.recipients {
            diesel::RunQueryDsl::execute(update!(self, recipient), conn)?;
        }
        self.suppressions().try_for_each(|suppression| suppression::add_sqlite(conn, &suppression))
    }

    fn postgres<'a>(&'a self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        async move {
            for recipient in &self.recipients {
                diesel_async::RunQueryDsl::execute(update!(self, recipient), conn).await?;
            }
            for suppression in self.suppressions() {
                suppression::add_postgres(conn, &suppression).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
