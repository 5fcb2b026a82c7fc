//! A real HTTP proxy: tinyproxy on loopback, in a temporary folder.
//!
//! A [`Watchdog`] ends it and removes the folder when the test process ends, however it ends.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::tools::{Watchdog, folder_of, free_port, is_root, tool};
use super::{SOON, eventually};

/// Who it is where root starts it.
const USER: &str = "nobody";

/// How many times a start is tried, since another process can take the port that was free.
const STARTS: usize = 3;

/// Ends the process `$2` if it has the folder `$1` in its command line, and removes the folder.
const END: &str = r#"grep -qsaF "$1/" "/proc/$2/cmdline" && kill -9 "$2"; rm -rf "$1""#;

/// A proxy of this test's own. It ends when it is dropped or when the test process does.
pub struct Proxy {
    address: String,
    folder: PathBuf,
    // Ends with the watchdog.
    _child: Child,
    _watchdog: Watchdog,
}

impl Proxy {
    /// Starts one on this address of loopback; with a user name and a password it takes nobody without them.
    ///
    /// # Panics
    /// When it does not listen, with what it logged.
    pub async fn start(host: &str, login: Option<(&str, &str)>) -> Self {
        let mut said = String::new();
        for _ in 0..STARTS {
            let folder = folder_of(USER, "switchboard-proxy-").await;
            let port = free_port();
            let configuration = configuration(&folder, host, port, login);
            let path = folder.join("tinyproxy.conf");
            std::fs::write(&path, configuration).expect("the folder is writable");
            let mut child = Command::new(tool("tinyproxy"))
                .args(["-d".as_ref(), "-c".as_ref(), path.as_os_str()])
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("tinyproxy does not start: {error}"));
            let id = child.id().expect("it runs").to_string();
            let watchdog = Watchdog::new(END, [folder.as_os_str(), id.as_ref()]);
            let address = format!("{host}:{port}");
            if listens(&mut child, &address).await {
                return Self { address, folder, _child: child, _watchdog: watchdog };
            }
            said = log_of(&folder);
        }
        panic!("tinyproxy does not listen: {said}");
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The destinations that it was asked for, in their order.
    pub fn asked(&self) -> Vec<String> {
        let log = log_of(&self.folder);
        let of = |line: &str| Some(line.split_once("): CONNECT ")?.1.split(' ').next()?.to_owned());
        log.lines().filter_map(of).collect()
    }

    /// Waits until it has logged that it was asked so often, and gives all that it was asked for.
    pub async fn wait_for(&self, number: usize) -> Vec<String> {
        let what = format!("{number} tunnels");
        eventually(&what, async || Some(self.asked()).filter(|asked| asked.len() >= number)).await
    }
}

fn configuration(folder: &Path, host: &str, port: u16, login: Option<(&str, &str)>) -> String {
    let folder = folder.to_str().expect("a readable path");
    let user = if is_root() { format!("User {USER}\n") } else { String::new() };
    let login = login.map(|(user, password)| format!("BasicAuth {user} {password}\n")).unwrap_or_default();
    format!(
        "{user}{login}Listen {host}\nPort {port}\nAllow 127.0.0.0/8\nTimeout 60\nMaxClients 100\n\
         LogFile \"{folder}/log\"\nLogLevel Connect\n"
    )
}

fn log_of(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Connects until it listens; `false` when it ended.
async fn listens(child: &mut Child, address: &str) -> bool {
    let listening = async {
        loop {
            if TcpStream::connect(address).await.is_ok() {
                // Somebody else may have the port.
                return child.try_wait().expect("a child can be asked").is_none();
            }
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, listening).await.unwrap_or(false)
}
