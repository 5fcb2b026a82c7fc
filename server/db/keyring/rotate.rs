//! Other keys: a data key that seals from now on, and a master key that wraps the data keys.
//!
//! A rotation of the data key has three steps.  Each is a transaction or a row of them that may be cut off anywhere: the
//! keys that any value needs are in `data_keys` at all times, and another call goes on where it was.
//! 1. [`begin`] makes the new key active and retires the old one.
//! 2. [`reseal`] seals anew what is not under the active key, a few values at a time, each only if it is still what was
//!    read.
//! 3. [`finish`] drops the retired keys, if nothing is under them any more.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use zeroize::Zeroizing;

use super::sealed::{SEALED, SealedColumn, SealedValue, does_not_open};
use super::{DataKeyRow, SEAL, master_key_wrong, place, refresh, rows, unwrap, wrapper};
use crate::clock::Timestamp;
use crate::db::schema::data_keys;
use crate::db::{Conn, Db, revision};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::on;
use crate::secret::{KEY_LENGTH, Sealer};

/// How a rotation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// A key was made.
    Anew,
    /// An earlier rotation did not come to its end: this one goes on with it.
    Resumed,
}

/// Makes another key the active one, unless a retired one is still there.
///
/// # Errors
/// `FAILED_PRECONDITION` when the master key was replaced meanwhile.
pub async fn begin(db: &Db, sealer: &Sealer, id: String, now: Timestamp) -> Result<Beginning> {
    let sealer = sealer.clone();
    db.transaction(move |conn| {
        Box::pin(async move {
            revision::lock(conn).await?;
            let rows = rows(conn).await?;
            let beginning = if rows.iter().any(|row| row.seals() && row.retired_at.is_some()) {
                Beginning::Resumed
            } else {
                let masters = sealer.masters().ok_or_else(master_key_wrong)?;
                let wrapper = wrapper(&rows, &**masters, &sealer.random())?;
                replace_active(conn, &wrapper, &sealer, id, now).await?;
                revision::bump(conn, revision::DATA_KEYS).await?;
                Beginning::Anew
            };
            refresh(conn, &sealer).await?;
            Ok(beginning)
        })
    })
    .await
}

async fn replace_active(
    conn: &mut Conn,
    wrapper: &Sealer,
    sealer: &Sealer,
    id: String,
    now: Timestamp,
) -> Result<()> {
    let active = data_keys::purpose.eq(SEAL).and(data_keys::retired_at.is_null());
    let retire = diesel::update(data_keys::table.filter(active)).set(data_keys::retired_at.eq(now));
    on!(conn, |c| retire.execute(c).await)?;
    let mut fresh = Zeroizing::new([0; KEY_LENGTH]);
    sealer.random().fill(&mut *fresh);
    let wrapped = wrapper.seal(place(&id), &*fresh)?;
    let row = (
        data_keys::id.eq(id),
        data_keys::purpose.eq(SEAL),
        data_keys::wrapped.eq(wrapped),
        data_keys::created_at.eq(now),
    );
    let insert = diesel::insert_into(data_keys::table).values(row);
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Goes through every sealed value once, and seals anew what is not under the active key, at most `batch` of them in a
/// transaction; answers how many.  `progress` is told after each transaction how many there were until then.
///
/// # Errors
/// `FAILED_PRECONDITION` with the places of values that no key opens, after all others were sealed anew.
pub async fn reseal(
    db: &Db,
    sealer: &Sealer,
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Result<usize> {
    let mut done = 0;
    let mut broken = Vec::new();
    for column in SEALED {
        let mut after: Option<SealedValue> = None;
        loop {
            let mut conn = db.reader().await?;
            let page = column.page(&mut conn, after.as_ref(), batch.max(1) as i64).await?;
            refresh(&mut conn, sealer).await?;
            drop(conn);
            after = page.last().cloned();
            if after.is_none() {
                break;
            }
            let old: Vec<_> = page.into_iter().filter(|value| !sealer.is_current(&value.sealed)).collect();
            if !old.is_empty() {
                done += reseal_page(db, sealer.clone(), column, old, &mut broken).await?;
                progress(done);
                failpoint::pass("rotation.resealed");
            }
        }
    }
    if broken.is_empty() { Ok(done) } else { Err(does_not_open(&broken)) }
}

async fn reseal_page(
    db: &Db,
    sealer: Sealer,
    column: &'static SealedColumn,
    page: Vec<SealedValue>,
    broken: &mut Vec<String>,
) -> Result<usize> {
    let (done, failed) = db
        .transaction(move |conn| {
            Box::pin(async move {
                // A rotation that another process began meanwhile counts from here on.
                refresh(conn, &sealer).await?;
                let (mut done, mut failed) = (0, Vec::new());
                for value in page {
                    let row = column.row(&value);
                    let place = column.place(&row);
                    let Ok(plain) = sealer.open(place, &value.sealed) else {
                        failed.push(format!("{}.{} of {row}", column.table, column.column));
                        continue;
                    };
                    // What was changed meanwhile was sealed under the active key.
                    done += usize::from(column.replace(conn, &value, &sealer.seal(place, &plain)?).await?);
                }
                Ok((done, failed))
            })
        })
        .await?;
    broken.extend(failed);
    Ok(done)
}

/// Drops the retired keys; answers how many.  `None` when there is something under one of them: it is to be sealed anew
/// first.
pub async fn finish(db: &Db, sealer: &Sealer) -> Result<Option<usize>> {
    let sealer = sealer.clone();
    db.transaction(move |conn| {
        Box::pin(async move {
            // Under it no secret is changed, and whoever changes one next learns of the keys first.
            revision::lock(conn).await?;
            refresh(conn, &sealer).await?;
            let ring = sealer.ring();
            let active =
                ring.active.number().ok_or_else(|| Error::internal("the active key has no number"))?;
            for column in SEALED {
                if column.count_others(conn, active).await? > 0 {
                    return Ok(None);
                }
            }
            let retired = data_keys::purpose.eq(SEAL).and(data_keys::retired_at.is_not_null());
            let delete = diesel::delete(data_keys::table.filter(retired));
            let dropped = on!(conn, |c| delete.execute(c).await)?;
            if dropped > 0 {
                revision::bump(conn, revision::DATA_KEYS).await?;
                refresh(conn, &sealer).await?;
            }
            Ok(Some(dropped))
        })
    })
    .await
}

/// Wraps every data key by another master key, in one transaction; answers how many.
///
/// # Errors
/// `FAILED_PRECONDITION` when none of the master keys that there are is the right one.
pub async fn rewrap(db: &Db, sealer: &Sealer, master: &[u8; KEY_LENGTH]) -> Result<usize> {
    let (sealer, new) = (sealer.clone(), Sealer::new(master, sealer.random()));
    db.transaction(move |conn| {
        Box::pin(async move {
            revision::lock(conn).await?;
            let rows = rows(conn).await?;
            let masters = sealer.masters().ok_or_else(master_key_wrong)?;
            let old = wrapper(&rows, &**masters, &sealer.random())?;
            for DataKeyRow { id, purpose, wrapped, .. } in &rows {
                let key = unwrap(&old, id, purpose, wrapped).ok_or_else(master_key_wrong)?;
                let wrapped = new.seal(place(id), &*key)?;
                let update = diesel::update(data_keys::table.find(id)).set(data_keys::wrapped.eq(wrapped));
                on!(conn, |c| update.execute(c).await)?;
                failpoint::pass("rotation.wrapping");
            }
            Ok(rows.len())
        })
    })
    .await
}
