//! The command line: each command run as the operator runs it, as a program of its own.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::tools::{Output, run};
use crate::harness::{SOON, postgres};

const PROGRAM: &str = env!("CARGO_BIN_EXE_switchboard");

/// Runs the program to its end, without anything from the test's own environment.
pub async fn switchboard(args: &[&str]) -> Output {
    switchboard_in(&[], args).await
}

/// As [`switchboard`], with variables such as `NAME=value`.
pub async fn switchboard_in(variables: &[&str], args: &[&str]) -> Output {
    run("env", [&["-i"], variables, &[PROGRAM], args].concat(), b"").await
}

/// A server that runs as a program.
pub struct Served {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Served {
    /// Starts it on a free port.
    pub fn start(data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        command.env_clear().envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    /// The next line that it prints; `None` when it prints no more.
    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(SOON, self.lines.next_line()).await;
        line.expect("it prints a line").unwrap()
    }

    /// Its address, from the line that says that it is ready.
    pub async fn address(&mut self) -> String {
        let line = self.line().await.expect("it starts");
        let address = line.strip_prefix("switchboard is ready on ");
        address.unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Tells it to stop, and waits until it has; it prints nothing more.
    pub async fn stop(mut self) {
        let id = self.child.id().expect("it runs").to_string();
        run("kill", ["-TERM", &id], b"").await.expect_success();
        assert_eq!(self.line().await, None, "nothing else is printed");
        let ended = tokio::time::timeout(SOON, self.child.wait()).await.expect("it stops");
        assert!(ended.unwrap().success());
    }
}

async fn may_list_keys(address: &str, key: &str) {
    let client = switchboard_client::Client::connect(address, key).await.unwrap();
    let request = switchboard_client::apikey::v1::ListApiKeysRequest::default();
    client.api_keys().list_api_keys(request).await.unwrap();
}

fn expect_failure(output: &Output, words: &[&str]) {
    assert_eq!(output.code, Some(1), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn the_demo_shows_the_whole_job_and_all_is_good() {
    let folder = folder();
    let output = switchboard(&["demo", "--data", folder.path().to_str().unwrap()]).await;
    let shown = output.expect_success();
    assert!(shown.contains("All good: every channel got everything, once."), "{shown}");
    assert!(shown.contains("grpcurl -plaintext"), "it shows how to go on: {shown}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[tokio::test]
async fn migrate_brings_a_database_up_to_date_once() {
    let folder = folder();
    let data = folder.path().join("new").display().to_string();
    let url = postgres::fresh_database().await;
    let elsewhere = format!("sqlite:{}", folder.path().join("other.db").display());
    for target in [vec![], vec!["--database-url", &url], vec!["--database-url", &elsewhere]] {
        let args = [&["migrate", "--data", &data], &target[..]].concat();
        let first = switchboard(&args).await.expect_success();
        assert!(first.lines().count() > 0 && first.lines().all(|line| line.starts_with("ran ")), "{first}");
        assert_eq!(switchboard(&args).await.expect_success(), "the database is up to date\n");
    }
    assert!(folder.path().join("other.db").exists());
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('email_queue', 'webhooks', 'api_keys')";
    assert_eq!(postgres::query(&url, tables).await, "3");
}

#[tokio::test]
async fn serve_prints_its_address_and_the_admin_key_once() {
    let folder = folder();
    let mut first = Served::start(folder.path(), &[]);
    let line = first.line().await.unwrap();
    let key =
        line.strip_prefix("admin key, shown this once: ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    may_list_keys(&first.address().await, &key).await;
    first.stop().await;

    let mut second = Served::start(folder.path(), &[]);
    may_list_keys(&second.address().await, &key).await;
    second.stop().await;
}

#[tokio::test]
async fn serve_runs_on_postgresql_by_its_url() {
    let (folder, url) = (folder(), postgres::fresh_database().await);
    let mut server = Served::start(folder.path(), &[("DATABASE_URL", &url)]);
    let line = server.line().await.unwrap();
    may_list_keys(&server.address().await, line.rsplit(' ').next().unwrap()).await;
    server.stop().await;
    assert_eq!(postgres::query(&url, "SELECT count(*) FROM api_keys").await, "1");
    assert!(!folder.path().join("switchboard.db").exists());
}

#[tokio::test]
async fn an_admin_key_can_be_brought_along() {
    let folder = folder();
    let key = switchboard(&["key", "generate"]).await.expect_success();
    let mut server = Served::start(folder.path(), &[("SWITCHBOARD_ADMIN_KEY", key.trim())]);
    may_list_keys(&server.address().await, key.trim()).await;
    server.stop().await;

    let file = folder.path().join("key");
    std::fs::write(&file, &key).unwrap();
    let (other, variable) =
        (folder.path().join("other"), ("SWITCHBOARD_ADMIN_KEY_FILE", file.to_str().unwrap()));
    let mut server = Served::start(&other, &[variable]);
    may_list_keys(&server.address().await, key.trim()).await;
    server.stop().await;

    let data = folder.path().join("third").display().to_string();
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", &data];
    let refused = switchboard_in(&["SWITCHBOARD_ADMIN_KEY=swb_mine"], &args).await;
    expect_failure(&refused, &["error: ", "SWITCHBOARD_ADMIN_KEY", "switchboard key generate"]);
    assert!(!refused.stderr.contains("swb_mine"), "what was given is not repeated: {}", refused.stderr);
}

#[tokio::test]
async fn a_database_and_an_address_are_for_one_server() {
    let folder = folder();
    let key = switchboard(&["key", "generate"]).await.expect_success();
    let mut first = Served::start(folder.path(), &[("SWITCHBOARD_ADMIN_KEY", key.trim())]);
    let address = first.address().await;
    let data = folder.path().to_str().unwrap();
    let second = switchboard(&["serve", "--listen", "127.0.0.1:0", "--data", data]).await;
    expect_failure(&second, &["error: another server is using ", "switchboard.db"]);
    let (taken, other) = (address.trim_start_matches("http://"), folder.path().join("other"));
    let second = switchboard(&["serve", "--listen", taken, "--data", other.to_str().unwrap()]).await;
    expect_failure(&second, &["error: the address ", taken]);
    may_list_keys(&address, key.trim()).await;
    first.stop().await;
}

#[tokio::test]
async fn a_wrong_master_key_is_told_at_the_start() {
    let (folder, elsewhere) = (folder(), folder());
    let data = folder.path().to_str().unwrap();
    switchboard(&["key", "create", "--name", "a", "--scope", "a:b", "--data", data]).await.expect_success();
    let other = elsewhere.path().to_str().unwrap();
    switchboard(&["key", "create", "--name", "a", "--scope", "a:b", "--data", other]).await.expect_success();
    let key_file = folder.path().join("master.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key_file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "only its owner reads it");
    std::fs::copy(elsewhere.path().join("master.key"), &key_file).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data];
    expect_failure(&switchboard(&serve).await, &["error: the master key is not the one"]);
    expect_failure(
        &switchboard(&["key", "create", "--name", "a", "--scope", "a:b", "--data", data]).await,
        &["master key"],
    );
    std::fs::write(&key_file, "short").unwrap();
    expect_failure(&switchboard(&serve).await, &["master.key", "must be the base64 form of 32 bytes"]);
    let given = switchboard_in(&["SWITCHBOARD_MASTER_KEY=c2hvcnQ="], &serve).await;
    expect_failure(&given, &["SWITCHBOARD_MASTER_KEY", "must be the base64 form of 32 bytes"]);
}

#[tokio::test]
async fn a_bad_configuration_is_told_at_the_start() {
    let folder = folder();
    let data = folder.path().to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data];
    let mysql = switchboard_in(&["DATABASE_URL=mysql://root:hunter2@localhost/x"], &serve).await;
    expect_failure(&mysql, &["error: ", "DATABASE_URL", "must be sqlite:PATH or postgres://"]);
    assert!(!mysql.stderr.contains("hunter2"), "{}", mysql.stderr);
    let nobody =
        format!("DATABASE_URL=postgres://jo:hunter2@127.0.0.1:{}/x", crate::harness::tools::free_port());
    let nobody = switchboard_in(&[&nobody], &serve).await;
    expect_failure(&nobody, &["error: ", "database"]);
    assert!(!nobody.stderr.contains("hunter2"), "{}", nobody.stderr);
    let setting = switchboard_in(&["SMTP_PORT=many"], &serve).await;
    expect_failure(&setting, &["SMTP_PORT", "must be a whole number"]);
    let bad = switchboard(&["key", "create", "--name", "x", "--scope", "everything", "--data", data]).await;
    expect_failure(&bad, &["scopes[0]", "must be resource:action"]);
    let listen = switchboard(&["serve", "--listen", "nowhere", "--data", data]).await;
    assert_eq!(listen.code, Some(2), "{listen:?}");
}
