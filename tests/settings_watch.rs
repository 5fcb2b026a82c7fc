//! Watching settings: the guarantees of a watch in etcd, each held to.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use switchboard::db::{Db, execute};
use switchboard::rpc::convert::{duration, json_value};
use switchboard_client::Client;
use switchboard_client::apikey::v1::{ListApiKeysRequest, RevokeApiKeyRequest};
use switchboard_client::settings::v1::{
    ClearSettingsCacheRequest, GetSettingRequest, SettingRevision, WatchSettingsRequest,
    WatchSettingsResponse,
};
use tonic::{Code, Status, Streaming};

use crate::harness::server::{Backend, Server};
use crate::harness::{SOON, on_both, status};
use crate::settings::{get, letterhead, list, set, value};
use crate::settings_history::{history, revise};

type Watch = Streaming<WatchSettingsResponse>;

async fn try_watch(client: &Client, request: WatchSettingsRequest) -> Result<Watch, Status> {
    Ok(client.settings().watch_settings(request).await?.into_inner())
}

async fn watch(client: &Client, request: WatchSettingsRequest) -> Watch {
    try_watch(client, request).await.unwrap()
}

fn after(revision: i64) -> WatchSettingsRequest {
    WatchSettingsRequest { after_revision: Some(revision), ..Default::default() }
}

async fn next(watch: &mut Watch) -> Result<WatchSettingsResponse, Status> {
    let next = tokio::time::timeout(SOON, watch.message()).await.expect("something comes");
    next.map(|message| message.expect("a watch ends with a status"))
}

/// The next revision, past all bookmarks.
async fn revision(watch: &mut Watch) -> SettingRevision {
    loop {
        let response = next(watch).await.unwrap();
        if let Some(change) = response.change {
            assert_eq!(response.revision, change.revision);
            return change;
        }
    }
}

/// What a watch ends with.
async fn end(watch: &mut Watch) -> Status {
    loop {
        if let Err(status) = next(watch).await {
            return status;
        }
    }
}

on_both! {
    async fn each_revision_comes_once_whole_in_order_and_none_is_left_out(server: Server) {
        const WRITERS: i64 = 4;
        const CHANGES: i64 = 25;
        let start: i64 = list(&server.client).await.etag.parse().unwrap();
        let end = start + WRITERS * CHANGES;
        let mut whole = watch(&server.client, WatchSettingsRequest::default()).await;
        assert_eq!(next(&mut whole).await.unwrap(), WatchSettingsResponse { revision: start, change: None });
        let writers = (0..WRITERS).map(|writer| {
            let client = server.client.clone();
            tokio::spawn(async move {
                for number in 0..CHANGES {
                    // Different each time, so that each is a change.
                    let number = 1 + writer * CHANGES + number;
                    set(&client, json!({"email.smtp_port": number, "email.smtp2_port": number, "email.smtp3_port": number})).await;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        // One that goes on, and one that is cut off after every few and resumed.
        let (mut seen, mut resumed, mut position) = (Vec::new(), Vec::new(), start);
        while position < end {
            let mut part = watch(&server.client, after(position)).await;
            for _ in 0..7.min(end - position) {
                resumed.push(revision(&mut part).await);
                position = resumed.last().unwrap().revision;
            }
        }
        while seen.len() < resumed.len() {
            seen.push(revision(&mut whole).await);
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(seen, resumed, "resuming loses nothing and repeats nothing");
        let numbers: Vec<_> = seen.iter().map(|revision| revision.revision).collect();
        assert_eq!(numbers, (start + 1..=end).collect::<Vec<_>>(), "ordered, unique, reliable");
        for revision in &seen {
            let values: Vec<_> = revision.changes.iter().map(|change| json_value(change.new_value.clone().unwrap(), 0)).collect();
            assert_eq!(values.len(), 3, "{revision:?}");
            assert!(values.iter().all(|value| value == &values[0]), "torn: {revision:?}");
        }
        let distinct: HashSet<_> = seen.iter().map(|revision| json_value(revision.changes[0].new_value.clone().unwrap(), 0).to_string()).collect();
        assert_eq!(distinct.len(), seen.len());
        let mut late = watch(&server.client, after(start)).await;
        for known in &seen {
            assert_eq!(&revision(&mut late).await, known, "all of it once more, far behind");
        }
        let mut kept = history(&server.client).await;
        kept.reverse();
        assert_eq!(kept, seen, "what came is what the history has");
    }

    async fn a_watch_of_some_settings_has_bookmarks_for_the_others(server: Server) {
        let keys = vec!["general.*".into(), "email.smtp_port".into()];
        let heartbeat_interval = Some(duration(Duration::from_secs(1)));
        let mut some = watch(&server.client, WatchSettingsRequest { keys, heartbeat_interval, ..Default::default() }).await;
        next(&mut some).await.unwrap();
        let other = revise(&server.client, json!({"email.smtp_user": "postman"})).await;
        let bookmark = next(&mut some).await.unwrap();
        assert_eq!(bookmark, WatchSettingsResponse { revision: other, change: None });
        let both = revise(&server.client, json!({"email.smtp_host": "mail.example.com", "general.company_name": "Zoo"})).await;
        let wanted = revision(&mut some).await;
        let keys: Vec<_> = wanted.changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!((wanted.revision, keys), (both, vec!["general.company_name"]));
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Zoo", "what came is in effect");

        let odd = vec!["general.company_name".into(), "general".into(), "nothing.*".into(), "*".into()];
        let refused = try_watch(&server.client, WatchSettingsRequest { keys: odd, ..Default::default() }).await.unwrap_err();
        status::expect_violations(&refused, &["keys[1]", "keys[2]", "keys[3]"]);
        let heartbeat_interval = Some(duration(Duration::from_millis(999)));
        let refused = try_watch(&server.client, WatchSettingsRequest { heartbeat_interval, ..Default::default() }).await.unwrap_err();
        status::expect_violations(&refused, &["heartbeat_interval"]);
    }

    async fn a_watch_begins_only_where_the_history_reaches(server: Server) {
        let first = revise(&server.client, json!({"email.smtp_port": 1})).await;
        let mut slow = watch(&server.client, after(first)).await;
        next(&mut slow).await.unwrap();
        let refused = try_watch(&server.client, after(first + 1)).await.unwrap_err();
        status::expect_violations(&refused, &["after_revision"]);
        let refused = try_watch(&server.client, after(first - 2)).await.unwrap_err();
        let details = status::expect(&refused, Code::OutOfRange, "REVISION_COMPACTED");
        assert_eq!(details.error_info().unwrap().metadata["oldest_revision"], (first - 1).to_string());
        let mut oldest = watch(&server.client, after(first - 1)).await;
        assert_eq!(revision(&mut oldest).await.revision, first);
        assert_eq!(revise(&server.client, json!({"email.smtp_port": 2})).await, revision(&mut slow).await.revision);
    }

    async fn a_watch_never_shows_a_secret(server: Server) {
        const PASSWORD: &str = "correct-horse-battery";
        let mut all = watch(&server.client, WatchSettingsRequest::default()).await;
        set(&server.client, json!({"email.smtp_password": PASSWORD})).await;
        let revision = revision(&mut all).await;
        assert!(!format!("{revision:?}").contains(PASSWORD), "{revision:?}");
        assert!(revision.changes[0].new_fingerprint.starts_with("hmac:"), "{revision:?}");
    }

    async fn watches_need_the_scope_end_with_their_key_and_are_bounded(server: Server) {
        let stranger = server.client_that_may(&["events:read", "settings:write"]).await;
        let refused = try_watch(&stranger, WatchSettingsRequest::default()).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");

        let reader = server.client_that_may(&["settings:read"]).await;
        let mut watches = Vec::new();
        let heartbeat_interval = Some(duration(Duration::from_secs(1)));
        for _ in 0..128 {
            watches.push(watch(&reader, WatchSettingsRequest { heartbeat_interval, ..Default::default() }).await);
        }
        let refused = try_watch(&server.client, WatchSettingsRequest::default()).await.unwrap_err();
        let details = status::expect(&refused, Code::ResourceExhausted, "WATCH_LIMIT");
        assert!(details.retry_info().is_some());
        let keys = server.client.api_keys().list_api_keys(ListApiKeysRequest::default()).await.unwrap().into_inner().api_keys;
        let key = keys.iter().find(|key| key.scopes == ["settings:read"]).unwrap();
        let revoke = RevokeApiKeyRequest { api_key_id: key.id.clone() };
        server.client.api_keys().revoke_api_key(revoke).await.unwrap();
        for watch in &mut watches {
            status::expect(&end(watch).await, Code::Unauthenticated, "KEY_INVALID");
        }
        drop(watches);
        watch(&server.client, WatchSettingsRequest::default()).await;
    }

    async fn a_watch_ends_when_the_server_stops_and_says_where_to_go_on(server: Server) {
        let mut all = watch(&server.client, WatchSettingsRequest::default()).await;
        let last = revise(&server.client, json!({"email.smtp_port": 1})).await;
        revision(&mut all).await;
        let client = server.client.clone();
        let stopped = tokio::spawn(server.stop());
        let ended = end(&mut all).await;
        let details = status::expect(&ended, Code::Unavailable, "UNAVAILABLE");
        assert_eq!(details.error_info().unwrap().metadata["revision"], last.to_string());
        assert!(details.retry_info().is_some());
        stopped.await.unwrap();
        drop(client);
    }

    async fn a_cleared_cache_is_read_anew(server: Server) {
        let etag = set(&server.client, json!({"general.company_name": "Zoo"})).await.etag;
        let cleared = server.client.settings().clear_settings_cache(ClearSettingsCacheRequest {}).await.unwrap().into_inner();
        assert_eq!(cleared.etag, etag);
        // By hand, without a revision: nothing else makes the node look.
        let db = Db::open(&server.config.database).await.unwrap();
        let by_hand = "UPDATE settings SET value = '\"Aquarium\"' WHERE key = 'general.company_name'";
        db.transaction(|conn| Box::pin(execute(conn, by_hand))).await.unwrap();
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Zoo");
        server.client.settings().clear_settings_cache(ClearSettingsCacheRequest {}).await.unwrap();
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Aquarium");
        assert!(letterhead(&server.client).await.contains("Aquarium"), "it has effect");
        let reader = server.client_that_may(&["settings:read"]).await;
        assert!(reader.settings().get_setting(GetSettingRequest { key: "general.colour".into() }).await.is_ok());
        let refused = reader.settings().clear_settings_cache(ClearSettingsCacheRequest {}).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_on_one_node_come_on_the_other_in_their_order() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let start: i64 = list(&one.client).await.etag.parse().unwrap();
    let mut all = watch(&other.client, WatchSettingsRequest::default()).await;
    next(&mut all).await.unwrap();
    for number in 1..=10 {
        // From both nodes in turn.
        let node = if number % 2 == 0 { &one } else { &other };
        assert_eq!(revise(&node.client, json!({"email.smtp_port": number})).await, start + number);
    }
    for number in 1..=10 {
        let revision = revision(&mut all).await;
        assert_eq!(revision.revision, start + number);
        assert_eq!(json_value(revision.changes[0].new_value.clone().unwrap(), 0), number);
    }
    // A revision that this node has not read yet is none that does not exist.
    let told = revise(&one.client, json!({"email.smtp_port": 11})).await;
    let mut early = watch(&other.client, after(told)).await;
    assert_eq!(next(&mut early).await.unwrap().revision, told);
    other.stop().await;
}
