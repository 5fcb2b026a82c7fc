//! The servers: processes of the real binary on one database, which are killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use switchboard_client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::server::Backend;
use crate::harness::tools::{self, Output, Watchdog};
use crate::harness::{SOON, postgres};

const BINARY: &str = env!("CARGO_BIN_EXE_switchboard");
const READY: &str = "switchboard is ready on ";
/// Where the server learns of failpoints.
const FAILPOINTS: &str = "SWITCHBOARD_FAILPOINTS";

/// What outlives a process: its folder, its database, its admin key.
pub struct Ground {
    folder: tempfile::TempDir,
    database: Option<String>,
    key: String,
    /// Bugs that every server has.
    bug: String,
    smtp_port: u16,
}

impl Ground {
    /// An empty one, whose servers have this bug, or none.
    pub async fn new(backend: Backend, bug: &str) -> Self {
        let database = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(postgres::fresh_database().await),
        };
        let key = tools::run(BINARY, ["key", "generate"], b"").await.expect_success().trim().to_owned();
        Self { folder: tempfile::tempdir().unwrap(), database, key, bug: bug.into(), smtp_port: 25 }
    }

    /// The same, whose servers send mail to this port.
    pub fn with_mail_server(self, smtp_port: u16) -> Self {
        Self { smtp_port, ..self }
    }

    /// Keeps the files, and says where.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The embedded database, where that is used.
    pub fn sqlite(&self) -> Option<PathBuf> {
        self.database.is_none().then(|| self.file("data").join("switchboard.db"))
    }

    /// What the servers logged last, for messages.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn command(&self, failpoints: &str) -> Command {
        let mut command = Command::new(BINARY);
        let both = [self.bug.as_str(), failpoints].into_iter().filter(|text| !text.is_empty());
        command
            .env_clear()
            .env("SWITCHBOARD_ADMIN_KEY", &self.key)
            .env("SWITCHBOARD_DATA", self.file("data"))
            .env(FAILPOINTS, both.collect::<Vec<_>>().join(","))
            .envs(self.database.as_ref().map(|url| ("DATABASE_URL", url)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the binary beside or between the servers.
    pub async fn run(&self, arguments: &[&str], failpoints: &str) -> Output {
        let mut command = self.command(failpoints);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = tokio::time::timeout(tools::TIME_LIMIT, command.output()).await;
        let output = ended.expect("a command ends").expect("the binary starts");
        Output {
            command: arguments.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a server; answers when it is ready, or `None` when it ended before, as at a failpoint.
    pub async fn start(&self, failpoints: &str) -> Option<Process> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        let settings = [
            "security.rate_limit_per_key=0",
            "email.hourly_limit=0",
            "webhook.hourly_limit=0",
            "email.smtp_host=127.0.0.1",
            "email.smtp_tls=none",
            "notifications.stream_opens_per_second=100000",
            &format!("email.smtp_port={}", self.smtp_port),
        ];
        let mut child = self
            .command(failpoints)
            .args(["serve", "--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            // In its arguments too, by which it is known.
            .arg("--data")
            .arg(self.file("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let watchdog = watch_over(&child, &self.file("data"));
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix(READY) {
                    return Some(url.to_owned());
                }
            }
            None
        };
        let url = match tokio::time::timeout(SOON, reading).await {
            Ok(Some(url)) => url,
            Ok(None) if !failpoints.is_empty() => return None,
            other => panic!("a server did not become ready: {other:?}\n{}", self.log()),
        };
        let client = Client::connect(url, &self.key).await.ok()?;
        Some(Process { child, client, _watchdog: watchdog })
    }
}

/// A running server.
pub struct Process {
    child: Child,
    /// A client with the admin key.
    pub client: Client,
    // Ends the process with this one, however this one ends.
    _watchdog: Watchdog,
}

impl Process {
    /// Waits until it ends by itself, and ends it as `kill -9` does if it has not within this time; answers what it used
    /// then ([`Process::used`]), and nothing if it has ended by itself.
    pub async fn ends(&mut self, within: Duration) -> Option<(u64, u64)> {
        if tokio::time::timeout(within, self.child.wait()).await.is_ok() {
            return None;
        }
        let used = self.used();
        self.child.kill().await.unwrap();
        used
    }

    /// Its resident memory in KiB and how many files it has open; `None` when it has gone.
    fn used(&self) -> Option<(u64, u64)> {
        let id = self.child.id()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64;
        Some((memory.trim().trim_end_matches(" kB").parse().ok()?, files))
    }

    /// As `kill` does, and systemd; answers when the process has drained and ended.
    pub async fn terminate(mut self) -> std::process::ExitStatus {
        let id = self.child.id().expect("the process runs").to_string();
        tools::run("sh", ["-c", r#"kill -TERM "$0""#, &id], b"").await.expect_success();
        let ended = tokio::time::timeout(tools::TIME_LIMIT, self.child.wait()).await;
        ended.expect("a drain ends").unwrap()
    }
}

fn watch_over(child: &Child, data: &Path) -> Watchdog {
    let id = child.id().map_or_else(|| "0".to_owned(), |id| id.to_string());
    // By its id, and only while that is still this program: its folder is among its arguments.
    let end = r#"grep -qa "$2" "/proc/$1/cmdline" && kill -9 "$1""#;
    Watchdog::new(end, [id.as_ref(), data.as_os_str()])
}
