//! Every method with fields that mean harm: the server refuses or takes them, and never fails; and what it says of them is
//! within bounds and does nothing where it is shown.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde_json::json;
use switchboard_client::event::v1::ListEventsRequest;
use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::command_line::switchboard_in;
use crate::harness::receiver::Receiver;
use crate::harness::server::Server;
use crate::harness::smtp::SmtpSink;
use crate::harness::{SOON, on_both};
use crate::port::get;
use crate::settings::set;

/// What the fields of a request are filled with.
#[derive(Debug, Clone, Copy)]
enum Filling {
    /// Each text is this, and each list has one.
    Text(&'static str),
    /// Each text is this long.
    Long(usize),
    /// Each number is the least, or the greatest.
    Numbers(bool),
    /// Each list has so many entries.
    Many(usize),
}

const FILLINGS: &[Filling] = &[
    Filling::Text("a\0b"),
    Filling::Text("\u{1b}[2J\u{1b}]0;title\u{7}"),
    Filling::Text("a\r\nX-Injected: 1\r\n\r\n.\r\n"),
    Filling::Text("\u{9b}31m\u{85}\u{2028}\u{202e}\u{feff}"),
    Filling::Text("'\"><script>alert(1)</script>{{ 7*7 }}${x}%00%0d%0a"),
    Filling::Text("{\"a\":\"\\u0000\"}"),
    Filling::Text("../../etc/passwd"),
    Filling::Long(100_000),
    Filling::Numbers(false),
    Filling::Numbers(true),
    Filling::Many(20_000),
];

/// Methods that are streams; they have tests of their own.
fn methods() -> Vec<(String, MessageDescriptor)> {
    let pool = DescriptorPool::decode(switchboard::pb::DESCRIPTOR).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let unary = methods.filter(|method| !method.is_server_streaming());
    unary
        .map(|method| (format!("/{}/{}", method.parent_service().full_name(), method.name()), method.input()))
        .collect()
}

fn filled(message: &MessageDescriptor, filling: Filling, depth: usize) -> DynamicMessage {
    let mut request = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if let Some(value) = value(&field, filling, depth) {
            request.set_field(&field, value);
        }
    }
    request
}

fn value(field: &FieldDescriptor, filling: Filling, depth: usize) -> Option<Value> {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map has entries") };
        let value = single(&entry.map_entry_value_field().kind(), filling, depth)?;
        let key = match filling {
            Filling::Text(text) => text.to_owned(),
            Filling::Long(length) => "k".repeat(length),
            Filling::Numbers(_) | Filling::Many(_) => "k".to_owned(),
        };
        let entries = (0..count(filling, depth)).map(|index| {
            let key = if index == 0 { key.clone() } else { format!("{key}{index}") };
            (MapKey::String(key), value.clone())
        });
        return Some(Value::Map(entries.collect()));
    } else {
        field.kind()
    };
    let one = single(&kind, filling, depth)?;
    if !field.is_list() {
        return Some(one);
    }
    Some(Value::List(vec![one; count(filling, depth)]))
}

/// How many entries a list or a map has.
fn count(filling: Filling, depth: usize) -> usize {
    match filling {
        // Those in the entries of others would be as many as both together.
        Filling::Many(many) if depth == 0 => many,
        Filling::Many(_) => 3,
        _ => 1,
    }
}

fn single(kind: &Kind, filling: Filling, depth: usize) -> Option<Value> {
    let greatest = matches!(filling, Filling::Numbers(true));
    let numbers = matches!(filling, Filling::Numbers(_));
    Some(match kind {
        Kind::String => match filling {
            Filling::Text(text) => Value::String(text.to_owned()),
            Filling::Long(length) => Value::String("x".repeat(length)),
            Filling::Many(_) => Value::String("Not This!".to_owned()),
            Filling::Numbers(_) => return None,
        },
        Kind::Bytes => match filling {
            Filling::Text(text) => Value::Bytes(text.into()),
            _ => return None,
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 if numbers => {
            Value::I32(if greatest { i32::MAX } else { i32::MIN })
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 if numbers => {
            Value::I64(if greatest { i64::MAX } else { i64::MIN })
        }
        Kind::Uint32 | Kind::Fixed32 if numbers => Value::U32(u32::MAX),
        Kind::Uint64 | Kind::Fixed64 if numbers => Value::U64(u64::MAX),
        Kind::Double if numbers => Value::F64(if greatest { f64::NAN } else { f64::NEG_INFINITY }),
        Kind::Enum(_) if numbers => Value::EnumNumber(if greatest { i32::MAX } else { i32::MIN }),
        Kind::Message(message) if depth < 3 => Value::Message(filled(message, filling, depth + 1)),
        _ => return None,
    })
}

/// Messages as the bytes that they are.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
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
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn call(channel: &Channel, key: &str, path: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    let path: PathAndQuery = path.parse().unwrap();
    let answer = tokio::time::timeout(SOON, client.unary(request, path.clone(), Raw)).await;
    answer.unwrap_or_else(|_| panic!("{path} is not answered")).map(drop)
}

/// A text that can be shown as it is.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// That a refusal is one, says why, fits into the trailers of every client, and does nothing where it is shown.
fn expect_refusal(what: &str, status: &Status) {
    let refusals = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::Aborted,
        Code::PermissionDenied,
        Code::ResourceExhausted,
    ];
    assert!(refusals.contains(&status.code()), "{what}: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no reason: {status:?}"));
    assert!(!info.reason.is_empty(), "{what}");
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    let mut texts = vec![status.message()];
    texts.extend(info.metadata.values().map(String::as_str));
    texts.extend(violations.iter().flat_map(|one| [one.field.as_str(), one.description.as_str()]));
    for text in texts {
        assert!(is_plain(text), "{what}: {text:?}");
    }
    // As they travel: in base64, and with three bytes for each that is none of ASCII.
    let encoded = status.details().len() * 4 / 3 + status.message().len() * 3;
    assert!(encoded < 8 * 1024, "{what}: {encoded} bytes of trailers");
}

on_both! {
    async fn no_field_of_any_request_makes_the_server_fail(server: Server) {
        set(&server.client, json!({"security.rate_limit_per_key": 0, "security.rate_limit_per_ip": 0})).await;
        let channel = Channel::from_shared(server.url()).unwrap().connect().await.unwrap();
        let (mut counts, methods) = (BTreeMap::<i32, usize>::new(), methods());
        assert!(methods.len() > 90, "{} methods", methods.len());
        for filling in FILLINGS {
            for (path, input) in &methods {
                let message = filled(input, *filling, 0).encode_to_vec();
                if message.len() > 4 * 1024 * 1024 {
                    continue;
                }
                let what = format!("{path} with {filling:?}");
                let answer = call(&channel, server.key.reveal(), path, message).await;
                let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
                *counts.entry(code as i32).or_default() += 1;
                if let Err(status) = answer {
                    expect_refusal(&what, &status);
                }
            }
        }
        let refused = counts.iter().filter(|(code, _)| **code != Code::Ok as i32).map(|(_, count)| count).sum::<usize>();
        assert!(refused > methods.len() * 5, "{counts:?}");
        server.client.events().list_events(ListEventsRequest::default()).await.unwrap();
    }

    async fn headers_of_an_endpoint_are_sent_as_they_are_or_refused(server: Server) {
        let receiver = Receiver::start().await;
        let payloads = [
            "a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\rX-Injected: 1", "a\0", "a\u{b}b", "\u{1b}[2J", "a\u{85}b", "a\u{2028}b",
            "é", "a\tb", "plain", "a, b; c=\"d\"", " around ", "", "X-Injected: 1", "a\r\n\r\nGET / HTTP/1.1", "\u{7f}", "\u{10A}",
        ];
        let (mut taken, mut refused) = (0, 0);
        for (index, payload) in payloads.iter().enumerate() {
            for headers in [[("X-Test".to_owned(), (*payload).to_owned())], [((*payload).to_owned(), "1".to_owned())]] {
                let path = format!("/{index}/{}", taken + refused);
                let webhook = Webhook {
                    name: "n".into(), url: receiver.url(&path), event_types: vec!["a.b".into()],
                    headers: headers.clone().into(), ..Default::default()
                };
                let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
                let made = match server.client.webhooks().create_webhook(request).await {
                    Ok(made) => made.into_inner().webhook.unwrap(),
                    Err(status) => {
                        expect_refusal(&format!("{headers:?}"), &status);
                        refused += 1;
                        continue;
                    }
                };
                taken += 1;
                let [(name, value)] = headers;
                assert_eq!(made.headers[&name], value, "it is kept as it was sent");
                server.publish("a.b", "{}").await;
                let requests = receiver.wait_for_on(&path, 1, SOON).await;
                let request = &requests[0];
                // As bytes: what is beyond ASCII is sent in UTF-8, and is opaque to HTTP (RFC 9110, section 5.5).
                let sent = request.headers.get(&name).map(|sent| String::from_utf8_lossy(sent.as_bytes()));
                assert_eq!(sent.as_deref().map(str::trim), Some(value.trim()), "{name:?}: {value:?}");
                assert_eq!(request.header("x-injected").is_some(), name.eq_ignore_ascii_case("x-injected"), "{value:?}");
                let id = made.id;
                let request = switchboard_client::webhook::v1::DeleteWebhookRequest { webhook_id: id, ..Default::default() };
                server.client.webhooks().delete_webhook(request).await.unwrap();
            }
        }
        assert!(taken >= 6 && refused >= 15, "{taken} taken, {refused} refused");
    }

    async fn the_page_to_unsubscribe_shows_text_and_nothing_else(server: Server) {
        let sink = SmtpSink::start().await;
        let name = "<script>alert(1)</script>\"'&{{ 7*7 }}<img src=x onerror=alert(2)>";
        set(&server.client, json!({
            "email.smtp_host": "127.0.0.1", "email.smtp_port": sink.port(), "email.smtp_tls": "none",
            "email.public_url": "https://mail.example.com", "general.company_name": name,
        })).await;
        let request = switchboard_client::email::v1::SendEmailRequest {
            to: vec!["a&b'c{{d}}|e=f@example.com".into()], subject: "s".into(), plain_body: "t".into(), topic: "news".into(), ..Default::default()
        };
        server.client.emails().send_email(request).await.unwrap();
        let mails = sink.wait_for(1, SOON).await;
        let link = mails[0].header("List-Unsubscribe").unwrap();
        let path = link.trim_matches(['<', '>']).strip_prefix("https://mail.example.com").unwrap();
        for path in [path.to_owned(), "/u/%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(), "/u/%1b%5b2J%0d%0aX-Injected:%201".to_owned()] {
            let page = get(&server, &path).await;
            let html = String::from_utf8(page.body().to_vec()).unwrap();
            assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{1b}'), "{html}");
            assert!(page.headers().get("x-injected").is_none());
            assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
            assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        }
        let html = String::from_utf8(get(&server, path).await.body().to_vec()).unwrap();
        assert!(html.contains("&lt;script&gt;") || html.contains("&#60;script&#62;"), "{html}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_commands_print_does_nothing_on_a_terminal() {
    use crate::harness::server::Backend;
    let server = Server::start(Backend::Sqlite).await;
    let payload = "\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\u{9b}31m\r\nforged\u{85}\u{2028}\u{202e}";
    let webhook = Webhook {
        name: "n".into(),
        url: "https://example.com/".into(),
        event_types: vec!["a.b".into()],
        description: payload.into(),
        ..Default::default()
    };
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    server.client.webhooks().create_webhook(request).await.unwrap();
    let data = server.folder().to_str().unwrap().to_owned();
    let (url, key) = (server.url(), format!("SWITCHBOARD_KEY={}", server.key.reveal()));
    let printed =
        |output: crate::harness::tools::Output| [output.stdout.clone(), output.stderr.clone()].concat();
    let audit = printed(switchboard_in(&[], &["audit", "export", "--data", &data]).await);
    let line =
        audit.lines().find(|line| line.contains("webhook.create")).unwrap_or_else(|| panic!("{audit}"));
    let entry: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(entry["after"]["description"], payload, "a program reads what was written");
    let others = [
        printed(switchboard_in(&[&key], &["doctor", "--server", &url]).await),
        printed(switchboard_in(&[&key], &["test-email", "--server", &url, "--to", payload]).await),
        printed(
            switchboard_in(&[], &["key", "create", "--name", payload, "--scope", payload, "--data", &data])
                .await,
        ),
        printed(switchboard_in(&[], &["serve", "--set", &format!("{payload}=1"), "--data", &data]).await),
    ];
    for text in others.iter().chain([&audit]) {
        assert!(text.lines().all(is_plain), "{text:?}");
    }
}
