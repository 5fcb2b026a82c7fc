//! The scenarios, and the order in which one run goes through them.

mod ceilings;
mod deliver;
mod email;
mod history;
mod hostile;
mod keys;
mod latency;
mod live;
mod open_loop;
mod ordered;
mod overload;
mod pending;
mod publish;
mod reconcile;
mod slow_neighbour;
mod soak;
mod timing;

use std::collections::BTreeSet;

use crate::error::Result;
use crate::options::{Backend, Scenario};
use crate::report::Report;
use crate::stage::Parts;

pub use ceilings::Ceilings;

/// Measures everything that was asked for on one storage, once.
pub async fn run(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let options = &parts.options;
    if options.wants_ceilings() {
        calls_and_webhooks(parts, backend, report).await?;
    }
    if options.wants(Scenario::Latency) {
        let stage = parts.stage(backend).await?;
        latency::measure(&stage, options.latency_time(), report).await?;
        stage.stop().await?;
    }
    if options.wants(Scenario::SlowNeighbour) {
        let stage = parts.stage(backend).await?;
        slow_neighbour::measure(&stage, options.latency_time(), report).await?;
        stage.stop().await?;
    }
    if options.wants(Scenario::Hostile) {
        let stage = parts.stage(backend).await?;
        hostile::measure(&stage, options.latency_time(), report).await?;
        stage.stop().await?;
    }
    if options.wants(Scenario::Overload) {
        let stage = parts.stage(backend).await?;
        overload::measure(&stage, options.time(), report).await?;
        stage.stop().await?;
    }
    if options.wants(Scenario::Ordered) {
        let stage = parts.stage(backend).await?;
        ordered::measure(&stage, report).await?;
        stage.stop().await?;
    }
    if options.wants(Scenario::Email) {
        email::measure(parts, backend, report).await?;
    }
    if options.wants(Scenario::EmailMemory) {
        email::memory(parts, backend, report).await?;
    }
    if options.wants(Scenario::Keys) {
        keys::measure(parts, backend, report).await?;
    }
    if options.wants(Scenario::Live) {
        live::fan_out(parts, backend, report).await?;
    }
    if options.wants(Scenario::LiveIdle) {
        live::idle(parts, backend, report).await?;
    }
    if options.wants(Scenario::LiveStalled) {
        live::stalled(parts, backend, report).await?;
    }
    if options.wants(Scenario::LiveResume) {
        live::resume(parts, backend, report).await?;
    }
    if options.wants(Scenario::Soak) {
        soak::measure(parts, backend, options.soak_time(), report).await?;
    }
    // It stands on no storage: once a run is enough.
    if options.wants(Scenario::Timing) && options.backends().first() == Some(&backend) {
        timing::measure(parts, report).await?;
    }
    Ok(())
}

/// Measures the ceilings, and what is held against them.
async fn calls_and_webhooks(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let options = &parts.options;
    let mut callers = BTreeSet::new();
    if options.wants(Scenario::Ceilings) || options.wants(Scenario::Deliver) {
        callers.extend(deliver::CASES.map(|(_, callers)| callers));
    }
    if options.wants(Scenario::Pending) || options.wants(Scenario::History) {
        callers.insert(deliver::CALLERS);
    }
    if options.wants(Scenario::Publish) {
        callers.extend(publish::CALLERS);
    }
    if options.wants(Scenario::Batch) {
        callers.insert(publish::BATCH_CALLERS);
    }

    let stage = parts.stage(backend).await?;
    let ceilings = ceilings::measure(&stage, &callers, options.time(), report).await?;
    if options.wants(Scenario::Publish) {
        publish::single(&stage, &ceilings, options.time(), report).await?;
    }
    if options.wants(Scenario::Batch) {
        publish::batch(&stage, &ceilings, options.time(), report).await?;
    }
    stage.stop().await?;

    if options.wants(Scenario::Deliver) {
        for (endpoints, callers) in deliver::CASES {
            // A new server each time: none has to carry the history of the one before.
            let stage = parts.stage(backend).await?;
            deliver::measure(&stage, endpoints, callers, &ceilings, options.time(), report).await?;
            stage.stop().await?;
        }
    }
    if options.wants(Scenario::Pending) {
        pending::measure(parts, backend, &ceilings, report).await?;
    }
    if options.wants(Scenario::History) {
        history::measure(parts, backend, &ceilings, report).await?;
    }
    Ok(())
}

/// Says on standard error what is being measured.
pub(crate) fn say(what: &str) {
    eprintln!("  {what}");
}

/// A number with commas between the thousands.
fn in_words(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", in_words(number / 1_000), number % 1_000),
    }
}

/// So many of something that has a simple plural.
fn many(count: usize, one: &str) -> String {
    format!("{} {one}{}", in_words(count as u64), if count == 1 { "" } else { "s" })
}

/// A number of callers in words.
fn callers_in_words(count: usize) -> String {
    if count == 1 { "1 caller".to_owned() } else { format!("{count} callers") }
}
