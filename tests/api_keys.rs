//! API keys: what each may do, when one ends, and that none can be found where keys are kept.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use switchboard::rpc::methods::Methods;
use switchboard_client::apikey::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, GetApiKeyRequest, ListApiKeysRequest,
    ListScopesRequest, RevokeApiKeyRequest,
};
use switchboard_client::{Client, event::v1::ListEventsRequest};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::command_line::switchboard;
use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, status};
use crate::settings::in_database;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Messages as bytes, whatever they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Calls any method with any bytes; answers the first message.
pub async fn call(
    server: &Server,
    key: Option<&str>,
    path: &str,
    message: &[u8],
) -> Result<Option<Bytes>, Status> {
    let channel = connection(server).await;
    // A stream has a first message as a single answer has.
    open(&channel, key, path, message).await?.message().await
}

/// A connection without a key.
pub async fn connection(server: &Server) -> Channel {
    tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap()
}

/// Calls any method with any bytes; answers as soon as the server begins to.
pub async fn open(
    channel: &Channel,
    key: Option<&str>,
    path: &str,
    message: &[u8],
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(Bytes::copy_from_slice(message));
    if let Some(key) = key {
        request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    }
    Ok(grpc.server_streaming(request, path.parse().unwrap(), Raw).await?.into_inner())
}

fn new_key(scopes: &[&str], expires_in_days: i32) -> CreateApiKeyRequest {
    CreateApiKeyRequest {
        name: "test".into(),
        scopes: scopes.iter().map(|&scope| scope.into()).collect(),
        expires_in_days,
        ..Default::default()
    }
}

async fn create(client: &Client, request: CreateApiKeyRequest) -> Result<CreateApiKeyResponse, Status> {
    Ok(client.api_keys().create_api_key(request).await?.into_inner())
}

async fn made(server: &Server, scopes: &[&str], expires_in_days: i32) -> (ApiKey, String) {
    let made = create(&server.client, new_key(scopes, expires_in_days)).await.unwrap();
    (made.api_key.unwrap(), made.key)
}

async fn get(server: &Server, id: &str) -> ApiKey {
    let request = GetApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap()
}

async fn revoke(server: &Server, id: &str) -> ApiKey {
    let request = RevokeApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().revoke_api_key(request).await.unwrap().into_inner().api_key.unwrap()
}

async fn list(server: &Server, active: Option<bool>) -> Vec<ApiKey> {
    let request = ListApiKeysRequest { active, ..Default::default() };
    server.client.api_keys().list_api_keys(request).await.unwrap().into_inner().api_keys
}

/// Any call that the scope `events:read` allows.
async fn read_events(client: &Client) -> Result<(), Status> {
    client.events().list_events(ListEventsRequest::default()).await.map(drop)
}

fn expect_invalid(result: Result<(), Status>) {
    status::expect(&result.unwrap_err(), Code::Unauthenticated, "KEY_INVALID");
}

on_both! {
    async fn every_method_is_listed_under_its_scope(server: Server) {
        let listed = server.client.api_keys().list_scopes(ListScopesRequest {}).await.unwrap().into_inner().scopes;
        let mut found: Vec<_> = listed.iter().flat_map(|scope| {
            scope.methods.iter().map(|method| (format!("/{method}"), scope.name.clone()))
        }).collect();
        let methods = Methods::from_descriptor(switchboard::pb::DESCRIPTOR).unwrap();
        let mut expected: Vec<_> = methods.all().map(|method| (method.path.to_owned(), method.scope.to_owned())).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let names: Vec<_> = listed.iter().map(|scope| scope.name.as_str()).collect();
        for name in ["admin:*", "admin:read", "inventory:delete", "tickets:*", "biofloc:write", "webhooks:*", "apikeys:*", "email:*"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert!(listed.iter().all(|scope| !scope.description.is_empty()));
    }

    async fn wildcards_and_admin_scopes_cover_what_they_say(server: Server) {
        let may = async |scopes: &[&str], path: &str| {
            let (_, key) = made(&server, scopes, 1).await;
            !matches!(call(&server, Some(&key), path, b"").await, Err(status) if status.code() == Code::PermissionDenied)
        };
        let (read, write) = ("/switchboard.webhook.v1.WebhookService/ListWebhooks", "/switchboard.webhook.v1.WebhookService/CreateWebhook");
        let send = "/switchboard.email.v1.EmailService/SendEmail";
        assert!(may(&["webhooks:*"], read).await && may(&["webhooks:*"], write).await);
        assert!(!may(&["webhooks:*"], send).await && may(&["email:*"], send).await);
        assert!(may(&["admin:read"], read).await && !may(&["admin:read"], write).await);
        assert!(may(&["admin:write"], write).await && !may(&["admin:write"], read).await);
        assert!(may(&["admin:*"], send).await);
        assert!(!may(&["tickets:*", "inventory:read"], read).await, "an application's scope opens nothing here");
    }

    async fn a_key_is_made_shown_listed_and_ended(server: Server) {
        let request = CreateApiKeyRequest { description: "For reports".into(), ..new_key(&["events:read", "tickets:*"], 30) };
        let CreateApiKeyResponse { api_key, key } = create(&server.client, request).await.unwrap();
        let api_key = api_key.unwrap();
        assert!(key.starts_with(&api_key.key_prefix) && api_key.key_prefix.len() == 15 && key.len() > 60, "{api_key:?}");
        assert_eq!((api_key.name.as_str(), api_key.description.as_str()), ("test", "For reports"));
        assert_eq!(api_key.scopes, ["events:read", "tickets:*"]);
        let life = api_key.expire_time.unwrap().seconds - api_key.create_time.unwrap().seconds;
        assert_eq!((life, api_key.active, api_key.revoke_time), (30 * 86_400, true, None));
        assert_eq!(get(&server, &api_key.id).await, api_key);
        let (default, _) = made(&server, &["events:read"], 0).await;
        assert_eq!(default.expire_time.unwrap().seconds - default.create_time.unwrap().seconds, 90 * 86_400);
        assert_eq!(list(&server, None).await.len(), 3, "with the first admin key");

        let client = server.client_with(&key).await;
        read_events(&client).await.unwrap();
        eventually("its use is noted", async || get(&server, &api_key.id).await.last_use_time).await;
        let ended = revoke(&server, &api_key.id).await;
        assert!(!ended.active && ended.revoke_time.is_some(), "{ended:?}");
        expect_invalid(read_events(&client).await);
        assert_eq!(revoke(&server, &api_key.id).await, ended, "again changes nothing");
        assert_eq!(list(&server, Some(false)).await, [ended]);
        assert_eq!(list(&server, Some(true)).await.len(), 2);
        let unknown = RevokeApiKeyRequest { api_key_id: "key_nope".into() };
        let refused = server.client.api_keys().revoke_api_key(unknown).await.unwrap_err();
        status::expect(&refused, Code::NotFound, "NOT_FOUND");
    }

    async fn bad_keys_are_refused_by_field(server: Server) {
        let bad = [
            (CreateApiKeyRequest { name: String::new(), ..new_key(&["a:b"], 1) }, "name"),
            (CreateApiKeyRequest { name: "x".repeat(129), ..new_key(&["a:b"], 1) }, "name"),
            (CreateApiKeyRequest { description: "x".repeat(1025), ..new_key(&["a:b"], 1) }, "description"),
            (new_key(&[], 1), "scopes"),
            (new_key(&["a:b", "everything"], 1), "scopes[1]"),
            (new_key(&["*"], 1), "scopes[0]"),
            (new_key(&["a:b"], 366), "expires_in_days"),
            (new_key(&["a:b"], -1), "expires_in_days"),
        ];
        for (request, field) in bad {
            status::expect_violations(&create(&server.client, request).await.unwrap_err(), &[field]);
        }
        assert_eq!(list(&server, None).await.len(), 1);
    }

    async fn a_key_expires_when_its_time_has_come(server: Server) {
        let (api_key, key) = made(&server, &["events:read"], 1).await;
        let client = server.client_with(&key).await;
        server.advance(DAY - Duration::from_secs(1));
        read_events(&client).await.unwrap();
        assert!(get(&server, &api_key.id).await.active);
        server.advance(Duration::from_secs(1));
        expect_invalid(read_events(&client).await);
        let expired = get(&server, &api_key.id).await;
        assert_eq!((expired.active, expired.revoke_time), (false, None));
        assert_eq!(list(&server, Some(false)).await, [expired]);
    }

    async fn nobody_gives_away_what_they_do_not_hold(server: Server) {
        let deputy = server.client_that_may(&["apikeys:write", "webhooks:*", "tickets:read"]).await;
        create(&deputy, new_key(&["webhooks:read", "webhooks:*", "tickets:read"], 1)).await.unwrap();
        for beyond in ["admin:*", "admin:read", "events:write", "tickets:*", "tickets:write", "apikeys:*"] {
            let refused = create(&deputy, new_key(&["webhooks:read", beyond], 1)).await.unwrap_err();
            let details = status::expect(&refused, Code::PermissionDenied, "SCOPE_NOT_HELD");
            assert_eq!(details.error_info().unwrap().metadata["scope"], beyond);
        }
        assert_eq!(list(&server, None).await.len(), 3);
    }

    async fn no_key_lies_in_the_database(server: Server) {
        let (api_key, key) = made(&server, &["events:read"], 1).await;
        read_events(&server.client_with(&key).await).await.unwrap();
        for text in [&key, &key[16..], server.key.reveal(), &server.key.reveal()[16..]] {
            assert!(!in_database(&server, text).await, "a key lies open in the database");
        }
        assert!(in_database(&server, &api_key.key_prefix).await, "the search finds what lies open");
        assert!(!format!("{:?}", list(&server, None).await).contains(&key[16..]));
    }

    async fn the_first_admin_key_is_made_once(server: Server) {
        // A restart asserts that no other one is made.
        let server = server.restart().await;
        let [first] = list(&server, None).await.try_into().unwrap();
        assert_eq!((first.name.as_str(), &first.scopes[..]), ("First admin key", &["admin:*".to_owned()][..]));
        revoke(&server, &first.id).await;
        expect_invalid(read_events(&server.client).await);
    }

    async fn a_key_made_on_the_command_line_works_on_the_running_server(server: Server) {
        let data = server.folder().to_str().unwrap().to_owned();
        let mut args = vec!["key", "create", "--name", "cron", "--scope", "events:read,tickets:read", "--expires-in-days", "7", "--data", &data];
        if let switchboard::db::Target::Postgres(url) = &server.config.database {
            args.extend(["--database-url", url]);
        }
        let printed = switchboard(&args).await.expect_success();
        read_events(&server.client_with(printed.trim()).await).await.unwrap();
        let cron = list(&server, None).await.into_iter().find(|key| key.name == "cron").unwrap();
        assert_eq!(cron.scopes, ["events:read", "tickets:read"]);
        assert!(printed.starts_with(&cron.key_prefix) && printed.lines().count() == 1, "only the key is printed: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_one_node_revokes_is_refused_by_the_other() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (api_key, key) = made(&one, &["events:read"], 1).await;
    let client = other.client_with(&key).await;
    read_events(&client).await.expect("the other node knows a new key at once");
    let here = one.client_with(&key).await;
    read_events(&here).await.expect("and the one that made it");
    revoke(&one, &api_key.id).await;
    let since = switchboard::clock::Stopwatch::start();
    expect_invalid(read_events(&here).await);
    let refused = eventually("the other node refuses the key", async || {
        read_events(&client).await.err().map(|refused| (refused, since.elapsed()))
    });
    let (refused, took) = refused.await;
    status::expect(&refused, Code::Unauthenticated, "KEY_INVALID");
    eprintln!("the other node refused the key after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    other.stop().await;
}
