//! The programs that the tests use and did not write: where they are, how one is run, and how what a test started is
//! ended with it.
//!
//! `tests/tools/install` brings them. A test that finds one missing fails and says so: a skipped test would be a hole.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long [`run`] lets a program take. Generous, because a busy machine is not a failure.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The folder that holds the tools: `tests/tools`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

/// The path of a tool, by the name it is known by: `grpcurl`, `buf`, `python` (with what `requirements.txt` pins),
/// a script of `tests/tools` such as `verify.py`, or any program of the system, such as `node`.
///
/// # Panics
/// When there is none, with what to do about it.
pub fn tool(name: &str) -> PathBuf {
    let folder = folder();
    let pinned = match name {
        "grpcurl" => Some(folder.join("bin/grpcurl")),
        "buf" => Some(folder.join("node_modules/.bin/buf")),
        "python" => Some(folder.join(".venv/bin/python")),
        script if script.ends_with(".py") || script.ends_with(".mjs") => Some(folder.join(script)),
        _ => None,
    };
    let found = match pinned {
        Some(path) => path.exists().then_some(path),
        None => on_path(name),
    };
    found.unwrap_or_else(|| panic!("{name} is missing: run tests/tools/install, which brings it"))
}

/// Looks a program up as a shell does, and where Debian keeps the programs meant for administrators.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The program with its arguments, for messages.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, read as UTF-8 with replacements.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Whether the program ended with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output of a program that had to succeed.
    ///
    /// # Panics
    /// When it did not, with everything it printed.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(
            self.success(),
            "`{}` ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Runs a program to its end with `stdin` as its input, within [`TIME_LIMIT`].
///
/// # Panics
/// When it cannot be started, or takes longer; it is killed then.
pub async fn run<P, A>(program: P, args: A, stdin: &[u8]) -> Output
where
    P: AsRef<OsStr>,
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    run_within(TIME_LIMIT, program, args, stdin).await
}

/// As [`run`], with a time limit of the caller's.
pub async fn run_within<P, A>(limit: Duration, program: P, args: A, stdin: &[u8]) -> Output
where
    P: AsRef<OsStr>,
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let shown = show(command.as_std());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));

    // Written beside the reading, so that neither side waits for the other with its pipe full.
    let mut input = child.stdin.take().expect("stdin is piped");
    let stdin = stdin.to_vec();
    let writer = tokio::spawn(async move {
        // A program may end without reading everything; what it printed tells more than the broken pipe.
        let _ = input.write_all(&stdin).await;
    });
    let output = match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.unwrap_or_else(|error| panic!("`{shown}` could not be waited for: {error}")),
        Err(_) => panic!("`{shown}` was still running after {limit:?}, and has been killed"),
    };
    writer.abort();
    Output {
        command: shown,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that would go on for ever until `enough` accepts what it has printed to standard output so far, and
/// kills it then.
///
/// # Panics
/// When it cannot be started, ends by itself, or prints too little within [`TIME_LIMIT`].
pub async fn run_until<P, A>(program: P, args: A, enough: impl Fn(&str) -> bool) -> String
where
    P: AsRef<OsStr>,
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let shown = show(command.as_std());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
    let mut output = child.stdout.take().expect("stdout is piped");
    let mut printed = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&printed);
            if enough(&text) {
                return text.into_owned();
            }
            let read = output.read_buf(&mut printed).await.expect("a pipe can be read");
            assert!(read > 0, "`{shown}` ended by itself: {}", String::from_utf8_lossy(&printed));
        }
    };
    match tokio::time::timeout(TIME_LIMIT, reading).await {
        Ok(text) => text,
        Err(_) => panic!("`{shown}` has not printed enough within {TIME_LIMIT:?}"),
    }
}

fn show(command: &std::process::Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a shell script when it is dropped or when this process ends, however it ends: also by `kill -9`.
///
/// The shell waits for the end of a pipe whose other end only this process holds, and the system closes that end even
/// when no code of ours runs any more.
#[derive(Debug)]
pub struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Arms it. The script sees `args` as `$1`, `$2` and so on.
    pub fn new<A>(script: &str, args: A) -> Self
    where
        A: IntoIterator,
        A::Item: AsRef<OsStr>,
    {
        // Nothing is written to the pipe, so `cat` returns at its end. The signals that a terminal sends to everybody
        // must not end the one that has to clean up; its own process group keeps most of them away.
        let script = format!("trap '' HUP INT TERM; cat >/dev/null; {script}");
        let shell = std::process::Command::new("sh")
            .args(["-c", &script, "watchdog"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { shell }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Waited for, so that what it removes is gone when the owner is.
        let _ = self.shell.wait();
    }
}

/// A port of the loopback interface that was free a moment ago. Somebody else may take it before the caller does, so
/// whoever uses it has to be ready to ask again.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Whether this process runs as root: then the programs that refuse to are started as somebody else.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

/// A new folder that is removed by its owner's [`Watchdog`], and belongs to `user` when this process is root.
pub async fn folder_of(user: &str, prefix: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder").keep();
    if is_root() {
        run("chown", [OsStr::new(user), folder.as_os_str()], b"").await.expect_success();
    }
    folder
}
