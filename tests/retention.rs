//! How long things are kept: what has ended goes when it is old, what has not stays with all that it needs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use switchboard::clock::{Clock, Timestamp};
use switchboard::db::sweep::{Round, Sweep, Swept};
use switchboard::db::{Conn, Db, Target, execute};
use switchboard::error::Result;
use switchboard::on;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::EmailAttachment;
use switchboard_client::event::v1::GetEventRequest;
use switchboard_client::notification::v1::{SubscribeRequest, resync};
use switchboard_client::webhook::v1::{
    RetryFailedWebhookDeliveriesRequest, RetryWebhookDeliveryRequest, WebhookDelivery,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::deliveries::{all_to, details, now, until, until_all_succeeded};
use crate::emails::{raw, send, wait};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server};
use crate::harness::{SOON, eventually, on_both, postgres, status};
use crate::live::{after, events, subscribe};
use crate::settings::set;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many rows these tables have together.
pub async fn rows(server: &Server, tables: &[&str]) -> i64 {
    let db = Db::open(&server.config.database).await.unwrap();
    let mut conn = db.reader().await.unwrap();
    let mut total = 0;
    for table in tables {
        let sql = format!("SELECT count(*) AS count FROM {table}");
        let count: Count = on!(&mut conn, |c| diesel::sql_query(&sql).get_result(c).await).unwrap();
        total += count.count;
    }
    total
}

pub const OF_EMAILS: [&str; 6] = [
    "email_queue",
    "email_contents",
    "email_recipients",
    "email_attachments",
    "email_blobs",
    "captured_emails",
];

pub async fn gone(server: &Server, tables: &[&str]) {
    eventually(&format!("{tables:?} are empty"), async || (rows(server, tables).await == 0).then_some(()))
        .await;
}

pub async fn is_kept(server: &Server, event_id: &str) -> bool {
    let request = GetEventRequest { event_id: event_id.into() };
    match server.client.events().get_event(request).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), Code::NotFound, "{error:?}");
            false
        }
    }
}

async fn goes(server: &Server, event_id: &str) {
    eventually("the event goes", async || (!is_kept(server, event_id).await).then_some(())).await;
}

/// Has nothing follow from an endpoint that fails: days pass here in a moment, and it would be told of and disabled in the midst.
async fn let_fail(server: &Server) {
    set(&server.client, json!({"webhook.disable_after_days": 0, "webhook.failing_after_hours": 0})).await;
}

async fn none_to(server: &Server, webhook_id: &str) {
    eventually("its deliveries go", async || all_to(server, webhook_id).await.is_empty().then_some(())).await;
}

pub fn with_file(to: &str, content: &[u8]) -> switchboard_client::email::v1::SendEmailRequest {
    let file = EmailAttachment { filename: "a.txt".into(), content: content.to_vec(), ..Default::default() };
    switchboard_client::email::v1::SendEmailRequest { attachments: vec![file], ..raw(to, "File") }
}

on_both! {
    async fn what_has_ended_goes_and_what_has_not_stays_with_its_payload(server: Server) {
        let receiver = Receiver::start().await;
        let_fail(&server).await;
        receiver.respond_with("/down", Behaviour::Status(503));
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let (down, _) = server.webhook(&receiver.url("/down"), &["waits"]).await;
        let done = server.publish("done", r#"{"n":1}"#).await.event_id;
        let waits = server.publish("waits", r#"{"n":2}"#).await.event_id;
        until(&server, &down.id, DeliveryState::Retrying, 1).await;
        // Noted too, not only arrived: what is noted after the clock moves on is that much younger.
        until_all_succeeded(&server, &well.id, 2).await;
        server.advance(DAY * 29);
        until(&server, &down.id, DeliveryState::Retrying, 2).await;
        assert!(is_kept(&server, &done).await);

        server.advance(DAY * 2);
        goes(&server, &done).await;
        none_to(&server, &well.id).await;
        until(&server, &down.id, DeliveryState::Retrying, 3).await;
        eventually("only what has not ended is left", async || {
            (rows(&server, &["delivery_attempts", "webhook_deliveries", "events"]).await == 3 + 1 + 1).then_some(())
        }).await;
        receiver.respond_with("/down", Behaviour::Status(200));
        server.advance(DAY);
        until(&server, &down.id, DeliveryState::Succeeded, 4).await;
        let last = receiver.received_on("/down").pop().unwrap();
        assert_eq!(last.json()["data"], json!({"n": 2}), "its payload was kept");

        // It has ended now: its event is not needed any more, and it is kept for its time from then on.
        server.advance(DAY * 28);
        goes(&server, &waits).await;
        assert_eq!(all_to(&server, &down.id).await.len(), 1);
        server.advance(DAY * 4);
        none_to(&server, &down.id).await;
        gone(&server, &["(SELECT 1 FROM delivery_attempts WHERE number > 1) AS a"]).await;
    }

    async fn mails_go_with_their_files_and_the_last_takes_a_file_that_they_share(server: Server) {
        let first = send(&server, with_file("jo@example.com", b"shared")).await;
        wait(&server, &first, DeliveryState::Succeeded, 1).await;
        server.put_on_list("tickets_all", &["jo@example.com"]).await;
        let event_id = server.publish("ticket.created", r#"{"ticket_id":1,"title":"t","priority":"low","created_by":"jo"}"#).await.event_id;
        eventually("its mail is captured", async || (rows(&server, &["captured_emails"]).await == 2).then_some(())).await;
        server.advance(DAY * 60);
        let second = send(&server, with_file("sam@example.com", b"shared")).await;
        wait(&server, &second, DeliveryState::Succeeded, 1).await;
        let mut late = raw("kim@example.com", "Later");
        let mut time = now(&server);
        time.seconds += 300 * 24 * 60 * 60;
        late.send_time = Some(time);
        let late = send(&server, late).await;
        assert!(is_kept(&server, &event_id).await, "the mail that it caused is kept");
        assert_eq!(rows(&server, &["email_queue", "email_blobs"]).await, 4 + 1);

        server.advance(DAY * 31);
        goes(&server, &event_id).await;
        eventually("the older mails are gone", async || {
            (rows(&server, &["email_queue", "email_attachments", "email_blobs"]).await == 2 + 1 + 1).then_some(())
        }).await;
        server.advance(DAY * 61);
        gone(&server, &["email_blobs", "email_attachments", "captured_emails", "delivery_attempts"]).await;
        wait(&server, &late, DeliveryState::Scheduled, 0).await;
        server.advance(DAY * 210);
        wait(&server, &late, DeliveryState::Succeeded, 1).await;
        server.advance(DAY * 91);
        gone(&server, &OF_EMAILS).await;
    }

    async fn zero_days_keep_for_ever_and_what_has_no_event_is_not_tried_again(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(400));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        set(&server.client, json!({"retention.deliveries_days": 0, "retention.emails_days": 0, "retention.events_days": 1})).await;
        let email_id = send(&server, raw("jo@example.com", "Kept")).await;
        wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        let event_id = server.publish("a.b", "{}").await.event_id;
        let delivery = until(&server, &webhook.id, DeliveryState::Failed, 1).await;
        server.advance(DAY * 100);
        goes(&server, &event_id).await;
        wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        until(&server, &webhook.id, DeliveryState::Failed, 1).await;

        let request = RetryWebhookDeliveryRequest { delivery_id: delivery.id };
        let refused = server.client.webhooks().retry_webhook_delivery(request).await.unwrap_err();
        let details = status::expect(&refused, Code::FailedPrecondition, "EVENT_GONE");
        assert_eq!(details.error_info().unwrap().metadata["event_id"], event_id);
        let request = RetryFailedWebhookDeliveriesRequest { created_after: Some(prost_types::Timestamp::default()), ..Default::default() };
        let retried = server.client.webhooks().retry_failed_webhook_deliveries(request).await.unwrap();
        assert_eq!(retried.into_inner().count, 0);

        set(&server.client, json!({"retention.events_days": 0, "retention.deliveries_days": 1})).await;
        let kept = server.publish("a.b", "{}").await.event_id;
        eventually("it fails too", async || {
            let all = all_to(&server, &webhook.id).await;
            (all.len() == 2 && all.iter().all(|one| one.state() == DeliveryState::Failed)).then_some(())
        }).await;
        server.advance(DAY * 100);
        gone(&server, &["webhook_deliveries", "(SELECT 1 FROM delivery_attempts WHERE delivery_id LIKE 'whd%') AS a"]).await;
        assert!(is_kept(&server, &kept).await);
    }

    async fn a_cursor_before_the_beginning_of_the_log_is_told_so(server: Server) {
        let receiver = Receiver::start().await;
        let_fail(&server).await;
        receiver.respond_with("/", Behaviour::Status(503));
        server.webhook(&receiver.url("/"), &["waits"]).await;
        let waits = server.publish("waits", r#"{"n":1}"#).await;
        let gone = server.publish("a.b", r#"{"n":2}"#).await;
        server.advance(DAY * 31);
        goes(&server, &gone.event_id).await;
        assert!(is_kept(&server, &waits.event_id).await, "its delivery has not ended");
        let newer = server.publish("a.b", r#"{"n":3}"#).await;
        let (_, first) = subscribe(&server.client, after(&waits.cursor)).await;
        assert_eq!(first.resync.unwrap().reason(), resync::Reason::CursorExpired, "something after it is gone");
        assert_eq!(first.cursor, newer.cursor);
        let (mut stream, first) = subscribe(&server.client, after(&gone.cursor)).await;
        assert!(first.resync.is_none(), "everything after it is here");
        assert_eq!(events(&mut stream, 1).await, [r#"{"n":3}"#]);
    }

    async fn a_database_from_before_keeps_its_rows(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let (_, opened) = subscribe(&server.client, SubscribeRequest::default()).await;
        let mail = send(&server, with_file("jo@example.com", b"file")).await;
        wait(&server, &mail, DeliveryState::Succeeded, 1).await;
        let mut published = Vec::new();
        for n in 0..3 {
            published.push(server.publish("a.b", &format!(r#"{{"n":{n}}}"#)).await.event_id);
        }
        eventually("all is attempted", async || (rows(&server, &["delivery_attempts"]).await == 4).then_some(())).await;
        let before = rows(&server, &["events", "webhook_deliveries", "delivery_attempts"]).await + rows(&server, &OF_EMAILS).await;
        as_before(&server).await;
        let server = server.restart().await;
        let now = rows(&server, &["events", "webhook_deliveries", "delivery_attempts"]).await + rows(&server, &OF_EMAILS).await;
        assert_eq!(now, before);
        published.push(server.publish("a.b", r#"{"n":3}"#).await.event_id);
        let (mut stream, first) = subscribe(&server.client, after(&opened.cursor)).await;
        assert!(first.resync.is_none());
        assert_eq!(events(&mut stream, 4).await, [0, 1, 2, 3].map(|n| format!(r#"{{"n":{n}}}"#)));
        until_attempted(&server, &webhook.id, 4).await;
        assert_eq!(details(&server, &all_to(&server, &webhook.id).await[3].id).await.attempts.len(), 1);
        server.advance(DAY * 32);
        gone(&server, &["events", "webhook_deliveries", "(SELECT 1 FROM delivery_attempts WHERE delivery_id LIKE 'whd%') AS a"]).await;
    }

    async fn a_sweep_takes_a_little_at_a_time_and_remembers_where_it_was(server: Server) {
        let rows = Rows(Arc::new(Mutex::new(State { rows: (0..5_000).collect(), ..State::default() })));
        let (stop, mut sweep) = (CancellationToken::new(), Sweep::default());
        let db = Db::open(&server.config.database).await.unwrap();
        let at = |day: i64| Timestamp::from_parts(day * 86_400, 0);
        let round = sweep.round(&db, &rows, at(0), &stop).await.unwrap();
        assert_eq!(round, Round { removed: 4_500, more: false });
        {
            let state = rows.0.lock().unwrap();
            assert!(state.rows.iter().all(|row| row % 10 == 0), "what must stay");
            assert!(state.largest <= 1_000 && state.removals >= 5, "{} in {}", state.largest, state.removals);
        }
        let before = rows.0.lock().unwrap().looked_at;
        assert_eq!(sweep.round(&db, &rows, at(0), &stop).await.unwrap(), Round::default());
        rows.0.lock().unwrap().rows.insert(6_001);
        assert_eq!(sweep.round(&db, &rows, at(0), &stop).await.unwrap().removed, 1);
        assert_eq!(rows.0.lock().unwrap().looked_at, before + 1, "what stays is not looked at in every round");
        rows.0.lock().unwrap().rows.insert(7);
        assert_eq!(sweep.round(&db, &rows, at(0), &stop).await.unwrap().removed, 0);
        assert_eq!(sweep.round(&db, &rows, at(1), &stop).await.unwrap().removed, 1, "but once a day");
    }
}

async fn until_attempted(server: &Server, webhook_id: &str, number: usize) {
    let done =
        |all: &[WebhookDelivery]| all.iter().filter(|one| one.state() == DeliveryState::Succeeded).count();
    eventually("they are delivered", async || {
        (done(&all_to(server, webhook_id).await) == number).then_some(())
    })
    .await;
}

/// Takes the database back to before there was retention.
async fn as_before(server: &Server) {
    let folder = match &server.config.database {
        Target::Sqlite(_) => "sqlite",
        Target::Postgres(_) => "postgres",
    };
    let path = format!("{}/migrations/{folder}/0009_retention/down.sql", env!("CARGO_MANIFEST_DIR"));
    let down = std::fs::read_to_string(path).unwrap();
    let undo = format!("{down}; DELETE FROM __diesel_schema_migrations WHERE version = '0009'");
    let db = Db::open(&server.config.database).await.unwrap();
    db.transaction(move |conn| async move { execute(conn, &undo).await }.boxed()).await.unwrap();
}

/// The partitions of a table.
async fn partitions(server: &Server, table: &str) -> BTreeSet<String> {
    let Target::Postgres(url) = &server.config.database else {
        unreachable!("only PostgreSQL has partitions")
    };
    let sql = format!("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass");
    postgres::query(url, &sql).await.lines().map(str::to_owned).collect()
}

fn of_day(server: &Server, table: &str, days: u32) -> String {
    let date = (server.clock.now() + days * DAY).to_string();
    format!("{table}_{}", date[..10].replace('-', ""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_made_ahead_and_a_day_goes_at_once_unless_something_needs_it() {
    let server = Server::start(Backend::Postgres).await;
    let_fail(&server).await;
    let receiver = Receiver::start().await;
    receiver.respond_with("/down", Behaviour::Status(503));
    let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
    let (down, _) = server.webhook(&receiver.url("/down"), &["waits"]).await;
    let tables = ["events", "delivery_attempts"];
    let mut first = Vec::new();
    for table in tables {
        let there = partitions(&server, table).await;
        assert!((0..3).all(|days| there.contains(&of_day(&server, table, days))), "{there:?}");
        first.push(of_day(&server, table, 0));
    }
    for _ in 0..5 {
        server.publish("done", "{}").await;
    }
    receiver.wait_for(5, SOON).await;
    assert_eq!(rows(&server, &[first[0].as_str(), "events_default"]).await, 5, "in the partition of its day");
    eventually("attempts are kept by the day too", async || {
        (rows(&server, &[&first[1]]).await == 5).then_some(())
    })
    .await;

    server.advance(DAY);
    let mut second = Vec::new();
    for table in tables {
        let ahead = of_day(&server, table, 2);
        eventually("the next is made", async || {
            partitions(&server, table).await.contains(&ahead).then_some(())
        })
        .await;
        second.push(of_day(&server, table, 0));
    }
    let waits = server.publish("waits", "{}").await.event_id;
    server.publish("done", "{}").await;
    until(&server, &down.id, DeliveryState::Retrying, 1).await;
    until_all_succeeded(&server, &well.id, 7).await;

    server.advance(DAY * 32);
    for (table, (first, second)) in tables.iter().zip(first.iter().zip(&second)) {
        eventually("a day is dropped", async || {
            // A look that met somebody's lock is not repeated for a minute.
            server.advance(Duration::ZERO);
            (!partitions(&server, table).await.contains(first)).then_some(())
        })
        .await;
        assert!(partitions(&server, table).await.contains(second), "something of it has not ended");
    }
    eventually("the rest of that day goes", async || (rows(&server, &[&second[0]]).await == 1).then_some(()))
        .await;
    assert!(is_kept(&server, &waits).await);
    until(&server, &down.id, DeliveryState::Retrying, 2).await;
    let of_it = "(SELECT 1 FROM delivery_attempts WHERE number = 1) AS a";
    eventually("attempts of what is left are left", async || {
        (rows(&server, &[of_it]).await == 1).then_some(())
    })
    .await;

    receiver.respond_with("/down", Behaviour::Status(200));
    server.advance(DAY);
    until(&server, &down.id, DeliveryState::Succeeded, 3).await;
    server.advance(DAY * 32);
    for (table, second) in tables.iter().zip(&second) {
        eventually("and then the day", async || {
            server.advance(Duration::ZERO);
            (!partitions(&server, table).await.contains(second)).then_some(())
        })
        .await;
    }
    gone(&server, &["events", "webhook_deliveries", "delivery_attempts"]).await;
}

/// Numbers as rows, of which every tenth must stay.
#[derive(Clone)]
struct Rows(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: BTreeSet<u32>,
    looked_at: usize,
    removals: usize,
    largest: usize,
}

impl Swept for Rows {
    fn read<'a>(
        &'a self,
        _conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        let mut state = self.0.lock().unwrap();
        let after: Option<u32> = after.parse().ok();
        let rows = state.rows.iter().filter(|row| after.is_none_or(|after| **row > after));
        let rows: Vec<_> =
            rows.take(limit as usize).map(|row| (format!("{row:09}"), row % 10 != 0)).collect();
        state.looked_at += rows.len();
        async move { Ok(rows) }.boxed()
    }

    fn remove<'a>(&'a self, _conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        let mut state = self.0.lock().unwrap();
        state.removals += 1;
        state.largest = state.largest.max(ids.len());
        for id in ids {
            state.rows.remove(&id.parse().unwrap());
        }
        async move { Ok(ids.len()) }.boxed()
    }
}
