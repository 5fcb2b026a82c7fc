//! A real SMTP server that accepts everything: Postfix's `smtp-sink`, on loopback, one file per message.
//!
//! Faults are asked of it by its own options: `-r RCPT` refuses recipients for now (450), `-f RCPT` for good (500),
//! `-q .` hangs up at the end of the message, `-p` announces no pipelining; see smtp-sink(1).
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]
#![allow(clippy::disallowed_methods, reason = "a measuring instrument reads the real clock")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::tools::{Watchdog, folder_of, free_port, is_root, tool};

/// It gives up root's rights, and needs nobody's in particular.
const USER: &str = "nobody";

/// How long the server may take to answer its first connection.
const START: Duration = Duration::from_secs(20);

/// How often a folder or a port is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(10);

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

/// A message that the server accepted.
#[derive(Debug, Clone)]
pub struct Mail {
    /// What HELO or EHLO named.
    pub helo: String,
    /// The arguments of MAIL after `FROM:`, such as `<someone@example.com> SIZE=10`.
    pub mail_from: String,
    /// The arguments of each RCPT after `TO:`, in order.
    pub rcpt_to: Vec<String>,
    /// Header and body as the client sent them, with dot-stuffing undone and lines ending in `\n`.
    pub raw: String,
}

impl Mail {
    /// The value of a header field, with its folding undone; `None` when the message has none of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.raw.split("\n\n").next()?;
        let mut value: Option<String> = None;
        for line in head.lines() {
            match (&mut value, line.starts_with([' ', '\t'])) {
                (Some(value), true) => value.push_str(&format!(" {}", line.trim_start())),
                (Some(_), false) => break,
                (None, false) => {
                    let (field, text) = line.split_once(':')?;
                    value = field.eq_ignore_ascii_case(name).then(|| text.trim().to_owned());
                }
                (None, true) => {}
            }
        }
        value
    }

    /// Takes a capture file apart: the server's own `X-` lines, its three-line `Received`, then the message and one
    /// empty line.
    fn parse(file: &Path) -> Self {
        let bytes = std::fs::read(file).expect("a finished capture can be read");
        let text = String::from_utf8_lossy(&bytes);
        let mut mail =
            Self { helo: String::new(), mail_from: String::new(), rcpt_to: Vec::new(), raw: String::new() };
        let mut rest = text.as_ref();
        while let Some((line, after)) = rest.split_once('\n') {
            if let Some(value) = line.strip_prefix("X-Helo-Args: ") {
                value.clone_into(&mut mail.helo);
            } else if let Some(value) = line.strip_prefix("X-Mail-Args: ") {
                value.clone_into(&mut mail.mail_from);
            } else if let Some(value) = line.strip_prefix("X-Rcpt-Args: ") {
                mail.rcpt_to.push(value.to_owned());
            } else if line.starts_with("Received: ") {
                // The message begins behind the two lines that continue this one.
                rest = after.splitn(3, '\n').nth(2).unwrap_or_default();
                break;
            }
            rest = after;
        }
        rest.strip_suffix('\n').unwrap_or(rest).clone_into(&mut mail.raw);
        mail
    }
}

/// A running server. It ends when it is dropped or when the test process does, and its messages with it.
pub struct SmtpSink {
    port: u16,
    child: Child,
    messages: PathBuf,
    // Dropped last: ends the server if nothing else has, and removes its folder.
    _watchdog: Watchdog,
}

impl SmtpSink {
    /// Starts a server that accepts everything.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further options of `smtp-sink`.
    ///
    /// # Panics
    /// When it does not answer, with what it printed.
    pub async fn start_with(options: &[&str]) -> Self {
        let program = tool("smtp-sink");
        let mut said = String::new();
        for _ in 0..STARTS {
            let folder = folder_of(USER, "switchboard-smtp-").await;
            // Greets with a name of its own, so that whoever else may have got the port is not taken for it.
            let name = folder.file_name().and_then(|name| name.to_str()).expect("a readable name").to_owned();
            let port = free_port();
            let mut command = Command::new(&program);
            if is_root() {
                command.args(["-u", USER]);
            }
            let log = folder.join("log");
            command
                .args(["-4", "-h", &name, "-d"])
                .arg(folder.join("messages/mail."))
                .args(options)
                .args([&format!("127.0.0.1:{port}"), "1000"])
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log).expect("the folder is writable"))
                .process_group(0)
                .kill_on_drop(true);
            let mut child =
                command.spawn().unwrap_or_else(|error| panic!("smtp-sink does not start: {error}"));
            let id = child.id().expect("a child that was not waited for has an id").to_string();
            // By its id, and only while that is still this program: the folder's name is among its arguments.
            let end = r#"grep -qa "$3" "/proc/$1/cmdline" && kill -9 "$1"; rm -rf "$2""#;
            let watchdog = Watchdog::new(end, [id.as_ref(), folder.as_os_str(), name.as_ref()]);
            if greets(&mut child, port, &name).await {
                return Self { port, child, messages: folder.join("messages"), _watchdog: watchdog };
            }
            said = std::fs::read_to_string(&log).unwrap_or_default();
        }
        panic!("smtp-sink did not answer: {said}");
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The messages that were accepted so far, in the order of their capture files' last change.
    pub fn received(&self) -> Vec<Mail> {
        let Ok(entries) = std::fs::read_dir(&self.messages) else {
            // The server creates the folder with its first message.
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                Some((path.metadata().ok()?.modified().ok()?, path))
            })
            .collect();
        // Listed before the open files are: one that is in the list and not open any more is complete.
        let open = self.open_files();
        files.retain(|(_, path)| !open.contains(path) && path.exists());
        files.sort();
        files.iter().map(|(_, path)| Mail::parse(path)).collect()
    }

    /// Waits until at least `number` messages were accepted, and gives all that were.
    ///
    /// # Panics
    /// When they were not `within` that time, with their subjects.
    pub async fn wait_for(&self, number: usize, within: Duration) -> Vec<Mail> {
        let deadline = Instant::now() + within;
        loop {
            // Counting names is cheap enough to repeat; reading all messages each time is not.
            let names = std::fs::read_dir(&self.messages).map_or(0, Iterator::count);
            if names >= number {
                let mails = self.received();
                if mails.len() >= number {
                    return mails;
                }
            }
            if Instant::now() >= deadline {
                let mails = self.received();
                let subjects: Vec<_> = mails.iter().map(|mail| mail.header("Subject")).collect();
                panic!("waited {within:?} for {number} messages, and {} came: {subjects:?}", mails.len());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn open_files(&self) -> HashSet<PathBuf> {
        let Some(id) = self.child.id() else {
            return HashSet::new();
        };
        let Ok(entries) = std::fs::read_dir(format!("/proc/{id}/fd")) else {
            return HashSet::new();
        };
        entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        // Before the watchdog removes the folder that it writes to.
        let _ = self.child.start_kill();
    }
}

/// Connects until the server greets with its name; `false` when it ended, or somebody else has its port.
async fn greets(child: &mut Child, port: u16, name: &str) -> bool {
    let greeting = async {
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                let mut line = String::new();
                let _ = BufReader::new(stream).read_line(&mut line).await;
                return line.contains(name);
            }
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(START, greeting).await.unwrap_or(false)
}
