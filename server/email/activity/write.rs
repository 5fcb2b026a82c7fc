//! How activities are written: many recipients' in one commit.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{NewActivity, store};
use crate::db::group::{Done, Fault, GroupedWrite};
use crate::db::{PostgresWriter, SqliteWriter};
use crate::email::suppression::{NewSuppression, add_postgres, add_sqlite};

/// What all of them share: nothing.
pub struct ActivityContext;

/// An activity, with the suppression that follows from it.
#[derive(Debug, Clone)]
pub struct ActivityWrite {
    /// What happened.
    pub activity: NewActivity,
    /// Who gets no mail any more.
    pub suppression: Option<NewSuppression>,
}

/// The order in which rows are written: that of the addresses, so that two nodes never wait for each other in a circle.
fn order(batch: &mut [ActivityWrite]) -> Vec<&ActivityWrite> {
    let mut order: Vec<&ActivityWrite> = batch.iter().collect();
    order.sort_by_key(|write| write.suppression.as_ref().map(|new| (&new.address, &new.topic)));
    order
}

impl GroupedWrite for ActivityWrite {
    type Context = ActivityContext;
    type Output = ();

    fn weight(&self) -> usize {
        // Each looks at what is there before it writes.
        4
    }

    fn bytes(&self) -> usize {
        self.activity.detail.len() + self.activity.address.len()
    }

    fn sqlite(
        _context: &ActivityContext,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<()>, Fault> {
        for write in order(batch) {
            store::record_sqlite(conn, &write.activity)?;
            if let Some(suppression) = &write.suppression {
                add_sqlite(conn, suppression)?;
            }
        }
        Ok(Done::new(vec![(); batch.len()]))
    }

    fn postgres<'a>(
        _context: &'a ActivityContext,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<()>, Fault>> {
        async move {
            for write in order(batch) {
                store::record_postgres(conn, &write.activity).await?;
                if let Some(suppression) = &write.suppression {
                    add_postgres(conn, suppression).await?;
                }
            }
            Ok(Done::new(vec![(); batch.len()]))
        }
        .boxed()
    }
}
