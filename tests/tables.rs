//! The tables as administrators know them: their SQL works on PostgreSQL, for reading and for repair.

use switchboard_client::delivery::v1::DeliveryState;

use crate::harness::postgres::query;
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server};
use crate::harness::{SOON, eventually};

/// What an administrator asks of the tables.
const QUESTIONS: [&str; 7] = [
    "SELECT status, COUNT(*) FROM email_queue GROUP BY status",
    "SELECT * FROM email_queue WHERE status = 'failed' ORDER BY created_at DESC LIMIT 10",
    "SELECT error_message, COUNT(*) FROM email_queue WHERE status = 'failed' GROUP BY error_message",
    "SELECT w.name, COUNT(CASE WHEN wd.status = 'success' THEN 1 END), COUNT(CASE WHEN wd.status = 'failed' THEN 1 END)
     FROM webhooks w LEFT JOIN webhook_deliveries wd ON w.id = wd.webhook_id
     WHERE wd.created_at > NOW() - INTERVAL '7 days' GROUP BY w.name",
    "SELECT AVG(EXTRACT(EPOCH FROM (updated_at - created_at))) FROM webhook_deliveries
     WHERE created_at > NOW() - INTERVAL '1 hour'",
    "SELECT name, active, events FROM webhooks",
    "SELECT name, active, expires_at, scopes FROM api_keys WHERE key_prefix = 'swb_00000000000'",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_can_ask_and_repair_with_sql() {
    let server = Server::start(Backend::Postgres).await;
    let switchboard::db::Target::Postgres(url) = &server.config.database else { unreachable!() };
    let receiver = Receiver::start().await;
    receiver.respond_with("/", Behaviour::StatusThen(vec![404, 200]));
    server.webhook_to(&receiver, &["a.*"]).await;
    let published = server.publish("a.b", "{}").await;
    let state = async || server.event(&published.event_id).await.outcomes[0].state();
    eventually("it fails", async || (state().await == DeliveryState::Failed).then_some(())).await;

    for question in QUESTIONS {
        query(url, question).await;
    }
    assert_eq!(query(url, QUESTIONS[3]).await.trim(), "test|0|1");

    let repair = "UPDATE webhook_deliveries SET status = 'pending', attempts = 0
                  WHERE status = 'failed' AND created_at > NOW() - INTERVAL '1 day'";
    query(url, repair).await;
    let arrived = receiver.wait_for(2, SOON).await;
    assert_eq!(arrived[0].header("webhook-id"), arrived[1].header("webhook-id"));
    eventually("it succeeds", async || (state().await == DeliveryState::Succeeded).then_some(())).await;
}
