//! Backups: made under load, complete, checked to the last byte, and brought back only where that destroys nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use switchboard::db::backup;
use switchboard::secret::{Random, SystemRandom};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::GetEventRequest;
use switchboard_client::notification::v1::{SubscribeRequest, resync};

use crate::command_line::{switchboard, switchboard_in};
use crate::harness::load::{Load, Manner, arrivals, missing};
use crate::harness::program::{Program, Start, admin_key};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::event;
use crate::harness::tools::{Output, run};
use crate::harness::{SOON, eventually, postgres};

const ROUNDS: usize = 3;
const MANNER: Manner = Manner { callers: 16, deadline: Duration::from_secs(30), bytes: 200 };

/// The folder of a test: data folders and backups in it.
struct Folder {
    folder: tempfile::TempDir,
    key: String,
}

impl Folder {
    async fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key: admin_key().await }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn start(&self, data: &str) -> Program {
        self.start_on(data, None).await
    }

    async fn start_on(&self, data: &str, database: Option<&str>) -> Program {
        let (data, log) = (self.path(data), self.path("log"));
        Start { data: &data, log: &log, key: &self.key, database, arguments: &[] }.start().await
    }

    async fn back_up(&self, data: &str, name: &str) -> Output {
        switchboard(&["backup", &self.text(name), "--data", &self.text(data)]).await
    }

    async fn restore(&self, name: &str, data: &str, more: &[&str]) -> Output {
        let (name, data) = (self.text(name), self.text(data));
        switchboard(&[&["restore", &name, "--data", &data], more].concat()).await
    }

    /// As the operator does, from the place where it was kept apart.
    fn bring_master_key(&self, from: &str, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(self.path(from).join("master.key"), to.join("master.key")).unwrap();
    }
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    assert_eq!(output.code, Some(1), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in {}", output.stderr);
    }
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no line begins with {start:?}: {text}"))
}

/// Files other than the backup itself that are left in a folder of backups.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.contains("draft")).collect()
}

fn sqlite(path: &Path, sql: &str) {
    SqliteConnection::establish(path.to_str().unwrap()).unwrap().batch_execute(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it_began() {
    let (folder, receiver) = (Folder::new().await, Receiver::start().await);
    let server = folder.start("data").await;
    server.webhook_to(&receiver).await;
    let load = Load::start(&server.client, "backup", MANNER);
    for round in 0..ROUNDS {
        load.goes_on_by(500).await;
        let before = load.so_far();
        let name = format!("backup-{round}");
        let output = folder.back_up("data", &name).await;
        assert!(output.stderr.contains("the master key is not in it"), "{output:?}");
        let shown = output.expect_success();
        let during = load.count() - before.acknowledged.len();
        assert!(during > 0, "the server went on meanwhile");

        let data = format!("restored-{round}");
        let restored = folder.restore(&name, &data, &[]).await;
        assert!(restored.stderr.contains("bring the master key"), "{restored:?}");
        restored.expect_success();
        folder.bring_master_key("data", &data);
        let checkpoint = line(&shown, "audit log checkpoint ").to_owned();
        let verify = ["audit", "verify", "--data", &folder.text(&data), "--checkpoint", &checkpoint];
        switchboard(&verify).await.expect_success();
        let other = folder.start(&data).await;
        let events = other.events().await;
        let lost = missing(&before, events.iter().map(|(id, _)| id));
        assert!(lost.is_empty(), "{} of {} are not in it", lost.len(), before.acknowledged.len());
        assert!(other.terminate().await.success());
        eprintln!(
            "round {round}: {} before, {during} meanwhile, {} in it",
            before.acknowledged.len(),
            events.len()
        );
    }
    let told = load.end().await;
    assert!(told.refused.is_empty(), "nobody was refused: {:?}", told.refused);
    assert_eq!(leftovers(folder.folder.path()), [""; 0]);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_in_a_backup_is_delivered_and_subscribers_are_told_of_the_gap() {
    let (folder, receiver) = (Folder::new().await, Receiver::start().await);
    receiver.respond_with("/", Behaviour::Hang);
    let server = folder.start("data").await;
    server.webhook_to(&receiver).await;
    let kept = server.client.events().publish_event(event("a.b", r#"{"n":1}"#)).await.unwrap().into_inner();
    receiver.wait_for_in_flight("/", 1, SOON).await;
    folder.back_up("data", "backup").await.expect_success();
    let lost = server.client.events().publish_event(event("a.b", r#"{"n":2}"#)).await.unwrap().into_inner();
    server.kill().await;

    let before = receiver.received().len();
    receiver.respond_with("/", Behaviour::Status(200));
    folder.bring_master_key("data", "restored");
    let shown = folder.restore("backup", "restored", &[]).await.expect_success();
    assert!(shown.contains("the master key that is here opens its secrets"), "{shown}");
    let server = folder.start("restored").await;
    let received = receiver.wait_for(before + 1, SOON).await;
    assert_eq!(received[before].header("webhook-id"), Some(kept.event_id.as_str()));
    eventually("it is noted", async || {
        let request = GetEventRequest { event_id: kept.event_id.clone() };
        let event = server.client.events().get_event(request).await.unwrap().into_inner();
        event.outcomes.into_iter().find(|outcome| outcome.state() == DeliveryState::Succeeded)
    })
    .await;
    // The position is taken by another event now: who has seen the first one must not take it for that.
    server.client.events().publish_event(event("a.b", r#"{"n":3}"#)).await.unwrap();
    let request = SubscribeRequest { cursor: lost.cursor, ..Default::default() };
    let mut stream = server.client.notifications().subscribe(request).await.unwrap().into_inner();
    let told = async {
        loop {
            let message = stream.message().await.unwrap().expect("it goes on");
            if let Some(resync) = message.resync {
                return resync.reason();
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, told).await.unwrap(), resync::Reason::CursorUnknown);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_that_is_not_as_it_was_written_is_always_found() {
    let folder = Folder::new().await;
    let server = folder.start("data").await;
    folder.back_up("data", "backup").await.expect_success();
    assert!(server.terminate().await.success());
    let path = folder.path("backup");
    let good = std::fs::read(&path).unwrap();
    backup::check(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");

    let random = |below: usize| {
        let mut bytes = [0; 8];
        SystemRandom.fill(&mut bytes);
        usize::from_le_bytes(bytes) % below
    };
    let anywhere = (0..120).map(|_| random(good.len()));
    let in_the_seal = (0..60).map(|_| good.len() - 1 - random(4096));
    let ends = [0, good.len() - 4097, good.len() - 4096, good.len() - 66, good.len() - 65, good.len() - 1];
    for place in anywhere.chain(in_the_seal).chain(ends) {
        let mut bad = good.clone();
        bad[place] ^= 1 << random(8);
        std::fs::write(&path, &bad).unwrap();
        let found = backup::check(&path);
        assert!(found.is_err(), "the change of byte {place} of {} was not found", good.len());
    }
    for length in [0, 1, 4095, 4096, 8192, good.len() - 4096, good.len() - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(backup::check(&path).is_err(), "{length} bytes of it");
    }
    std::fs::write(&path, [&good[..], b"\n"].concat()).unwrap();
    assert!(backup::check(&path).is_err(), "something behind it");
    // The commands say so too, and leave nothing.
    let damaged = folder.restore("backup", "new", &[]).await;
    refused(&damaged, &["is not a backup of Switchboard, or is damaged"]);
    assert!(!folder.path("new").join("switchboard.db").exists());
    assert_eq!(leftovers(&folder.path("new")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_over_and_nothing_foreign_brought_back() {
    let folder = Folder::new().await;
    refused(&folder.back_up("nowhere", "backup").await, &["there is no database in"]);
    assert!(!folder.path("nowhere").exists() && !folder.path("backup").exists());
    let server = folder.start("data").await;
    let first = server.client.events().publish_event(event("a.b", "{}")).await.unwrap().into_inner();
    folder.back_up("data", "backup").await.expect_success();
    refused(&folder.back_up("data", "backup").await, &["backup is there already", "nothing is written over"]);
    let second = server.client.events().publish_event(event("a.b", "{}")).await.unwrap().into_inner();
    let replace = &["--replace"];
    refused(&folder.restore("backup", "data", replace).await, &["another server is using"]);
    assert!(server.terminate().await.success());

    refused(&folder.restore("backup", "data", &[]).await, &["there is a database in", "--replace"]);
    let checked = folder.restore("backup", "data", &["--dry-run", "--replace"]).await.expect_success();
    assert!(checked.contains("is good: made by version"), "{checked}");
    let shown = folder.restore("backup", "data", replace).await.expect_success();
    assert!(shown.contains("the master key that is here opens its secrets"), "{shown}");
    let kept = PathBuf::from(line(&shown, "what was there before is "));
    let ids = async |server: &Program| -> Vec<String> {
        server.events().await.into_iter().map(|(id, _)| id).collect()
    };
    let server = folder.start("data").await;
    assert_eq!(ids(&server).await, std::slice::from_ref(&first.event_id));
    assert!(server.terminate().await.success());
    // What was replaced is whole.
    folder.bring_master_key("data", "before");
    std::fs::copy(&kept, folder.path("before").join("switchboard.db")).unwrap();
    let server = folder.start("before").await;
    let mut both = ids(&server).await;
    both.sort();
    assert_eq!(both, [first.event_id, second.event_id]);
    assert!(server.terminate().await.success());

    // A database is no backup, nor is anything else.
    std::fs::copy(&kept, folder.path("plain.db")).unwrap();
    std::fs::write(folder.path("text"), "x".repeat(10_000)).unwrap();
    for foreign in ["plain.db", "text"] {
        refused(&folder.restore(foreign, "new", &[]).await, &["is not a backup of Switchboard"]);
    }
    refused(&folder.restore("missing", "new", &[]).await, &["can not be read"]);
    sqlite(&folder.path("plain.db"), "DROP TABLE event_log");
    std::fs::create_dir(folder.path("foreign")).unwrap();
    std::fs::rename(folder.path("plain.db"), folder.path("foreign").join("switchboard.db")).unwrap();
    refused(&folder.back_up("foreign", "other").await, &["not one of Switchboard"]);

    // One of a version that is to come.
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')";
    sqlite(&folder.path("data").join("switchboard.db"), newer);
    folder.back_up("data", "newer").await.expect_success();
    for more in [&[][..], &["--dry-run"]] {
        refused(&folder.restore("newer", "new", more).await, &["was made by a newer version"]);
    }
    let url = "DATABASE_URL=postgres://nobody@127.0.0.1:1/x";
    for command in ["backup", "restore"] {
        refused(&switchboard_in(&[url], &[command, &folder.text("x")]).await, &["pg_dump"]);
    }
    assert_eq!(leftovers(folder.folder.path()), [""; 0]);
    assert_eq!(leftovers(&folder.path("data")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgresql_under_load_is_restored_and_delivers_what_waited() {
    let (folder, receiver) = (Folder::new().await, Receiver::start().await);
    // Everything waits: what was published is to be delivered by the restored one.
    receiver.respond_with("/", Behaviour::Hang);
    let (url, other_url) = (postgres::fresh_database().await, postgres::fresh_database().await);
    let server = folder.start_on("data", Some(&url)).await;
    server.webhook_to(&receiver).await;
    let load = Load::start(&server.client, "dump", MANNER);
    load.goes_on_by(300).await;
    let before = load.so_far();
    let dump = folder.text("dump");
    run(postgres::bin("pg_dump"), ["--format=custom", "--file", &dump, &url], b"").await.expect_success();
    load.end().await;
    server.kill().await;

    let seen = receiver.received().len();
    receiver.respond_with("/", Behaviour::Status(200));
    let restore = ["--exit-on-error", "--single-transaction", "--dbname", &other_url, &dump];
    run(postgres::bin("pg_restore"), restore, b"").await.expect_success();
    let epoch = "UPDATE event_log SET epoch = (random() * 9e18)::bigint";
    postgres::query(&other_url, epoch).await;
    folder.bring_master_key("data", "restored");
    let server = folder.start_on("restored", Some(&other_url)).await;
    let events = server.events().await;
    let lost = missing(&before, events.iter().map(|(id, _)| id));
    assert!(lost.is_empty(), "{} of {} are not in it", lost.len(), before.acknowledged.len());
    // What the first server had in hand is taken up when its lease has ended.
    receiver.wait_for(seen + events.len(), Duration::from_secs(60)).await;
    let arrived = arrivals(&receiver.received()[seen..]);
    assert_eq!(arrived.len(), events.len());
    assert!(arrived.values().all(|&times| times == 1), "each of them once");
    let request = ["audit", "verify", "--data", &folder.text("restored"), "--database-url", &other_url];
    switchboard(&request).await.expect_success();
    assert!(server.terminate().await.success());
}
