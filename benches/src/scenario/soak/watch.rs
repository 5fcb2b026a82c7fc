//! What the server's process holds, looked at again and again, and whether it holds more the longer it runs.

use std::fs;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Context, Result};
use crate::process::run;
use crate::report::Figure;
use crate::scenario::say;
use crate::stage::Stage;
use crate::usage::resident;

/// How often what was seen is told while it goes on.
const SAY: Duration = Duration::from_secs(60);
/// Where less is left on the disk, the measurement ends.
const ROOM: u64 = 2 << 30;
/// How long the server may take to say how it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What the server calls the number of its tasks.
const TASKS: &str = "switchboard_runtime_tasks ";

/// Looks at one server.
pub struct Watch {
    process: u32,
    address: String,
    folder: std::path::PathBuf,
    began: Instant,
    looks: Vec<Look>,
    said: Option<Instant>,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    hours: f64,
    resident: f64,
    files: f64,
    tasks: f64,
}

impl Watch {
    /// One that has not looked yet.
    pub fn new(stage: &Stage<'_>) -> Self {
        Self {
            process: stage.server.pid(),
            address: stage.server.address().trim_start_matches("http://").to_owned(),
            folder: stage.database.folder().to_owned(),
            began: Instant::now(),
            looks: Vec::new(),
            said: None,
        }
    }

    /// Looks once.
    pub async fn look(&mut self) -> Result<()> {
        let left = run("df", ["--output=avail", "-B1", &self.folder.display().to_string()]).await?;
        let left: u64 = left.lines().last().unwrap_or_default().trim().parse().context("what df says")?;
        if left < ROOM {
            return Err(format!("only {left} bytes are left on the disk of the database").into());
        }
        let tasks =
            tokio::time::timeout(ANSWER_LIMIT, tasks(&self.address)).await.context("the metrics")??;
        let files = fs::read_dir(format!("/proc/{}/fd", self.process)).context("the server's files")?.count();
        let hours = self.began.elapsed().as_secs_f64() / 3_600.0;
        let look = Look { hours, resident: resident(self.process), files: files as f64, tasks };
        if self.said.is_none_or(|said| said.elapsed() >= SAY) {
            self.said = Some(Instant::now());
            let minutes = hours * 60.0;
            say(&format!(
                "soak, after {minutes:.0} minutes: {:.1} MiB, {files} files, {tasks} tasks",
                look.resident
            ));
        }
        self.looks.push(look);
        Ok(())
    }

    /// The memory in the course of time, in minutes.
    pub fn memory(&self) -> Vec<(f64, f64)> {
        self.looks.iter().map(|look| (look.hours * 60.0, look.resident)).collect()
    }

    /// How much more of each there is an hour, after the first third of the time.
    pub fn figures(&self) -> Vec<Figure> {
        let late = &self.looks[self.looks.len() / 3..];
        let slope = |of: fn(&Look) -> f64| slope(late.iter().map(|look| (look.hours, of(look))));
        let ends = |of: fn(&Look) -> f64| (late.first().map_or(0.0, of), late.last().map_or(0.0, of));
        let (resident, files, tasks) =
            (ends(|look| look.resident), ends(|look| look.files), ends(|look| look.tasks));
        vec![
            Figure::spread("RSS MiB/h", slope(|look| look.resident)),
            Figure::spread("files/h", slope(|look| look.files)),
            Figure::spread("tasks/h", slope(|look| look.tasks)),
            Figure::median("RSS MiB after a third", resident.0),
            Figure::median("RSS MiB at the end", resident.1),
            Figure::median("files after a third", files.0),
            Figure::median("files at the end", files.1),
            Figure::median("tasks after a third", tasks.0),
            Figure::median("tasks at the end", tasks.1),
        ]
    }
}

/// How many tasks the server has, as it says itself.
async fn tasks(address: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(address).await.context("the metrics")?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("the metrics")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("the metrics")?;
    let line = answer.lines().find_map(|line| line.strip_prefix(TASKS));
    line.and_then(|count| count.trim().parse().ok()).ok_or_else(|| "the metrics do not tell the tasks".into())
}

/// How steeply the straight line rises that is nearest to the points, by the squares of the distances.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count().max(1) as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (above, below) = points.fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_noise_has_none() {
        let line = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) + 7.0));
        assert!((slope(line) - 3.0).abs() < 1e-9);
        let noise = (0..1_000).map(|x| (f64::from(x), if x % 2 == 0 { 1.0 } else { -1.0 }));
        assert!(slope(noise).abs() < 1e-4);
        assert_eq!(slope([(1.0, 5.0)].into_iter()), 0.0);
        assert_eq!(slope(std::iter::empty()), 0.0);
    }
}
