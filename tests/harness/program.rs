//! The server as a program of its own, in a folder and on a database that a test gives it.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use switchboard_client::Client;
use switchboard_client::event::v1::ListEventsRequest;
use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::receiver::Receiver;
use super::tools::{self, Watchdog};
use super::{SOON, eventually};

/// The binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_switchboard");
const READY: &str = "switchboard is ready on ";
/// How long a drain may take: what it waits for itself, and a busy machine.
const DRAIN: Duration = Duration::from_secs(70);

/// A new admin key.
pub async fn admin_key() -> String {
    tools::run(BINARY, ["key", "generate"], b"").await.expect_success().trim().to_owned()
}

/// How to start one.
pub struct Start<'a> {
    /// The data folder.
    pub data: &'a Path,
    /// Where its log goes, which is added to.
    pub log: &'a Path,
    /// The admin key.
    pub key: &'a str,
    /// The PostgreSQL database, if it is not the embedded one.
    pub database: Option<&'a str>,
    /// Further arguments.
    pub arguments: &'a [&'a str],
}

/// A running server.  It ends when this is dropped or the test process ends.
pub struct Program {
    child: Child,
    /// Where it listens, as `http://…`.
    pub url: String,
    /// A client with the admin key.
    pub client: Client,
    log: PathBuf,
    // Ends the process with this one, however this one ends.
    _watchdog: Watchdog,
}

impl Start<'_> {
    /// Starts it; answers when it says that it is ready.
    ///
    /// # Panics
    /// When it does not, with its log.
    pub async fn start(&self) -> Program {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log).unwrap();
        let mut child = Command::new(BINARY)
            .args(["serve", "--set", "security.rate_limit_per_key=0", "--set", "webhook.hourly_limit=0"])
            .args(["--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", "--data"])
            .arg(self.data)
            .args(self.arguments)
            .env_clear()
            .env("SWITCHBOARD_ADMIN_KEY", self.key)
            .envs(self.database.map(|url| ("DATABASE_URL", url)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let id = child.id().expect("it runs").to_string();
        // By its id, and only while that is still this program: its folder is among its arguments.
        let end = r#"grep -qa "$2" "/proc/$1/cmdline" && kill -9 "$1""#;
        let watchdog = Watchdog::new(end, [id.as_ref(), self.data.as_os_str()]);
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix(READY) {
                    return Some(url.to_owned());
                }
            }
            None
        };
        let url = tokio::time::timeout(SOON, reading).await.ok().flatten();
        let url = url.unwrap_or_else(|| {
            panic!("the server did not become ready:\n{}", std::fs::read_to_string(self.log).unwrap())
        });
        let client = Client::connect(url.clone(), self.key).await.unwrap();
        Program { child, url, client, log: self.log.to_owned(), _watchdog: watchdog }
    }
}

impl Program {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Tells it to drain.
    pub async fn ask_to_end(&self) {
        tools::run("kill", ["-TERM", &self.id().to_string()], b"").await.expect_success();
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> ExitStatus {
        tokio::time::timeout(DRAIN, self.child.wait()).await.expect("a drain ends").unwrap()
    }

    /// Drains it; answers when it has ended.
    pub async fn terminate(self) -> ExitStatus {
        self.ask_to_end().await;
        self.ended().await
    }

    /// As `kill -9` does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Has every event go to a receiver.
    pub async fn webhook_to(&self, receiver: &Receiver) {
        let webhook = Webhook {
            name: "test".into(),
            url: receiver.url("/"),
            event_types: vec!["*".into()],
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
        self.client.webhooks().create_webhook(request).await.unwrap();
    }

    /// What it answers to a plain GET.
    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let address = self.url.strip_prefix("http://").expect("it speaks in the clear");
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", address).body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// Waits until it says that it is ready, or that it is not.
    pub async fn is_ready(&self, ready: bool) -> String {
        eventually(if ready { "it is ready" } else { "it is not ready" }, async || {
            let (status, text) = self.get("/readyz").await;
            ((status == StatusCode::OK) == ready).then_some(text)
        })
        .await
    }

    /// The ids and the payloads of all events that it has.
    pub async fn events(&self) -> Vec<(String, String)> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListEventsRequest { page_size: 500, page_token, ..Default::default() };
            let page = self.client.events().list_events(request).await.unwrap().into_inner();
            all.extend(page.events.into_iter().map(|event| (event.id, event.data)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}
