//! A hundred events a second, whatever the server does: how long each takes to arrive.

use std::time::Duration;

use super::open_loop::OpenLoop;
use super::say;
use crate::error::Result;
use crate::report::Report;
use crate::stage::Stage;

/// A hundred a second.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Measures one endpoint.
pub async fn measure(stage: &Stage<'_>, time: Duration, report: &mut Report) -> Result<()> {
    say("latency");
    stage.add_endpoints(1).await?;
    let events = OpenLoop::new(stage, 1, INTERVAL).await?;
    events.warm_up().await?;
    let (_, paced) = events.measure(time).await?;
    report.add("latency", "100 events/s", stage.backend.name(), &paced.figures);
    Ok(())
}
