//! The conformance suite of the storage: the same laws on both databases, always.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use switchboard::clock::Timestamp;
use switchboard::db::group::{Done, Fault, GroupedWrite, Lane, Writer};
use switchboard::db::schema::{api_keys, delivery_attempts, email_queue, revisions};
use switchboard::db::types::StringList;
use switchboard::db::{Conn, Db, PostgresWriter, SqliteWriter, Target, execute, revision};
use switchboard::delivery::store::{claim, due_lanes, recover_all};
use switchboard::delivery::{Completion, Ledger, State, Status, Table};
use switchboard::error::{Error, Kind, Result};
use switchboard::on;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::harness::postgres;

/// A migrated database, with the folder that holds it.
struct Ground {
    db: Db,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn new(shared: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = if shared {
            Target::Postgres(postgres::fresh_database().await)
        } else {
            Target::Sqlite(folder.path().join("test.db"))
        };
        let db = Db::open(&target).await.unwrap();
        assert!(!db.migrate().await.unwrap().is_empty());
        assert!(db.migrate().await.unwrap().is_empty(), "a second run has nothing to do");
        Self { db, _folder: folder }
    }
}

macro_rules! on_both_databases {
    ($(async fn $name:ident($db:ident: Db) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn run($db: Db) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    let ground = Ground::new(false).await;
                    run(ground.db.clone()).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    let ground = Ground::new(true).await;
                    run(ground.db.clone()).await;
                }
            }
        )*
    };
}

/// A write of a row of `revisions`, whose name must be new.
struct Mark {
    name: String,
    value: i64,
}

/// How often the context counts as out of date, and how often it was refreshed.
#[derive(Default)]
struct MarkContext {
    stale: AtomicUsize,
    refreshed: AtomicUsize,
    committed: Arc<AtomicUsize>,
}

impl MarkContext {
    fn check(&self) -> Result<(), Fault> {
        let left = self.stale.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(Fault::Stale) } else { Ok(()) }
    }

    fn done(&self, batch: &[Mark]) -> Done<i64> {
        let (committed, count) = (Arc::clone(&self.committed), batch.len());
        let after = move || {
            committed.fetch_add(count, Ordering::SeqCst);
        };
        Done { outputs: batch.iter().map(|mark| mark.value).collect(), after_commit: Some(Box::new(after)) }
    }
}

impl GroupedWrite for Mark {
    type Context = MarkContext;
    type Output = i64;

    fn sqlite(
        context: &MarkContext,
        batch: &mut [Self],
        conn: &mut SqliteWriter,
    ) -> Result<Done<i64>, Fault> {
        context.check()?;
        for mark in batch.iter() {
            let row = (revisions::name.eq(&mark.name), revisions::value.eq(mark.value));
            diesel::RunQueryDsl::execute(diesel::insert_into(revisions::table).values(row), conn)?;
        }
        Ok(context.done(batch))
    }

    fn postgres<'a>(
        context: &'a MarkContext,
        batch: &'a mut [Self],
        conn: &'a mut PostgresWriter,
    ) -> BoxFuture<'a, Result<Done<i64>, Fault>> {
        async move {
            context.check()?;
            for mark in batch.iter() {
                let row = (revisions::name.eq(&mark.name), revisions::value.eq(mark.value));
                diesel::insert_into(revisions::table).values(row).execute(conn).await?;
            }
            Ok(context.done(batch))
        }
        .boxed()
    }

    fn refresh<'a>(context: &'a MarkContext, _conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        context.refreshed.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }.boxed()
    }
}

/// A lane that works, until the token is cancelled.
fn lane<W: GroupedWrite>(db: &Db, context: W::Context) -> (Lane<W>, TaskTracker, CancellationToken) {
    let (mut writer, tracker, stop) = (Writer::new(db.clone()), TaskTracker::new(), CancellationToken::new());
    let lane = writer.lane(Arc::new(context), Duration::ZERO);
    writer.start(&tracker, &stop);
    tracker.close();
    (lane, tracker, stop)
}

async fn marks(db: &Db) -> HashSet<String> {
    let mut conn = db.reader().await.unwrap();
    let names: Vec<String> =
        on!(&mut conn, |c| revisions::table.select(revisions::name).load(c).await).unwrap();
    names.into_iter().collect()
}

fn mark(name: &str) -> Mark {
    Mark { name: name.into(), value: 7 }
}

/// Puts mails into the queue: lane, due second, and how many.
async fn queue(db: &Db, rows: &[(&'static str, i64, usize)]) {
    let mut values = Vec::new();
    for (lane, due, count) in rows.iter().copied() {
        for n in 0..count {
            values.push((format!("em_{lane}_{due}_{n}"), lane, Timestamp::from_parts(due, 0)));
        }
    }
    db.transaction(move |conn| {
        Box::pin(async move {
            for (id, lane, due) in values {
                let empty = || StringList::default();
                let row = (
                    (email_queue::id.eq(id), email_queue::template.eq(""), email_queue::variables.eq("{}")),
                    (email_queue::to_addresses.eq(empty()), email_queue::cc_addresses.eq(empty())),
                    (email_queue::bcc_addresses.eq(empty()), email_queue::reply_to.eq("")),
                    (email_queue::subject.eq(""),),
                    (email_queue::destination.eq(lane), email_queue::status.eq("pending")),
                    (email_queue::next_attempt_at.eq(due), email_queue::created_at.eq(due)),
                    email_queue::updated_at.eq(due),
                );
                on!(conn, |c| diesel::insert_into(email_queue::table).values(row).execute(c).await)?;
            }
            Ok(())
        })
    })
    .await
    .unwrap();
}

async fn take(db: &Db, lane: &'static str, owner: i64, now: i64, limit: i64) -> Vec<(String, i64)> {
    let now = Timestamp::from_parts(now, 0);
    let claimed = db
        .transaction(move |conn| {
            Box::pin(async move { claim(conn, Table::EmailQueue, lane, owner, now, limit).await })
        })
        .await
        .unwrap();
    claimed.into_iter().map(|row| (row.id, row.lease_token)).collect()
}

fn completion(id: &str, token: i64, state: State) -> Completion<()> {
    let due = Timestamp::from_parts(50, 0);
    Completion {
        id: id.into(),
        token,
        status: Status { state, attempts: 1, attempts_before: 0, due },
        tried: true,
        response_status: Some(250),
        response_body: Some("250 Ok".into()),
        error: None,
        transcript: None,
        details: None,
        sequence: None,
        effect: None,
        started_at: due,
        duration: Duration::from_millis(5),
        now: due,
        slot: None,
    }
}

async fn attempts(db: &Db) -> i64 {
    let mut conn = db.reader().await.unwrap();
    on!(&mut conn, |c| delivery_attempts::table.count().get_result(c).await).unwrap()
}

on_both_databases! {
    async fn an_answered_write_is_durable_and_followed_by_its_effect(db: Db) {
        let context = MarkContext::default();
        let committed = Arc::clone(&context.committed);
        let (lane, tracker, stop) = lane::<Mark>(&db, context);
        for n in 0..20 {
            let name = format!("n{n}");
            assert_eq!(lane.write(mark(&name)).await.unwrap(), 7);
            assert!(marks(&db).await.contains(&name), "another connection sees {name}");
            assert_eq!(AtomicUsize::load(&committed, Ordering::SeqCst), n + 1, "the effect ran before the answer");
        }
        stop.cancel();
        tracker.wait().await;
    }

    async fn a_bad_write_fails_alone(db: Db) {
        let (lane, ..) = lane::<Mark>(&db, MarkContext::default());
        lane.write(mark("taken")).await.unwrap();
        let writes = (0..100).map(|n| {
            let lane = lane.clone();
            let name = if n == 50 { "taken".to_owned() } else { format!("n{n}") };
            tokio::spawn(async move { lane.write(mark(&name)).await })
        });
        let mut failed = Vec::new();
        for (n, write) in writes.collect::<Vec<_>>().into_iter().enumerate() {
            if write.await.unwrap().is_err() {
                failed.push(n);
            }
        }
        assert_eq!(failed, [50]);
        assert_eq!(marks(&db).await.iter().filter(|name| name.starts_with('n')).count(), 99);
    }

    async fn a_stale_context_is_refreshed_and_the_write_goes_on(db: Db) {
        let context = MarkContext { stale: AtomicUsize::new(3), ..MarkContext::default() };
        let (lane, ..) = lane::<Mark>(&db, context);
        lane.write(mark("late")).await.unwrap();
        assert_eq!(AtomicUsize::load(&lane.context().refreshed, Ordering::SeqCst), 3);

        lane.context().stale.store(1_000, Ordering::SeqCst);
        let error = lane.write(mark("never")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "it does not go on for ever");
        assert!(!marks(&db).await.contains("never"));
    }

    async fn a_caller_that_goes_away_does_not_stop_its_write(db: Db) {
        let (lane, tracker, stop) = lane::<Mark>(&db, MarkContext::default());
        for n in 0..50 {
            let name = format!("n{n}");
            let mut write = Box::pin(lane.write(mark(&name)));
            assert!((&mut write).now_or_never().is_none());
            drop(write);
        }
        stop.cancel();
        tracker.wait().await;
        assert_eq!(marks(&db).await.iter().filter(|name| name.starts_with('n')).count(), 50);
    }

    async fn a_unit_of_work_is_whole_or_not_at_all(db: Db) {
        let insert = revision_row;
        let failed: Result<()> = db
            .transaction(move |conn| {
                Box::pin(async move {
                    insert(conn, "half").await?;
                    Err(Error::field("x", "no"))
                })
            })
            .await;
        assert!(failed.is_err());
        let panicked: Result<()> = db
            .transaction(move |conn| {
                Box::pin(async move {
                    insert(conn, "half").await?;
                    panic!("a fault in a unit of work")
                })
            })
            .await;
        assert!(panicked.is_err());
        db.transaction(move |conn| Box::pin(async move { insert(conn, "whole").await })).await.unwrap();
        let marks = marks(&db).await;
        assert!(marks.contains("whole") && !marks.contains("half"), "{marks:?}");
    }

    async fn a_reader_can_not_write_on_the_embedded_database(db: Db) {
        if db.is_shared() {
            return;
        }
        let mut conn = db.reader().await.unwrap();
        assert!(execute(&mut conn, "DELETE FROM revisions").await.is_err());
    }

    async fn columns_hold_what_was_put_into_them(db: Db) {
        let scopes = StringList(vec!["a:b".into(), String::new(), "quote\" back\\slash, {ä} '".into()]);
        let times = [0, 1, -1, 999_999, 1_700_000_000_123_456, 253_402_300_799_999_999].map(Timestamp::from_micros);
        for (n, time) in times.into_iter().enumerate() {
            let (id, scopes) = (format!("key_{n}"), scopes.clone());
            db.transaction(move |conn| {
                Box::pin(async move {
                    let row = (
                        (api_keys::id.eq(id.clone()), api_keys::name.eq("ä"), api_keys::description.eq("")),
                        (api_keys::scopes.eq(scopes), api_keys::key_prefix.eq(id), api_keys::key_hash.eq(vec![0u8, 255])),
                        (api_keys::active.eq(true), api_keys::created_by.eq(""), api_keys::expires_at.eq(time)),
                        (api_keys::created_at.eq(time), api_keys::updated_at.eq(time)),
                    );
                    on!(conn, |c| diesel::insert_into(api_keys::table).values(row).execute(c).await)?;
                    Ok(())
                })
            })
            .await
            .unwrap();
        }
        type Row = (StringList, Timestamp, Option<Timestamp>, Vec<u8>, bool);
        let mut conn = db.reader().await.unwrap();
        let rows: Vec<Row> = on!(&mut conn, |c| api_keys::table
            .order(api_keys::expires_at)
            .select((api_keys::scopes, api_keys::expires_at, api_keys::revoked_at, api_keys::key_hash, api_keys::active))
            .load(c)
            .await)
        .unwrap();
        let mut sorted = times;
        sorted.sort();
        assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), sorted, "times sort as times");
        assert!(rows.iter().all(|row| row.0 == scopes && row.2.is_none() && row.3 == [0, 255] && row.4));
    }

    async fn a_due_delivery_is_claimed_by_one_and_not_before_its_time(db: Db) {
        queue(&db, &[("a", 10, 60), ("a", 20, 60), ("b", 20, 60), ("c", 900, 60)]).await;
        let mut conn = db.reader().await.unwrap();
        let due = due_lanes(&mut conn, Table::EmailQueue, Timestamp::from_parts(100, 0)).await.unwrap();
        assert_eq!(due, ["a", "b"]);
        let first = take(&db, "a", 1, 15, 500).await;
        assert_eq!(first.len(), 60, "only what is due");
        assert!(first.iter().all(|(id, token)| id.starts_with("em_a_10_") && *token == 1));
        let claims = (0..8).map(|owner| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let some = take(&db, "a", owner, 100, 7).await;
                    if some.is_empty() {
                        return mine;
                    }
                    mine.extend(some.into_iter().map(|(id, _)| id));
                }
            })
        });
        let mut all = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            all.extend(claim.await.unwrap());
        }
        assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (60, 60), "each to one owner");
        let due = due_lanes(&mut conn, Table::EmailQueue, Timestamp::from_parts(100, 0)).await.unwrap();
        assert_eq!(due, ["b"]);
    }

    async fn a_result_is_written_only_under_its_lease(db: Db) {
        queue(&db, &[("a", 10, 1)]).await;
        let id = take(&db, "a", 1, 50, 1).await.remove(0).0;
        assert_eq!(recover_all(&db, Table::EmailQueue, Timestamp::from_parts(60, 0)).await.unwrap(), 1);
        let again = take(&db, "a", 2, 70, 1).await.remove(0);
        assert_eq!(again, (id.clone(), 2), "a new lease has a new token");

        let (late, ..) = lane::<Completion<()>>(&db, Ledger { table: Table::EmailQueue, owner: 1 });
        assert!(!late.write(completion(&id, 1, State::Failed)).await.unwrap(), "the first owner comes late");
        assert_eq!(attempts(&db).await, 0);
        let (holder, ..) = lane::<Completion<()>>(&db, Ledger { table: Table::EmailQueue, owner: 2 });
        assert!(!holder.write(completion(&id, 1, State::Failed)).await.unwrap(), "an old token of the same owner");
        assert!(holder.write(completion(&id, 2, State::Succeeded)).await.unwrap());
        assert!(!holder.write(completion(&id, 2, State::Failed)).await.unwrap(), "a result is written once");
        assert_eq!(attempts(&db).await, 1);
        let mut conn = db.reader().await.unwrap();
        let row: (String, i32, Option<i64>) = on!(&mut conn, |c| email_queue::table
            .select((email_queue::status, email_queue::attempts, email_queue::lease_owner))
            .first(c)
            .await)
        .unwrap();
        assert_eq!(row, ("sent".into(), 1, None));
    }

    async fn a_revision_grows_by_one_with_each_change(db: Db) {
        let now = async || revision::current(&mut db.reader().await.unwrap(), revision::SETTINGS).await.unwrap();
        let before = now().await;
        let changes = (0..20).map(|_| {
            let db = db.clone();
            let change = async move {
                revision::change(&db, revision::SETTINGS, |_| Box::pin(async { Ok(()) })).await.unwrap();
            };
            tokio::spawn(change)
        });
        for change in changes.collect::<Vec<_>>() {
            change.await.unwrap();
        }
        let failed: Result<()> =
            revision::change(&db, revision::SETTINGS, |_| Box::pin(async { Err(Error::field("x", "no")) })).await;
        assert!(failed.is_err());
        assert_eq!(now().await, before + 20);
    }
}

fn revision_row<'c>(conn: &'c mut Conn, name: &'static str) -> BoxFuture<'c, Result<()>> {
    async move {
        let row = (revisions::name.eq(name), revisions::value.eq(1));
        on!(conn, |c| diesel::insert_into(revisions::table).values(row).execute(c).await)?;
        Ok(())
    }
    .boxed()
}

#[derive(QueryableByName, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    #[diesel(sql_type = diesel::sql_types::Text)]
    table_name: String,
    #[diesel(sql_type = diesel::sql_types::Text)]
    column_name: String,
}

/// The two migrations make the same tables with the same columns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_columns() {
    let ours = "table_name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'";
    let sqlite = format!(
        "SELECT m.name AS table_name, c.name AS column_name FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND {}",
        ours.replace("table_name", "m.name")
    );
    let postgres = format!(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND {ours}
             AND NOT (SELECT relispartition FROM pg_class WHERE oid = format('public.%I', table_name)::regclass)"
    );
    let mut columns = Vec::new();
    for (shared, sql) in [(false, sqlite), (true, postgres)] {
        let ground = Ground::new(shared).await;
        let mut conn = ground.db.reader().await.unwrap();
        let mut found: Vec<Column> = on!(&mut conn, |c| diesel::sql_query(&sql).load(c).await).unwrap();
        found.sort();
        columns.push(found);
    }
    assert!(columns[0].len() > 80, "{}", columns[0].len());
    assert_eq!(columns[0], columns[1]);
}
