//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Switchboard over real sockets, beside the ceilings of the same machine.
#[derive(Debug, Parser)]
#[command(name = "benches/run")]
pub struct Options {
    /// What to measure; everything but `history`, `email-memory`, `keys` and `soak` when none is named. The ceilings that a scenario
    /// is held against are always measured.
    #[arg(value_enum)]
    pub scenarios: Vec<Scenario>,

    /// Which storage to measure.
    #[arg(long, value_enum, default_value_t = BackendChoice::Both)]
    pub backend: BackendChoice,

    /// How long each measurement lasts, after a second of warm-up.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub seconds: u64,

    /// How often everything is measured; the report shows the median, and the least and the greatest figure.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub runs: u64,

    /// Two seconds and one run: shows that everything works, and says little about speed.
    #[arg(long, conflicts_with_all = ["seconds", "runs"])]
    pub quick: bool,

    /// Also writes the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also draws the figures, as one SVG for each scenario, into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub charts: Option<PathBuf>,

    /// How many mails `email-memory` queues; with --quick 20,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub mails: u64,

    /// How many deliveries wait in `pending`; with --quick 20,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub pending: u64,

    /// How many deliveries were made before `history` begins; with --quick 200,000.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub rows: u64,

    /// How many keys there are in `keys`; with --quick 20,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub keys: u64,

    /// How many minutes `soak` lasts; with --quick one.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub minutes: u64,

    /// With how many subscribers `live` is measured.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
    pub subscribers: Vec<usize>,

    /// The server to measure, if it is not the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    pub server: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The empty unary RPC and the bare POST alone.
    Ceilings,
    /// Publishes acknowledged per second, of events that no endpoint wants.
    Publish,
    /// The same, a hundred events in each call.
    Batch,
    /// Webhook deliveries per second, end to end.
    Deliver,
    /// The time from send to arrival at 100 events per second.
    Latency,
    /// The same, alone and beside an endpoint that answers after ten seconds.
    SlowNeighbour,
    /// The time from send to arrival at healthy endpoints, alone and beside a thousand hostile ones.
    Hostile,
    /// Publishes acknowledged per second by many more callers than the server has places for, beside those at its peak.
    Overload,
    /// Webhook deliveries per second to an endpoint that wants each subject's events in order.
    Ordered,
    /// Webhook deliveries per second while a million others wait for another endpoint.
    Pending,
    /// Webhook deliveries per second on a database that has made ten million before.
    History,
    /// Mails per second, end to end, beside smtp-source and lettre.
    Email,
    /// The server's memory with a million mails queued.
    EmailMemory,
    /// Verifications per second with a million keys, what each takes in memory, and what the gate costs any call.
    Keys,
    /// Events delivered per second to subscribers of live streams, beside a bare server that writes the same messages.
    Live,
    /// What streams cost on which nothing happens.
    LiveIdle,
    /// What subscribers that do not read do to the others.
    LiveStalled,
    /// How long a thousand subscribers take to be there again after the server was killed.
    LiveResume,
    /// What a server holds that does half of what it can for 90 minutes.
    Soak,
    /// Whether the time that a key is refused in tells an unknown one from a wrong secret.
    Timing,
}

/// Which storage the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The embedded database.
    Sqlite,
    /// A private PostgreSQL server.
    Postgres,
    /// One after the other.
    Both,
}

/// A storage that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded database.
    Sqlite,
    /// A private PostgreSQL server.
    Postgres,
}

impl Backend {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl Options {
    /// Whether this scenario is to be measured.
    pub fn wants(&self, scenario: Scenario) -> bool {
        // Minutes and gigabytes are spent only where they are asked for.
        let asked = [Scenario::History, Scenario::EmailMemory, Scenario::Keys, Scenario::Soak];
        let unasked = self.scenarios.is_empty() && !asked.contains(&scenario);
        unasked || self.scenarios.contains(&scenario)
    }

    /// Whether an SMTP server is needed.
    pub fn wants_mail(&self) -> bool {
        [Scenario::Email, Scenario::EmailMemory, Scenario::Soak]
            .into_iter()
            .any(|scenario| self.wants(scenario))
    }

    /// Whether SQL is run beside the server.
    pub fn wants_sql(&self) -> bool {
        [Scenario::Pending, Scenario::History, Scenario::Keys]
            .into_iter()
            .any(|scenario| self.wants(scenario))
    }

    /// Whether any measurement is held against the ceilings of calls and webhooks.
    pub fn wants_ceilings(&self) -> bool {
        use Scenario::{Batch, Ceilings, Deliver, History, Pending, Publish};
        [Ceilings, Publish, Batch, Deliver, Pending, History].into_iter().any(|scenario| self.wants(scenario))
    }

    /// How many mails are queued at once to see what they take.
    pub fn mails(&self) -> u64 {
        if self.quick { self.mails.min(20_000) } else { self.mails }
    }

    /// How many deliveries wait while others are made.
    pub fn pending(&self) -> u64 {
        if self.quick { self.pending.min(20_000) } else { self.pending }
    }

    /// How many deliveries were made before.
    pub fn rows(&self) -> u64 {
        if self.quick { self.rows.min(200_000) } else { self.rows }
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        if self.quick { self.keys.min(20_000) } else { self.keys }
    }

    /// The storages to measure, in order.
    pub fn backends(&self) -> &'static [Backend] {
        match self.backend {
            BackendChoice::Sqlite => &[Backend::Sqlite],
            BackendChoice::Postgres => &[Backend::Postgres],
            BackendChoice::Both => &[Backend::Sqlite, Backend::Postgres],
        }
    }

    /// How often everything is measured.
    pub fn runs(&self) -> u64 {
        if self.quick { 1 } else { self.runs }
    }

    /// How long a measurement lasts.
    pub fn time(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { self.seconds })
    }

    /// How long the server is soaked.
    pub fn soak_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 60 } else { self.minutes * 60 })
    }

    /// How long the latency scenario lasts: at a hundred events per second, a p99 needs more of them.
    pub fn latency_time(&self) -> Duration {
        if self.quick { Duration::from_secs(3) } else { self.time().max(Duration::from_secs(10)) }
    }
}
