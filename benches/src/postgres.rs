//! A private PostgreSQL server on loopback: durable, otherwise as its makers deliver it, and gone afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::process::{TIME_LIMIT, Watchdog, is_root, run, run_within, tail};

/// PostgreSQL refuses to run as root, so this user runs it then. Debian's package creates it.
const USER: &str = "postgres";

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

/// What the cluster's configuration says beyond the defaults. Nobody's password protects it, so it listens on loopback
/// alone; and the defaults that matter here are written out.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = on
synchronous_commit = on
full_page_writes = on
";

/// Ends the server and removes its folder.
const END: &str = r#"
folder=$1 control=$2 user=$3
set --
if [ "$(id -u)" -eq 0 ]; then set -- runuser -u "$user" --; fi
"$@" "$control" stop -D "$folder/data" -m immediate -w -t 30
rm -rf "$folder"
"#;

/// The server. Dropping it ends it and removes what it kept.
pub struct Cluster {
    bin: PathBuf,
    port: u16,
    postmaster: u32,
    version: String,
    watchdog: Watchdog,
}

impl Cluster {
    /// Makes a cluster in this folder, and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        let bin = installation().ok_or("PostgreSQL is missing: tests/tools/install brings it")?;
        let control = bin.join("pg_ctl");
        let watchdog =
            Watchdog::new("", END, [folder.as_os_str(), control.as_os_str(), OsStr::new(USER)], &[])?;
        if is_root() {
            run("chown", [OsStr::new(USER), folder.as_os_str()]).await?;
        }
        let (data, log) = (folder.join("data"), folder.join("log"));
        let options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"];
        let args = options.map(OsString::from).into_iter().chain([data.clone().into()]);
        as_server(&bin.join("initdb"), args).await?;
        let file = OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        file.and_then(|mut file| file.write_all(SETTINGS.as_bytes()))
            .context("PostgreSQL's configuration")?;

        let mut refusal = String::new();
        for _ in 0..STARTS {
            let port = free_port()?;
            let args = ["start", "-w", "-t", "60", "-o", &format!("-p {port}"), "-D"]
                .map(OsString::from)
                .into_iter()
                .chain([data.clone().into(), "-l".into(), log.clone().into()]);
            match as_server(&control, args).await {
                Ok(_) => {
                    let pid =
                        fs::read_to_string(data.join("postmaster.pid")).context("PostgreSQL's process id")?;
                    let postmaster =
                        pid.lines().next().unwrap_or_default().parse().context("PostgreSQL's process id")?;
                    let version = run(bin.join("postgres"), ["--version"]).await?;
                    return Ok(Self { bin, port, postmaster, version, watchdog });
                }
                Err(error) => refusal = format!("{error}\n{}", tail(&log)),
            }
        }
        Err(format!("PostgreSQL did not start: {refusal}").into())
    }

    /// Makes a new, empty database. Nothing of the last one is left to be written then.
    pub async fn create(&self, name: &str) -> Result<()> {
        self.query(&format!("CREATE DATABASE {name}")).await?;
        self.query("CHECKPOINT").await
    }

    /// Removes a database.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.query(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
    }

    /// The process that all others of the server descend from.
    pub fn postmaster(&self) -> u32 {
        self.postmaster
    }

    /// What the server says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Ends the server and removes its folder.
    pub async fn stop(self) {
        self.watchdog.finish().await;
    }

    /// Runs SQL in a database and gives what it answers, columns with `|` between.
    pub async fn sql_within(&self, limit: Duration, database: &str, sql: &str) -> Result<String> {
        let url = self.url(database);
        let args = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql];
        run_within(limit, self.bin.join("psql"), args).await
    }

    async fn query(&self, sql: &str) -> Result<()> {
        self.sql_within(TIME_LIMIT, "postgres", sql).await.map(drop)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Whether the user that runs PostgreSQL can get into this folder.
pub async fn can_reach(folder: &Path) -> bool {
    as_server(Path::new("test"), [OsStr::new("-x"), folder.as_os_str()]).await.is_ok()
}

/// The programs of the newest PostgreSQL server on this machine. Its clients are packaged apart, and do not count.
fn installation() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let bin = path.join("bin");
        bin.join("postgres").exists().then_some((version, bin))
    });
    found.max().map(|(_, bin)| bin)
}

/// Runs a program as a user that PostgreSQL accepts.
async fn as_server<A>(program: &Path, args: A) -> Result<String>
where
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    if !is_root() {
        return run(program, args).await;
    }
    let command = ["-u", USER, "--"].map(OsString::from).into_iter().chain([program.into()]).chain(args);
    run("runuser", command).await
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("a free port")?;
    Ok(listener.local_addr().context("a free port")?.port())
}
