//! Who spends processor time, and how much memory the server holds: from `/proc`.

use std::fs;
use std::time::Instant;

use crate::error::{Context, Result};

/// The kernel counts processor time for programs in hundredths of a second, on every machine that Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whose time is counted.
#[derive(Debug, Clone, Default)]
pub struct Processes {
    /// The server, when there is one.
    pub server: Option<u32>,
    /// The first process of PostgreSQL, when there is one.
    pub postmaster: Option<u32>,
    /// Programs that make load or receive it, beside this one.
    pub load: Vec<u32>,
}

/// Processor time spent so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    at: Instant,
    server: f64,
    postgres: f64,
    bench: f64,
    machine: f64,
}

/// Processor time spent between two moments, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By the server; 0 when there is none.
    pub server: f64,
    /// By PostgreSQL; `None` when there is none.
    pub postgres: Option<f64>,
    /// Cores that the load program, with its sinks and what it was compared with, kept busy.
    pub bench_cores: f64,
    /// Cores that everybody else on this machine kept busy.
    pub other_cores: f64,
}

impl Usage {
    /// What has been spent until now.
    pub fn now(processes: &Processes) -> Self {
        let load = processes.load.iter().copied().chain([std::process::id()]);
        Self {
            at: Instant::now(),
            server: processes.server.map_or(0.0, own),
            postgres: processes.postmaster.map_or(0.0, family),
            bench: load.map(own).sum(),
            machine: machine(),
        }
    }

    /// What was spent since then.
    pub fn spent(self, processes: &Processes) -> Spent {
        let now = Self::now(processes);
        let seconds = (now.at - self.at).as_secs_f64();
        let (server, postgres, bench) =
            (now.server - self.server, now.postgres - self.postgres, now.bench - self.bench);
        let others = now.machine - self.machine - server - postgres - bench;
        Spent {
            server,
            postgres: processes.postmaster.map(|_| postgres),
            bench_cores: bench / seconds,
            other_cores: others.max(0.0) / seconds,
        }
    }
}

/// The memory that a process holds, in MiB.
pub fn resident(process: u32) -> f64 {
    memory(process, "VmRSS:")
}

/// Forgets the most memory that a process ever held.
pub fn forget_peak(process: u32) -> Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5").context("the server's peak of memory")
}

/// The most memory that a process ever held, in MiB.
pub fn peak_resident(process: u32) -> f64 {
    memory(process, "VmHWM:")
}

fn memory(process: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    kibibytes / 1_024.0
}

/// The fields of `/proc/<process>/stat` that follow the program's name, which may contain anything.
fn stat(process: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

/// The sum of the fields from `from` on, in seconds; proc(5) counts from 1, and the first one here is its third.
fn seconds(fields: &[String], from: usize, count: usize) -> f64 {
    let ticks: f64 =
        fields.iter().skip(from - 3).take(count).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

/// User and system time of one process.
fn own(process: u32) -> f64 {
    seconds(&stat(process), 14, 2)
}

/// User and system time of a process, of its children, and of those that have ended.
fn family(process: u32) -> f64 {
    let parent = process.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = ids.map(stat).filter(|fields| fields.get(1) == Some(&parent));
    seconds(&stat(process), 14, 4) + children.map(|fields| seconds(&fields, 14, 2)).sum::<f64>()
}

/// The time that all processors were busy.
fn machine() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in user and nice.
    let busy = |index: usize| !matches!(index, 3 | 4);
    let sum: f64 =
        ticks.iter().take(8).enumerate().filter(|(index, _)| busy(*index)).map(|(_, ticks)| ticks).sum();
    sum / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let this = Processes { server: Some(std::process::id()), ..Processes::default() };
        let before = Usage::now(&this);
        let begin = Instant::now();
        while begin.elapsed().as_millis() < 100 {
            std::hint::spin_loop();
        }
        let spent = before.spent(&this);
        assert!(spent.server > 0.02 && spent.server < 2.0, "{spent:?}");
        assert!(spent.postgres.is_none());
        assert!(machine() > own(std::process::id()));
        let (now, most) = (resident(std::process::id()), peak_resident(std::process::id()));
        assert!(now > 1.0 && most >= now, "{now} of {most}");
    }
}
