//! Programs that the measurement starts: running one to its end, and ending those that stay.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use crate::error::{Context, Result};

/// How long a program that [`run`] starts may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Runs a program to its end and gives what it printed; fails when it does.
pub async fn run<A>(program: impl AsRef<OsStr>, args: A) -> Result<String>
where
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    run_within(TIME_LIMIT, program, args).await
}

/// As [`run`], for programs that take longer.
pub async fn run_within<A>(limit: Duration, program: impl AsRef<OsStr>, args: A) -> Result<String>
where
    A: IntoIterator,
    A::Item: AsRef<OsStr>,
{
    let mut command = tokio::process::Command::new(&program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let name = Path::new(&program).display().to_string();
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.context(&name)?,
        Err(_) => return Err(format!("{name} took longer than {limit:?}").into()),
    };
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("{name} failed ({})\n{}\n{}", output.status, out.trim(), err.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this process runs as root, whom PostgreSQL refuses.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The last lines of a file, for messages.
pub fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A shell that starts something, and cleans up when it is dropped or when this process ends, also by `kill -9`.
///
/// It waits for the end of a pipe whose other end only this process holds, and the system closes that end even when no
/// code of ours runs any more.
#[derive(Debug)]
pub struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Starts it: first `begin` runs, then, when the time has come, `end`. Both see `args` as `$1`, `$2` and so on.
    pub fn new<A>(begin: &str, end: &str, args: A, variables: &[(&str, String)]) -> Result<Self>
    where
        A: IntoIterator,
        A::Item: AsRef<OsStr>,
    {
        // The signals that a terminal sends to everybody must not end the one that cleans up; its own process group
        // keeps most of them away. The trap comes after `begin`, since what that starts would inherit it.
        let script = format!("{begin}\ntrap '' HUP INT TERM\nexec >/dev/null 2>&1\ncat\n{end}");
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &script, "watchdog"])
            .args(args)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        // The measured server must not take its settings from whoever measures it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SWITCHBOARD_")
                || text.starts_with("SMTP_")
                || text == "DATABASE_URL"
                || text == "RUST_LOG"
            {
                command.env_remove(&name);
            }
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Ok(Self { shell: command.spawn().context("sh")? })
    }

    /// What `begin` prints. Can be taken once.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.shell.stdout.take()
    }

    /// Cleans up without blocking this thread, whose tasks may have a part in it.
    pub async fn finish(self) {
        // Dropping it waits. The blocking task can not fail: it does nothing else.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Waited for, so that what it ends and removes is gone when its owner is.
        let _ = self.shell.wait();
    }
}
