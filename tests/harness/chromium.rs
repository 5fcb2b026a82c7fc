//! A real browser without a window, driven over its debugging protocol: JSON, each message ended by a zero byte, over two
//! pipes that the browser inherits. No driver, no WebSocket.
//!
//! <https://chromedevtools.github.io/devtools-protocol/>
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::tools::{is_root, tool};

/// How long the browser may take for one thing, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser takes its commands from file descriptor 3 and answers on 4: those are what is 0 and 1 here.
const ON_PIPES: &str = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#;

/// A running browser, with a profile of its own that goes with it.
pub struct Chromium {
    link: Arc<Link>,
    child: Child,
    profile: tempfile::TempDir,
}

struct Link {
    input: AsyncMutex<ChildStdin>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// The address and the protocol of every response whose head has arrived, with the page that asked for it.
    responses: Vec<(String, String, String)>,
}

impl Chromium {
    /// Starts it.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let log = std::fs::File::create(profile.path().join("log")).expect("a file can be made");
        let mut command = Command::new("sh");
        command.args(["-c", ON_PIPES, "sh"]).arg(tool("chromium"));
        command.arg(format!("--user-data-dir={}", profile.path().join("data").display()));
        command.args([
            "--remote-debugging-pipe",
            "--headless=new",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-breakpad",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            // No name leads anywhere.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]);
        if is_root() {
            command.arg("--no-sandbox");
        }
        command.arg("about:blank").env("HOME", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().expect("sh starts");
        let input = AsyncMutex::new(child.stdin.take().expect("stdin is piped"));
        let link = Arc::new(Link { input, state: Mutex::default() });
        tokio::spawn(read(child.stdout.take().expect("stdout is piped"), Arc::clone(&link)));
        Self { link, child, profile }
    }

    /// Opens a tab.
    pub async fn open(&self, url: &str) -> Tab {
        let target = self.call("", "Target.createTarget", json!({ "url": "about:blank" })).await;
        let target = text(&target, "targetId");
        let attach = json!({ "targetId": target, "flatten": true });
        let session = text(&self.call("", "Target.attachToTarget", attach).await, "sessionId");
        let tab = Tab { link: Arc::clone(&self.link), target, session };
        tab.call("Network.enable", json!({})).await;
        tab.call("Page.navigate", json!({ "url": url })).await;
        tab
    }

    async fn call(&self, session: &str, method: &str, params: Value) -> Value {
        call(&self.link, session, method, params).await
    }

    /// Ends it.
    pub async fn stop(mut self) {
        let id = self.child.id();
        let asked = tokio::time::timeout(PATIENCE, self.call("", "Browser.close", json!({}))).await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(asked.is_ok() && ended.is_ok(), "the browser {id:?} does not end");
        drop(self.profile);
    }
}

/// A page in a tab.
pub struct Tab {
    link: Arc<Link>,
    target: String,
    session: String,
}

impl Tab {
    /// The value of an expression in the page, awaited when it is a promise.
    ///
    /// # Panics
    /// When it throws.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The protocols by which this page got responses from addresses that end so, such as `h2` and `http/1.1`.
    pub fn protocols(&self, ending: &str) -> Vec<String> {
        let state = self.link.state.lock().unwrap();
        let mine =
            |(session, url, _): &&(String, String, String)| *session == self.session && url.ends_with(ending);
        state.responses.iter().filter(mine).map(|(_, _, protocol)| protocol.clone()).collect()
    }

    /// Closes the tab, as its user does.
    pub async fn close(self) {
        call(&self.link, "", "Target.closeTarget", json!({ "targetId": self.target })).await;
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        call(&self.link, &self.session, method, params).await
    }
}

async fn call(link: &Link, session: &str, method: &str, params: Value) -> Value {
    let (answer, answered) = oneshot::channel();
    let id = {
        let mut state = link.state.lock().unwrap();
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, answer);
        id
    };
    let mut message = json!({ "id": id, "method": method, "params": params });
    if !session.is_empty() {
        message["sessionId"] = session.into();
    }
    let mut bytes = message.to_string().into_bytes();
    bytes.push(0);
    let asking = async {
        let mut input = link.input.lock().await;
        input
            .write_all(&bytes)
            .await
            .unwrap_or_else(|error| panic!("{method}: the browser is gone: {error}"));
        input.flush().await.expect("a pipe");
    };
    let answering = async {
        asking.await;
        answered.await.unwrap_or_else(|_| panic!("{method}: the browser is gone"))
    };
    let answered = tokio::time::timeout(PATIENCE, answering).await;
    let mut answer = answered.unwrap_or_else(|_| panic!("{method}: no answer within {PATIENCE:?}"));
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].take()
}

async fn read(output: ChildStdout, link: Arc<Link>) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(0, &mut bytes).await.is_ok_and(|count| count > 0) {
        bytes.pop();
        let message: Value = serde_json::from_slice(&bytes).expect("the browser speaks JSON");
        bytes.clear();
        let mut state = link.state.lock().unwrap();
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = state.waiting.remove(&id) {
                let _ = waiting.send(message);
            }
        } else if message["method"] == "Network.responseReceived" {
            let response = &message["params"]["response"];
            let seen = (text(&message, "sessionId"), text(response, "url"), text(response, "protocol"));
            state.responses.push(seen);
        }
    }
    // Whoever still waits is told that there will be no answer.
    link.state.lock().unwrap().waiting.clear();
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
