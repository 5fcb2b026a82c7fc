//! Secrets at rest: every sealed column is in the rotation, and a rotation may be killed anywhere, beside servers that work.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use switchboard::app::{Ground, Machine};
use switchboard::config::Config;
use switchboard::db::keyring::sealed::SEALED;
use switchboard::db::keyring::status::{self, Check};
use switchboard::db::statement::{Bind, Statement};
use switchboard::db::{Db, Target};
use switchboard::error::Error;
use switchboard::on;
use switchboard::secret::Place;
use switchboard_client::Client;
use switchboard_client::webhook::v1::{CreateWebhookRequest, RotateWebhookSecretRequest, Webhook};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::harness::receiver::{Received, Receiver};
use crate::harness::server::Server;
use crate::harness::tls::Authority;
use crate::harness::tools::{self, Output};
use crate::harness::{SOON, on_both};
use crate::settings::set;

const BINARY: &str = env!("CARGO_BIN_EXE_switchboard");
const HOUR: prost_types::Duration = prost_types::Duration { seconds: 3_600, nanos: 0 };
/// Columns with bytes that are not sealed, each with what it is.
const NOT_SEALED: &[(&str, &str)] = &[
    ("api_keys", "key_hash"),    // A MAC.
    ("data_keys", "wrapped"),    // Wrapped by the master key.
    ("email_blobs", "content"),  // Attachments.
    ("requests", "fingerprint"), // A hash.
];
const FORMER: usize = 1_500;
const WEBHOOKS: usize = 30;
const KILLS: usize = 20;

fn database(config: &Config) -> Vec<(&'static str, String)> {
    match &config.database {
        Target::Sqlite(_) => Vec::new(),
        Target::Postgres(url) => vec![("DATABASE_URL", url.clone())],
    }
}

fn command(config: &Config, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("secrets").args(arguments).arg("--data").arg(data).env_clear().envs(database(config));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command to its end.
async fn secrets(config: &Config, variables: &[&str], arguments: &[&str]) -> Output {
    let database: Vec<String> =
        database(config).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let data = config.data.to_str().unwrap();
    let mut all: Vec<&str> = vec!["-i"];
    all.extend(database.iter().map(String::as_str));
    all.extend(variables);
    all.extend([BINARY, "secrets"]);
    all.extend(arguments);
    all.extend(["--data", data]);
    tools::run("env", all, b"").await
}

/// A rotation that runs as a process of its own.
struct Rotating {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Rotating {
    fn start(config: &Config, arguments: &[&str]) -> Self {
        let mut child = command(config, &config.data, arguments).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    /// Kills it when it has printed so many lines; answers whether it was still at it.
    async fn kill_after(mut self, lines: usize) -> bool {
        for _ in 0..lines {
            let line = tokio::time::timeout(SOON, self.lines.next_line()).await.expect("it goes on").unwrap();
            if line.is_none_or(|line| line.starts_with("done")) {
                return false;
            }
        }
        self.child.kill().await.unwrap();
        true
    }
}

/// Opens the keyring as a start does, and every secret.
async fn check(config: &Config) -> Check {
    let ground = Ground::open(config, Machine::default()).await.unwrap();
    status::check(&ground.db, &ground.keyring.sealer).await.unwrap()
}

/// The data keys that seal: whether each is retired, and how many values it seals.
async fn seals(config: &Config) -> Vec<(bool, i64)> {
    let db = Db::open(&config.database).await.unwrap();
    let keys = status::status(&db).await.unwrap().keys;
    keys.into_iter().filter_map(|key| Some((key.retired_at.is_some(), key.values?))).collect()
}

async fn create(client: &Client, webhook: Webhook) -> (String, String) {
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    let answer = client.webhooks().create_webhook(request).await.unwrap().into_inner();
    (answer.webhook.unwrap().id, answer.secret)
}

async fn rotate(client: &Client, id: &str) -> String {
    let request =
        RotateWebhookSecretRequest { webhook_id: id.into(), overlap: Some(HOUR), ..Default::default() };
    client.webhooks().rotate_webhook_secret(request).await.unwrap().into_inner().secret
}

fn endpoint(receiver: &Receiver, path: &str) -> Webhook {
    Webhook {
        name: "sealed".into(),
        url: receiver.url(path),
        event_types: vec!["*".into()],
        ..Default::default()
    }
}

/// Makes secrets of every kind; answers the path and the secret of each endpoint, and how many values are sealed.
async fn populate(server: &Server, receiver: &Receiver) -> (Vec<(String, String)>, usize) {
    let secrets = json!({"email.smtp_password": "hunter2", "webhook.proxy_password": "hunter3"});
    set(&server.client, secrets).await;
    let identity = Authority::new().await.client("sealed").await;
    let mut endpoints = Vec::new();
    let mut last = String::new();
    for number in 0..WEBHOOKS {
        let path = format!("/{number}");
        let mut webhook = endpoint(receiver, &path);
        if number % 3 == 0 {
            // Nothing goes there: what counts is that its private key is kept.
            webhook.url = "https://127.0.0.1:9/".into();
            webhook.event_types = vec!["other.*".into()];
            webhook.client_certificate.clone_from(&identity.certificate);
            webhook.client_key.clone_from(&identity.key);
        }
        let silent = number % 3 == 0;
        let (id, mut secret) = create(&server.client, webhook).await;
        if number % 2 == 0 {
            secret = rotate(&server.client, &id).await;
        }
        if !silent {
            endpoints.push((path, secret));
        }
        last = id;
    }
    // Written beside the server, which reads them at its next change: enough that a rotation takes its time.
    let ground = Ground::open(&server.config, Machine::default()).await.unwrap();
    let (sealer, id, end) = (ground.keyring.sealer.clone(), last, ground.machine.clock.now());
    ground
        .db
        .transaction(move |conn| {
            Box::pin(async move {
                for number in 0..FORMER {
                    let version = 1_000 + number as i64;
                    let row = format!("{id}/{version}");
                    let place = Place { table: "webhook_former_secrets", column: "secret", row: &row };
                    let sealed = sealer.seal(place, b"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")?;
                    let sql = "INSERT INTO webhook_former_secrets (webhook_id, version, secret, expires_at) \
                               VALUES (?, ?, ?, ?)";
                    let binds = vec![
                        Bind::Text(&id),
                        Bind::BigInt(version),
                        Bind::Binary(&sealed),
                        Bind::Instant(end + Duration::from_secs(3_600)),
                    ];
                    let insert = Statement::new(sql, binds);
                    on!(conn, |c| insert.execute(c).await)?;
                }
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
    let sealed = 2 + WEBHOOKS + WEBHOOKS.div_ceil(3) + WEBHOOKS.div_ceil(2) + FORMER;
    (endpoints, sealed)
}

/// Publishes an event, and asserts that every endpoint gets it signed with its newest secret.
async fn assert_signed(server: &Server, receiver: &Receiver, endpoints: &[(String, String)]) {
    let before = receiver.received().len();
    let published = server.publish("sealed.event", "{}").await;
    let received = receiver.wait_for(before + endpoints.len(), SOON).await;
    for (path, secret) in endpoints {
        let request = received.iter().find(|request| {
            request.path == *path && request.header("webhook-id") == Some(published.event_id.as_str())
        });
        let request = request.unwrap_or_else(|| panic!("{path} got it"));
        assert!(is_signed(request, secret), "{path} is signed with another secret");
    }
}

/// Whether one of the signatures of Standard Webhooks is this secret's.
fn is_signed(request: &Received, secret: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    for part in [request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap()] {
        mac.update(part.as_bytes());
        mac.update(b".");
    }
    mac.update(&request.body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    request.header("webhook-signature").unwrap().split(' ').any(|shown| shown == signature)
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
}

on_both! {
    async fn every_column_of_bytes_is_sealed_anew_or_known_not_to_be_sealed(server: Server) {
        let sql = match &server.config.database {
            Target::Sqlite(_) => {
                "SELECT t.name AS table_name, c.name AS column_name FROM sqlite_schema t, pragma_table_info(t.name) c
                 WHERE t.type = 'table' AND upper(c.type) = 'BLOB'"
            }
            Target::Postgres(_) => {
                "SELECT CAST(table_name AS TEXT) AS table_name, CAST(column_name AS TEXT) AS column_name
                 FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'bytea'"
            }
        };
        let db = Db::open(&server.config.database).await.unwrap();
        let mut conn = db.reader().await.unwrap();
        let found: Vec<Column> = on!(&mut conn, |c| sql_query(sql).load(c).await).unwrap();
        let found: BTreeSet<_> = found.iter().map(|c| (c.table_name.as_str(), c.column_name.as_str())).collect();
        let sealed = SEALED.iter().map(|column| (column.table, column.column));
        let known: BTreeSet<_> = sealed.chain(NOT_SEALED.iter().copied()).collect();
        // One more here is to be put on the one list or on the other.
        assert_eq!(found, known);
    }

    async fn a_rotation_that_is_killed_twenty_times_loses_no_secret(server: Server) {
        let receiver = Receiver::start().await;
        let (endpoints, sealed) = populate(&server, &receiver).await;
        let good = Check { good: sealed, broken: Vec::new() };
        assert_eq!(check(&server.config).await, good);
        assert_eq!(seals(&server.config).await, [(false, sealed as i64)]);
        let arguments = ["rotate", "--batch", "5"];
        let (mut killed, mut states) = (0, BTreeSet::new());
        for number in 0..KILLS {
            // At its beginning, after a few transactions, in the middle of one.
            let rotating = Rotating::start(&server.config, &arguments);
            killed += usize::from(rotating.kill_after(number * 7 % 30).await);
            assert_eq!(check(&server.config).await, good, "after kill {number}");
            let seals = seals(&server.config).await;
            assert_eq!(seals.iter().map(|(_, values)| values).sum::<i64>(), sealed as i64);
            assert_eq!(seals.iter().filter(|(retired, _)| !retired).count(), 1, "{seals:?}");
            states.insert(seals);
        }
        assert_eq!(killed, KILLS, "each was in the middle");
        assert!(states.len() > KILLS / 2, "they were killed at different places: {states:?}");
        let shown = secrets(&server.config, &[], &arguments).await.expect_success();
        assert!(shown.starts_with("going on with a rotation that was cut off"), "{shown}");
        assert!(shown.trim_end().ends_with(" 1 old data keys dropped"), "{shown}");
        assert_eq!(seals(&server.config).await, [(false, sealed as i64)]);
        let shown = secrets(&server.config, &[], &["status", "--check"]).await.expect_success();
        assert!(shown.contains(&format!("{sealed} values open, 0 do not")), "{shown}");
        assert!(shown.contains("  seal  active  0 days old"), "{shown}");

        assert_signed(&server, &receiver, &endpoints).await;
        let server = server.restart().await;
        assert_signed(&server, &receiver, &endpoints).await;
    }

    async fn endpoints_are_made_and_rotated_while_the_key_is(server: Server) {
        let receiver = Arc::new(Receiver::start().await);
        let shared = matches!(server.config.database, Target::Postgres(_));
        let another = if shared { Some(server.another_node().await) } else { None };
        let clients = [Some(server.client.clone()), another.as_ref().map(|node| node.client.clone())];
        let stop = CancellationToken::new();
        let callers: Vec<_> = clients
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(caller, client)| {
                let (receiver, stop) = (Arc::clone(&receiver), stop.clone());
                tokio::spawn(async move {
                    let mut endpoints: Vec<(String, String)> = Vec::new();
                    let mut ids: Vec<String> = Vec::new();
                    while !stop.is_cancelled() {
                        let path = format!("/{caller}/{}", ids.len());
                        let (id, secret) = create(&client, endpoint(&receiver, &path)).await;
                        endpoints.push((path, secret));
                        ids.push(id);
                        let earlier = ids.len() / 2;
                        endpoints[earlier].1 = rotate(&client, &ids[earlier]).await;
                    }
                    endpoints
                })
            })
            .collect();
        for _ in 0..5 {
            secrets(&server.config, &[], &["rotate", "--batch", "2"]).await.expect_success();
        }
        stop.cancel();
        let mut endpoints = Vec::new();
        for caller in callers {
            endpoints.extend(caller.await.unwrap());
        }
        assert!(endpoints.len() > 10, "{}", endpoints.len());
        assert_signed(&server, &receiver, &endpoints).await;
        if let Some(node) = &another {
            assert_signed(node, &receiver, &endpoints).await;
        }
        let check = check(&server.config).await;
        assert_eq!((check.broken, seals(&server.config).await.len()), (Vec::new(), 1));
        assert_signed(&server.restart().await, &receiver, &endpoints).await;
    }

    async fn another_master_key_takes_the_place_of_the_file(server: Server) {
        let receiver = Receiver::start().await;
        let (id, _) = create(&server.client, endpoint(&receiver, "/")).await;
        let file = server.folder().join("master.key");
        let old = std::fs::read(&file).unwrap();
        let backup = server.folder().join("backup.key");
        let arguments = ["rotate", "--new-master-key", backup.to_str().unwrap()];
        for kill in 0..10 {
            // Before it has done anything, or when it has told that it is done.
            let mut rotating = Rotating::start(&server.config, &arguments);
            let wait = Duration::from_millis(20 * kill);
            let _ = tokio::time::timeout(wait, rotating.child.wait()).await;
            let _ = rotating.child.kill().await;
            assert_eq!(check(&server.config).await, Check { good: 1, broken: Vec::new() }, "after kill {kill}");
        }
        secrets(&server.config, &[], &arguments).await.expect_success();
        let new = std::fs::read(&file).unwrap();
        assert_ne!(new, old);
        assert_eq!(new, std::fs::read(&backup).unwrap());
        assert!([&file, &backup].iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o077 == 0));
        assert!(!server.folder().join("master.key.new").exists());

        // The running server finds the new file when it meets a key that it does not know.
        secrets(&server.config, &[], &["rotate"]).await.expect_success();
        let secret = rotate(&server.client, &id).await;
        assert_signed(&server, &receiver, &[("/".to_owned(), secret)]).await;

        // Cut off before the keys were wrapped, and after.
        let next = server.folder().join("master.key.new");
        std::fs::write(&next, &old).unwrap();
        assert_eq!(check(&server.config).await.good, 2);
        assert!(next.exists() && std::fs::read(&file).unwrap() == new, "the old one is not taken");
        std::fs::write(&file, &old).unwrap();
        std::fs::write(&next, &new).unwrap();
        assert_eq!(check(&server.config).await.good, 2);
        assert!(!next.exists() && std::fs::read(&file).unwrap() == new, "the new one has got its name");
        std::fs::write(&file, &old).unwrap();
        let wrong = secrets(&server.config, &[], &["status"]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("the master key is not the one"), "{wrong:?}");
    }

    async fn another_master_key_takes_the_place_of_the_one_in_the_environment(server: Server) {
        let (client, receiver) = (&server.client, Receiver::start().await);
        create(client, endpoint(&receiver, "/")).await;
        let old = std::fs::read_to_string(server.folder().join("master.key")).unwrap();
        let new = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU=";
        let (old, new_next) = (
            format!("SWITCHBOARD_MASTER_KEY={}", old.trim()),
            format!("SWITCHBOARD_NEW_MASTER_KEY={new}"),
        );
        let new = format!("SWITCHBOARD_MASTER_KEY={new}");
        let status = ["status", "--check"];
        let both = [old.as_str(), new_next.as_str()];
        secrets(&server.config, &both, &status).await.expect_success();
        let missing = secrets(&server.config, &both[..1], &["rotate", "--new-master-key", "env"]).await;
        assert!(missing.stderr.contains("SWITCHBOARD_NEW_MASTER_KEY"), "{missing:?}");
        let told = secrets(&server.config, &both, &["rotate", "--new-master-key", "env"]).await.expect_success();
        assert!(told.contains("SWITCHBOARD_MASTER_KEY"), "{told}");
        secrets(&server.config, &both, &status).await.expect_success();
        secrets(&server.config, &[&new], &status).await.expect_success();
        let file = server.folder().join("given.key");
        std::fs::write(&file, new.strip_prefix("SWITCHBOARD_MASTER_KEY=").unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let by_file = format!("SWITCHBOARD_MASTER_KEY_FILE={}", file.display());
        let read = secrets(&server.config, &[&by_file], &status).await;
        assert!(read.stderr.contains("others may read this file"), "{read:?}");
        read.expect_success();
        let wrong = secrets(&server.config, &[&old], &status).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("the master key is not the one"), "{wrong:?}");
    }
}
