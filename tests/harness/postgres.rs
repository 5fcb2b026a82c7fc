//! Real PostgreSQL databases for tests: a private cluster on loopback, and a new empty database for each that asks.
//!
//! The cluster is started by the first test that needs it and shared by the rest of its process. It lives in a temporary
//! folder, and a [`Watchdog`] stops it and removes the folder when the test process ends, however it ends.
//!
//! With `TEST_DATABASE_URL` set, that server is used instead, and what was created there is dropped at the end.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use tokio::sync::OnceCell;

use super::eventually;
use super::tools::{Output, Watchdog, folder_of, free_port, is_root, run, tool};

/// PostgreSQL refuses to run as root, so this user runs it then. Debian's package creates it.
const USER: &str = "postgres";

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

static SHARED: OnceCell<Cluster> = OnceCell::const_new();
static CREATED: AtomicU64 = AtomicU64::new(0);
static FOREIGN: Mutex<Vec<Watchdog>> = Mutex::new(Vec::new());

/// The URL of a new, empty database.
///
/// # Panics
/// When there is no server to be had, with what its log says.
pub async fn fresh_database() -> String {
    let number = CREATED.fetch_add(1, Ordering::Relaxed) + 1;
    match std::env::var("TEST_DATABASE_URL") {
        Ok(server) if !server.is_empty() => foreign_database(&server, number).await,
        _ => {
            let cluster = SHARED.get_or_init(|| Cluster::start(Durability::Fast)).await;
            cluster.create_database(&format!("test_{number}")).await
        }
    }
}

/// A database on a server that is not ours: its name is unlike any other run's, and it is dropped at the end.
async fn foreign_database(server: &str, number: u64) -> String {
    let moment = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_micros();
    let name = format!("test_{}_{moment}_{number}", std::process::id());
    query(server, &format!("CREATE DATABASE {name}")).await;
    let drop_it = r#""$1" -X -d "$2" -c "DROP DATABASE IF EXISTS $3 WITH (FORCE)""#;
    let args = [bin("psql").into_os_string(), server.into(), OsString::from(&name)];
    FOREIGN.lock().expect("no panic holds it").push(Watchdog::new(drop_it, args));
    with_database(server, &name)
}

/// Replaces the database that a URL names.
fn with_database(url: &str, name: &str) -> String {
    let (address, options) = url.split_once('?').map_or((url, None), |(a, o)| (a, Some(o)));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let server = address[authority..].find('/').map_or(address, |at| &address[..authority + at]);
    match options {
        Some(options) => format!("{server}/{name}?{options}"),
        None => format!("{server}/{name}"),
    }
}

/// Runs SQL with `psql` and gives what it prints, unaligned and without headings: one line per row, columns separated
/// by `|`.
///
/// # Panics
/// When the server refuses it, with the server's words.
pub async fn query(url: &str, sql: &str) -> String {
    try_query(url, sql).await.expect_success().trim_end_matches('\n').to_owned()
}

/// As [`query`], leaving failure to the caller.
pub async fn try_query(url: &str, sql: &str) -> Output {
    let args = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql];
    run(bin("psql"), args, b"").await
}

/// A program of the newest PostgreSQL on this machine, such as `psql`.
///
/// # Panics
/// When there is none.
pub fn bin(name: &str) -> PathBuf {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
                let bin = path.join("bin");
                // Clients and servers are packaged apart: only a folder with a server will do.
                bin.join("postgres").exists().then_some((version, bin))
            })
            .max()
            .map(|(_, bin)| bin)
    });
    match folder {
        Some(folder) => folder.join(name),
        None => tool(name),
    }
}

/// What a cluster promises about a commit it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: for tests of behaviour, which never survive their machine.
    Fast,
    /// That it is on the disk: for measurements, and for tests that kill the server.
    Durable,
}

impl Durability {
    fn settings(self) -> &'static str {
        match self {
            Self::Fast => "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n",
            Self::Durable => "fsync = on\nsynchronous_commit = on\nfull_page_writes = on\n",
        }
    }
}

/// A PostgreSQL server of this process's own, on loopback only, where everybody is trusted.
#[derive(Debug)]
pub struct Cluster {
    port: u16,
    folder: PathBuf,
    // Stops the server and removes the folder when the cluster is dropped or the process ends.
    _watchdog: Watchdog,
}

impl Cluster {
    /// Creates a cluster and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with the end of its log.
    pub async fn start(durability: Durability) -> Self {
        let folder = folder_of(USER, "switchboard-postgres-").await;
        let data = folder.join("data");
        let stop = r#"
            if [ "$(id -u)" -eq 0 ]; then set -- "$1" "$2" runuser -u "$3" --; else set -- "$1" "$2"; fi
            folder=$1 control=$2; shift 2
            # One that a test has stopped in its tracks could not end.
            first=$(head -n 1 "$folder/data/postmaster.pid") && kill -CONT "$first" $(cat "/proc/$first/task/$first/children")
            "$@" "$control" stop -D "$folder/data" -m immediate -w -t 20
            rm -rf "$folder""#;
        let watchdog = Watchdog::new(stop, [folder.as_os_str(), bin("pg_ctl").as_os_str(), OsStr::new(USER)]);

        // --no-sync: a cluster that dies with its machine may be lost.
        let initdb =
            ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"];
        let args = initdb.map(OsString::from).into_iter().chain([data.clone().into()]);
        as_server("initdb", args).await.expect_success();
        let mut configuration = OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .expect("initdb writes a configuration");
        let settings = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 300\n\
                        timezone = 'UTC'\nlog_timezone = 'UTC'\n";
        write!(configuration, "{settings}{}", durability.settings()).expect("the configuration is writable");

        let mut refusal = String::new();
        for _ in 0..STARTS {
            let port = free_port();
            let started = start(&folder, port).await;
            if started.success() {
                return Self { port, folder, _watchdog: watchdog };
            }
            refusal = started.stderr;
        }
        let log = tail(&folder.join("log"), 40);
        panic!("PostgreSQL did not start: {refusal}\n--- the end of its log\n{log}");
    }

    /// Starts it again where it was, after [`Cluster::stop`] or [`Cluster::kill`]; answers when it takes connections.
    ///
    /// # Panics
    /// When it does not, with the end of its log.
    pub async fn start_again(&self) {
        eventually("PostgreSQL starts again", async || {
            // What a killed one left in memory is in the way until its last process has noticed.
            start(&self.folder, self.port).await.success().then_some(())
        })
        .await;
    }

    /// Stops it: it ends every connection, and writes what it has.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self) {
        let data = self.folder.join("data");
        let args =
            ["stop".as_ref(), "-m".as_ref(), "fast".as_ref(), "-w".as_ref(), "-D".as_ref(), data.as_os_str()];
        as_server("pg_ctl", args).await.expect_success();
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&self) {
        signal("-KILL", &[self.process()]).await;
    }

    /// Has it hang: its connections stay open, take what is sent, and answer nothing.
    pub async fn freeze(&self) {
        signal("-STOP", &self.processes()).await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        signal("-CONT", &self.processes()).await;
    }

    fn process(&self) -> u32 {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("its first line is a process")
    }

    /// It and all its children; it first, so that it makes no more meanwhile.
    fn processes(&self) -> Vec<u32> {
        let parent = self.process();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.expect("it runs");
        let children = children.split_whitespace().map(|child| child.parse().expect("a process"));
        std::iter::once(parent).chain(children).collect()
    }

    /// The URL of the database that every cluster has, for statements that need no database of their own.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The end of the server's log, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.folder.join("log"), 40)
    }

    /// Creates an empty database and gives its URL. The name must be a plain lower-case identifier.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_database(&self, name: &str) -> String {
        query(&self.url(), &format!("CREATE DATABASE {name}")).await;
        self.url_of(name)
    }

    fn url_of(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }
}

/// -w: answers when the server is ready for connections.
async fn start(folder: &Path, port: u16) -> Output {
    let (data, log, options) = (folder.join("data"), folder.join("log"), format!("-p {port}"));
    let args = [
        OsStr::new("start"),
        "-w".as_ref(),
        "-t".as_ref(),
        "50".as_ref(),
        "-D".as_ref(),
        data.as_os_str(),
        "-l".as_ref(),
        log.as_os_str(),
        "-o".as_ref(),
        options.as_ref(),
    ];
    as_server("pg_ctl", args).await
}

/// Sends a signal to processes, of which some may have ended meanwhile.
async fn signal(signal: &str, processes: &[u32]) {
    let ids = processes.iter().map(u32::to_string);
    run("kill", std::iter::once(signal.to_owned()).chain(ids), b"").await;
}

/// Runs one of the server's programs as a user that it accepts.
async fn as_server<A>(program: &str, args: A) -> Output
where
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    if !is_root() {
        return run(bin(program), args, b"").await;
    }
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let command = ["-u", USER, "--"].map(OsString::from).into_iter().chain([bin(program).into()]).chain(args);
    run(tool("runuser"), command, b"").await
}

fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
