//! The receiver of mails: Postfix's `smtp-sink`, which accepts everything and counts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{Context, Result};
use crate::postgres::free_port;
use crate::process::{Watchdog, is_root, run, tail};

/// It gives up root's rights, and needs nobody's in particular.
const USER: &str = "nobody";

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

/// How long it may take to greet.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Connections that may wait to be accepted.
const BACKLOG: &str = "1000";

/// More than one of the counters' lines.
const LINE: u64 = 256;

/// Starts the sink as a child of the watchdog. Its process id comes first; its counters go to a file, where looking at
/// them now and then costs the sink nothing that a pipe's reader would.
const BEGIN: &str = r#"
folder=$1; shift
sh -c 'echo "$$"; exec "$@" >"$0/counters"' "$folder" "$@" </dev/null 2>"$folder/log" &
sink=$!
"#;

/// Ends the sink and removes its folder.
const END: &str = r#"
kill -KILL "$sink"
wait "$sink"
rm -rf "$folder"
"#;

/// What the sink has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Sessions that have ended, the one that saw whether the sink greets included.
    pub sessions: u64,
    /// Messages that were accepted.
    pub messages: u64,
}

/// Where a sink's counters are read.
#[derive(Debug, Clone)]
pub struct Counter(PathBuf);

impl Counter {
    /// What has been counted so far.
    pub fn now(&self) -> Counters {
        last_line(&self.0).map_or_else(|_| Counters::default(), |text| counted(&text))
    }
}

/// A running sink. Dropping it ends it and removes its folder.
pub struct SmtpSink {
    watchdog: Watchdog,
    folder: PathBuf,
    port: u16,
    pid: u32,
}

impl SmtpSink {
    /// Starts one that throws everything away.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// Starts one that keeps every message in a file, which takes its time.
    pub async fn start_keeping() -> Result<Self> {
        Self::start_with(true).await
    }

    async fn start_with(keep: bool) -> Result<Self> {
        let program = installed()?;
        let mut refusal = String::new();
        for _ in 0..STARTS {
            // The user that it becomes must be able to get there, so this is no folder of the build. Nothing in it
            // needs to be durable.
            let port = free_port()?;
            let name = format!("switchboard-bench-{}-smtp-{port}", std::process::id());
            let folder = std::env::temp_dir().join(&name);
            fs::create_dir(&folder).context("a folder for smtp-sink")?;
            let address = format!("127.0.0.1:{port}");
            // Greets with a name of its own, so that whoever else may have got the port is not taken for it.
            let mut options = vec![program.as_os_str(), "-4".as_ref(), "-c".as_ref(), "-h".as_ref()];
            options.push(name.as_ref());
            if is_root() {
                options.extend([OsStr::new("-u"), OsStr::new(USER)]);
            }
            let template = folder.join("messages/mail.");
            if keep {
                options.extend([OsStr::new("-d"), template.as_os_str()]);
            }
            options.extend([OsStr::new(&address), OsStr::new(BACKLOG)]);
            if is_root() {
                run("chown", [OsStr::new(USER), folder.as_os_str()]).await?;
            }
            let args = [folder.as_os_str()].into_iter().chain(options);
            let mut watchdog = Watchdog::new(BEGIN, END, args, &[])?;
            let output = watchdog.output().ok_or("smtp-sink's output can not be read")?;
            if greets(port, &name).await {
                let pid = first_line(output)?.trim().parse().context("smtp-sink's process id")?;
                return Ok(Self { watchdog, folder, port, pid });
            }
            refusal = tail(&folder.join("log"));
            watchdog.finish().await;
        }
        Err(format!("smtp-sink did not greet: {refusal}").into())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Counters {
        self.counter().now()
    }

    /// The same, for somebody who watches it.
    pub fn counter(&self) -> Counter {
        Counter(self.folder.join("counters"))
    }

    /// How many connections it has had in all, but for the one that saw whether it greets.
    pub fn connections(&self) -> u64 {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        self.counters().sessions.saturating_sub(1) + open_at(&table, self.port)
    }

    /// Waits until it has accepted so many messages, and a moment more for those that should not come. Gives the moment
    /// at which they were there, or in which the last one was counted before the limit.
    pub async fn drained(&self, messages: u64, limit: Duration) -> Instant {
        let end = Instant::now() + limit;
        let mut seen = (self.counters().messages, Instant::now());
        while seen.0 < messages && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            let now = self.counters().messages;
            if now != seen.0 {
                seen = (now, Instant::now());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        seen.1
    }

    /// The messages that it kept: the sink's own lines, then header and body.
    pub fn kept(&self) -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(self.folder.join("messages")) else {
            // It makes the folder with the first message.
            return Ok(Vec::new());
        };
        let mut messages = Vec::new();
        for entry in entries {
            let bytes = fs::read(entry.context("a message")?.path()).context("a message")?;
            messages.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        Ok(messages)
    }

    /// Ends it and removes its folder.
    pub async fn stop(self) {
        self.watchdog.finish().await;
    }
}

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_millis(3);

/// Where smtp-sink is.
pub fn installed() -> Result<PathBuf> {
    program("smtp-sink")
}

/// Where a program of Postfix is: as a shell finds it, or where Debian keeps what only root looks for.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("{name} is missing: tests/tools/install brings it").into())
}

/// Connects until it greets with its name; `false` when somebody else has its port, or nobody.
async fn greets(port: u16, name: &str) -> bool {
    let greeting = async {
        loop {
            if let Ok(stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
                let mut line = String::new();
                let _ = BufReader::new(stream).read_line(&mut line).await;
                return line.contains(name);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(START_LIMIT, greeting).await.unwrap_or(false)
}

/// The line that is in the pipe already, since the program runs.
fn first_line(output: impl Read) -> Result<String> {
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).context("smtp-sink")?;
    Ok(line)
}

fn last_line(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LINE)))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// How many lines of the kernel's table are of connections that are open at this port; proc(5) describes them.
fn open_at(table: &str, port: u16) -> u64 {
    const ESTABLISHED: &str = "01";
    let local = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(fields[..], [_, address, _, ESTABLISHED] if address.ends_with(&local))
    };
    table.lines().filter(is_open).count() as u64
}

/// Reads the last whole one of lines such as `sess=20     quit=20     mesg=30000`, each ended by a carriage return.
fn counted(text: &str) -> Counters {
    let Some(line) = text.rsplit('\r').nth(1) else {
        return Counters::default();
    };
    let value = |name: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    Counters { sessions: value("sess="), messages: value("mesg=") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let of = |sessions, messages| Counters { sessions, messages };
        assert_eq!(counted(""), of(0, 0));
        assert_eq!(counted("sess=1       quit=0"), of(0, 0));
        assert_eq!(counted("sess=1       quit=0      mesg=0      \r"), of(1, 0));
        let text = "=19     mesg=29999  \rsess=20      quit=20     mesg=30000  \rsess=21    quit=20   mesg=3";
        assert_eq!(counted(text), of(20, 30_000));
    }

    #[test]
    fn open_connections_are_those_of_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            \x20  0: 0100007F:6600 00000000:0000 0A 00000000:00000000\n\
            \x20  1: 0100007F:6600 0100007F:9C40 01 00000000:00000000\n\
            \x20  2: 0100007F:9C40 0100007F:6600 01 00000000:00000000\n\
            \x20  3: 0100007F:6600 0100007F:9C42 06 00000000:00000000\n";
        assert_eq!(open_at(table, 0x6600), 1);
        assert_eq!(open_at(table, 0x0600), 0);
    }

    #[tokio::test]
    async fn a_sink_counts_and_keeps_what_it_gets() {
        let sink = SmtpSink::start_keeping().await.unwrap();
        let target = format!("127.0.0.1:{}", sink.port());
        run(program("smtp-source").unwrap(), ["-s", "2", "-m", "5", "-l", "100", "-d", &target])
            .await
            .unwrap();
        let begin = Instant::now();
        assert!(sink.drained(5, Duration::from_secs(20)).await < begin + Duration::from_secs(19));
        assert_eq!(sink.counters().messages, 5);
        assert_eq!(sink.connections(), 2);
        let kept = sink.kept().unwrap();
        assert_eq!(kept.len(), 5);
        assert!(kept.iter().all(|message| message.contains("\nMessage-Id: <")), "{kept:?}");
        let folder = sink.folder.clone();
        sink.stop().await;
        assert!(!folder.exists());
    }
}
