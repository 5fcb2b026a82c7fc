//! Deliveries to one endpoint on a database that has delivered ten million before.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::webhook::v1::{GetWebhookDeliveryRequest, ListWebhookDeliveriesRequest};

use super::deliver::{CALLERS, deliveries};
use super::{Ceilings, in_words, say};
use crate::database::Database;
use crate::error::{Context, Result};
use crate::options::Backend;
use crate::past::Past;
use crate::process::run;
use crate::report::{Figure, Report};
use crate::stage::{Parts, Stage, endpoint};

/// How many endpoints share the history; the first one is measured.
const ENDPOINTS: u32 = 10;
/// How far the history goes back: less than anything that removes the old ones by default.
const SPAN: Duration = Duration::from_secs(25 * 24 * 60 * 60);
/// How many deliveries are made at a time.
const PORTION: u64 = 500_000;
/// The type of events that the others would want.
const OTHER: &str = "bench.other";

/// Measures one endpoint on an empty database, and then on one with a history.
pub async fn measure(
    parts: &Parts,
    backend: Backend,
    ceilings: &Ceilings,
    report: &mut Report,
) -> Result<()> {
    let (time, rows) = (parts.options.time(), parts.options.rows());
    say("history, none");
    let stage = parts.stage(backend).await?;
    stage.add_endpoints(1).await?;
    let (empty, figures) = deliveries(&stage, 1, CALLERS, ceilings, time).await?;
    report.add("history", "empty", backend.name(), &figures);
    stage.stop().await?;

    let case = format!("{} in the past", in_words(rows));
    say(&format!("history, {case}"));
    let stage = parts.stage(backend).await?;
    let mut webhooks = stage.add_endpoints(1).await?;
    let others = (1..ENDPOINTS).map(|number| endpoint(stage.sink.url(number), OTHER));
    webhooks.extend(stage.add(others).await?);
    let measured = webhooks[0].clone();
    let database = stage.halt().await;
    let begin = Instant::now();
    fill(&database, webhooks, rows).await?;
    let filling = begin.elapsed();
    let size = database.mebibytes().await?;

    let stage = parts.stage_on(database).await?;
    check(&stage, measured).await?;
    stage.settled().await?;
    let (full, others) = deliveries(&stage, 1, CALLERS, ceilings, time).await?;
    let mut figures = vec![Figure::spread("× empty", full / empty)];
    figures.extend(others);
    figures.push(Figure::median("filling s", filling.as_secs_f64()));
    figures.push(Figure::median("database MiB", size));
    report.add("history", &case, backend.name(), &figures);
    stage.stop().await
}

/// Puts the history into a database that no server uses, and lets the storage finish with it.
async fn fill(database: &Database<'_>, webhooks: Vec<String>, rows: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
    let first_position = database.number("SELECT next_position FROM event_log").await?;
    let past =
        Past { backend: database.backend, webhooks, rows, begin: now - SPAN, end: now, first_position };
    for from in (1..=rows).step_by(PORTION as usize) {
        database.sql(&past.portion(from, rows.min(from + PORTION - 1))).await?;
    }
    database.sql(&format!("UPDATE event_log SET next_position = {}", first_position + rows)).await?;
    match database.backend {
        // It was written without waiting for the disk.
        Backend::Sqlite => {
            run("sync", ["-f".as_ref(), database.folder().as_os_str()]).await?;
        }
        // Over 25 days it would have been done on the way.
        Backend::Postgres => {
            for table in ["events", "webhook_deliveries", "delivery_attempts"] {
                database.sql(&format!("VACUUM (ANALYZE) {table}")).await?;
            }
            database.sql("CHECKPOINT").await?;
        }
    }
    Ok(())
}

/// Fails unless the server reads the history as its own.
async fn check(stage: &Stage<'_>, webhook_id: String) -> Result<()> {
    let mut webhooks = stage.client().await?.webhooks();
    let request = ListWebhookDeliveriesRequest { webhook_id, page_size: 1, ..Default::default() };
    let page = webhooks.list_webhook_deliveries(request).await.context("ListWebhookDeliveries")?;
    let delivery = page.into_inner().deliveries.pop().ok_or("the server sees no history")?;
    let request = GetWebhookDeliveryRequest { delivery_id: delivery.id.clone() };
    let answer = webhooks.get_webhook_delivery(request).await.context("GetWebhookDelivery")?.into_inner();
    if delivery.state() == DeliveryState::Succeeded && answer.attempts.len() == 1 {
        Ok(())
    } else {
        Err(format!("the history is not as the server keeps it: {delivery:?}, {:?}", answer.attempts).into())
    }
}
