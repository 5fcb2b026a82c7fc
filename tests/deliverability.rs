//! Who gets no mail and why: the list, the links that recipients follow, and the reports of what came back.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prost_types::FieldMask;
use switchboard::app::{Ground, Machine};
use switchboard::clock::{Clock, Timestamp};
use switchboard::db::{Db, Target};
use switchboard::email::links::Links;
use switchboard::email::suppression::{self, NewSuppression, Origin, Reason};
use switchboard_client::email::v1::{
    BouncedRecipient, CreateSuppressionRequest, DeleteSuppressionRequest, EmailActivity, EmailActivityKind,
    GetEmailRequest, GetSuppressionRequest, ListSuppressionsRequest, ReportBounceRequest, SendEmailRequest,
    Suppression, SuppressionReason, UpdateSuppressionRequest,
};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::harness::server::Server;
use crate::harness::{eventually, on_both, status};

const READER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.5.0";
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Makes links as the server does.
async fn links(server: &Server) -> Links {
    let machine = Machine { clock: server.clock.clone(), ..Machine::default() };
    let ground = Ground::open(&server.config, machine).await.unwrap();
    Links::new(&ground.keyring.link_mac, &server.url())
}

pub async fn ask(server: &Server, method: Method, url: &str, agent: &str, body: &str) -> Response<Bytes> {
    let path = url.strip_prefix(&server.url()).unwrap_or(url);
    let request = Request::builder().method(method).uri(path).header("host", server.address());
    let request =
        request.header("user-agent", agent).header("content-type", "application/x-www-form-urlencoded");
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

pub async fn get(server: &Server, url: &str) -> Response<Bytes> {
    ask(server, Method::GET, url, READER, "").await
}

pub async fn one_click(server: &Server, url: &str) -> Response<Bytes> {
    ask(server, Method::POST, url, READER, "List-Unsubscribe=One-Click").await
}

pub fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

async fn send(server: &Server, to: &[&str]) -> String {
    let request = SendEmailRequest {
        to: to.iter().map(|&to| to.into()).collect(),
        subject: "Hello".into(),
        plain_body: "Hello.".into(),
        ..Default::default()
    };
    server.client.emails().send_email(request).await.unwrap().into_inner().email_id
}

async fn activities(server: &Server, email_id: &str) -> Vec<EmailActivity> {
    let request = GetEmailRequest { email_id: email_id.into() };
    server.client.emails().get_email(request).await.unwrap().into_inner().activities
}

async fn wait_for_activities(server: &Server, email_id: &str, count: usize) -> Vec<EmailActivity> {
    let found = eventually("the activities", async || {
        let found = activities(server, email_id).await;
        (found.len() >= count).then_some(found)
    });
    found.await
}

fn suppression(address: &str, topic: &str, reason: SuppressionReason) -> Suppression {
    Suppression { address: address.into(), topic: topic.into(), reason: reason.into(), ..Default::default() }
}

async fn create(server: &Server, suppression: Suppression) -> Result<Suppression, Status> {
    let request = CreateSuppressionRequest { suppression: Some(suppression) };
    Ok(server.client.suppressions().create_suppression(request).await?.into_inner().suppression.unwrap())
}

async fn find(server: &Server, address: &str, topic: &str) -> Result<Suppression, Status> {
    let request = GetSuppressionRequest { address: address.into(), topic: topic.into() };
    Ok(server.client.suppressions().get_suppression(request).await?.into_inner().suppression.unwrap())
}

async fn update(
    server: &Server,
    suppression: Suppression,
    fields: Option<&[&str]>,
) -> Result<Suppression, Status> {
    let mask = fields.map(|fields| FieldMask { paths: fields.iter().map(|&field| field.into()).collect() });
    let request = UpdateSuppressionRequest { suppression: Some(suppression), update_mask: mask };
    Ok(server.client.suppressions().update_suppression(request).await?.into_inner().suppression.unwrap())
}

async fn delete(server: &Server, address: &str, topic: &str) -> Result<(), Status> {
    let request = DeleteSuppressionRequest { address: address.into(), topic: topic.into() };
    server.client.suppressions().delete_suppression(request).await.map(drop)
}

/// All of them, as address and topic, in pages of two.
async fn list(server: &Server, request: ListSuppressionsRequest) -> Vec<String> {
    let (mut token, mut found) = (String::new(), Vec::new());
    loop {
        let request = ListSuppressionsRequest { page_size: 2, page_token: token, ..request.clone() };
        let page = server.client.suppressions().list_suppressions(request).await.unwrap().into_inner();
        assert!(page.suppressions.len() <= 2);
        found.extend(
            page.suppressions
                .iter()
                .map(|found| format!("{} {}", found.address, found.topic).trim_end().to_owned()),
        );
        token = page.next_page_token;
        if token.is_empty() {
            return found;
        }
    }
}

fn in_future(server: &Server, after: Duration) -> prost_types::Timestamp {
    switchboard::rpc::convert::timestamp(server.clock.now() + after)
}

async fn expect_none(server: &Server, address: &str, topic: &str) {
    status::expect(&find(server, address, topic).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
}

/// A connection as the queue has it.
enum Queue {
    Sqlite(diesel::SqliteConnection),
    Postgres(Box<diesel_async::AsyncPgConnection>),
}

impl Queue {
    async fn of(server: &Server) -> Self {
        use diesel::Connection;
        use diesel::connection::SimpleConnection;
        use diesel_async::AsyncConnection;
        match &server.config.database {
            Target::Sqlite(path) => {
                let mut conn = diesel::SqliteConnection::establish(path.to_str().unwrap()).unwrap();
                // The server writes too, when it likes.
                conn.batch_execute("PRAGMA busy_timeout = 20000").unwrap();
                Self::Sqlite(conn)
            }
            Target::Postgres(url) => {
                Self::Postgres(Box::new(diesel_async::AsyncPgConnection::establish(url).await.unwrap()))
            }
        }
    }

    async fn ask(&mut self, pairs: &[(&str, &str)], now: Timestamp) -> Vec<Option<String>> {
        match self {
            Self::Sqlite(conn) => suppression::suppressed_sqlite(conn, pairs, now).unwrap(),
            Self::Postgres(conn) => suppression::suppressed_postgres(conn, pairs, now).await.unwrap(),
        }
    }

    async fn add(&mut self, new: &NewSuppression) {
        match self {
            Self::Sqlite(conn) => suppression::add_sqlite(conn, new).unwrap(),
            Self::Postgres(conn) => suppression::add_postgres(conn, new).await.unwrap(),
        }
    }
}

/// A report as a mail server sends it, about these recipients with their action and status.
fn bounce(email_id: &str, recipients: &[(&str, &str, &str, &str)]) -> String {
    let mut blocks = String::new();
    for (address, action, status, diagnostic) in recipients {
        blocks += &format!(
            "\r\nFinal-Recipient: rfc822; {address}\r\nAction: {action}\r\nStatus: {status}\r\n\
             Diagnostic-Code: smtp; {diagnostic}\r\n"
        );
    }
    format!(
        "From: MAILER-DAEMON@mx.example.net (Mail Delivery System)\r\nTo: switchboard@example.com\r\n\
         Subject: Undelivered\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b1/mx.example.net\"\r\n\r\n\
         --b1/mx.example.net\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         A mail could not be delivered.\r\n\
         --b1/mx.example.net\r\nContent-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; mx.example.net\r\nX-Queue-ID: 4F2XYZ\r\n{blocks}\r\n\
         --b1/mx.example.net\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         Message-ID: <{email_id}@example.com>\r\nFrom: switchboard@example.com\r\nSubject: Hello\r\n\r\n\
         --b1/mx.example.net--\r\n"
    )
}

/// A complaint as a mail service sends it.
fn complaint(email_id: &str, fields: &str) -> String {
    format!(
        "From: feedback@example.net\r\nTo: abuse@example.com\r\nSubject: Complaint\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=part\r\n\r\n\
         --part\r\nContent-Type: text/plain\r\n\r\nA reader called this spam.\r\n\
         --part\r\nContent-Type: message/feedback-report\r\n\r\n\
         Feedback-Type: abuse\r\nUser-Agent: Loop/2.0\r\nVersion: 1\r\n{fields}\r\n\
         --part\r\nContent-Type: message/rfc822\r\nContent-Disposition: inline\r\n\r\n\
         Message-ID: <{email_id}@example.com>\r\nFrom: switchboard@example.com\r\nTo: undisclosed\r\nSubject: Hello\r\n\r\nHello.\r\n\
         --part--\r\n"
    )
}

async fn report(server: &Server, message: &str) -> Result<Vec<BouncedRecipient>, Status> {
    let request = ReportBounceRequest { message: message.as_bytes().to_vec() };
    Ok(server.client.emails().report_bounce(request).await?.into_inner().recipients)
}

on_both! {
    async fn suppressions_are_made_read_changed_and_removed(server: Server) {
        let made = create(&server, suppression(" Jo <JO@Bücher.Example> ", "", SuppressionReason::Unspecified)).await.unwrap();
        assert_eq!((made.address.as_str(), made.topic.as_str()), ("jo@xn--bcher-kva.example", ""));
        assert_eq!((made.reason(), made.origin.as_str()), (SuppressionReason::Manual, "api"));
        assert!(made.expire_time.is_none() && made.create_time.is_some() && made.create_time == made.update_time);
        assert_eq!(find(&server, "jo@bücher.example", "").await.unwrap(), made);
        let again = create(&server, suppression("jo@bücher.example", "", SuppressionReason::Bounce)).await.unwrap_err();
        status::expect(&again, Code::AlreadyExists, "ALREADY_EXISTS");
        expect_none(&server, "jo@bücher.example", "news").await;
        create(&server, suppression("jo@bücher.example", "news", SuppressionReason::Unsubscribe)).await.unwrap();

        server.advance(Duration::from_secs(1));
        let change = Suppression { detail: "by phone".into(), expire_time: Some(in_future(&server, HOUR)), ..made.clone() };
        let changed = update(&server, change.clone(), Some(&["detail", "expire_time"])).await.unwrap();
        assert_eq!((changed.detail.as_str(), changed.expire_time), ("by phone", change.expire_time));
        assert!(changed.update_time != made.update_time && changed.create_time == made.create_time);
        let same = suppression("jo@bücher.example", "", SuppressionReason::Complaint);
        let changed = update(&server, same.clone(), None).await.unwrap();
        assert_eq!((changed.reason(), changed.detail.as_str()), (SuppressionReason::Complaint, "by phone"));
        let changed = update(&server, same, Some(&["expire_time"])).await.unwrap();
        assert_eq!(changed.expire_time, None, "the mask clears it");

        delete(&server, "jo@bücher.example", "").await.unwrap();
        expect_none(&server, "jo@bücher.example", "").await;
        find(&server, "jo@bücher.example", "news").await.unwrap();
        let gone = delete(&server, "jo@bücher.example", "").await.unwrap_err();
        status::expect(&gone, Code::NotFound, "NOT_FOUND");
        let gone = update(&server, made, Some(&["detail"])).await.unwrap_err();
        status::expect(&gone, Code::NotFound, "NOT_FOUND");
    }

    async fn all_that_is_wrong_with_a_suppression_is_told_at_once(server: Server) {
        let bad = Suppression {
            address: "nobody".into(),
            topic: "No Topic".into(),
            detail: "x".repeat(1_025),
            expire_time: Some(in_future(&server, Duration::ZERO)),
            ..Default::default()
        };
        let fields = ["suppression.address", "suppression.topic", "suppression.detail", "suppression.expire_time"];
        status::expect_violations(&create(&server, bad.clone()).await.unwrap_err(), &fields);
        status::expect_violations(&update(&server, bad, None).await.unwrap_err(), &fields);
        status::expect_violations(&find(&server, "a@b@c", "X").await.unwrap_err(), &["address", "topic"]);
        status::expect_violations(&delete(&server, "", "").await.unwrap_err(), &["address"]);
        let reason = Suppression { reason: 77, ..suppression("jo@example.com", "", SuppressionReason::Manual) };
        status::expect_violations(&create(&server, reason).await.unwrap_err(), &["suppression.reason"]);
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        let far = Suppression { expire_time: Some(far), ..suppression("jo@example.com", "", SuppressionReason::Manual) };
        status::expect_violations(&create(&server, far).await.unwrap_err(), &["suppression.expire_time"]);
        assert_eq!(list(&server, ListSuppressionsRequest::default()).await, [""; 0]);
        let reader = server.client_that_may(&["email:read"]).await;
        let request = CreateSuppressionRequest { suppression: Some(suppression("jo@example.com", "", SuppressionReason::Manual)) };
        let refused = reader.suppressions().create_suppression(request).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
    }

    async fn suppressions_are_listed_by_filter_and_page(server: Server) {
        for (address, topic, reason) in [
            ("ann@example.com", "", SuppressionReason::Bounce),
            ("jo@example.com", "", SuppressionReason::Manual),
            ("jo@example.com", "jobs", SuppressionReason::Unsubscribe),
            ("jo@example.com", "news", SuppressionReason::Unsubscribe),
            ("jo_doe@example.com", "news", SuppressionReason::Complaint),
        ] {
            create(&server, suppression(address, topic, reason)).await.unwrap();
        }
        let all = ["ann@example.com", "jo@example.com", "jo@example.com jobs", "jo@example.com news", "jo_doe@example.com news"];
        assert_eq!(list(&server, ListSuppressionsRequest::default()).await, all);
        let with = |reasons: &[SuppressionReason]| ListSuppressionsRequest { reasons: reasons.iter().map(|&r| r.into()).collect(), ..Default::default() };
        assert_eq!(list(&server, with(&[SuppressionReason::Unsubscribe, SuppressionReason::Bounce])).await, ["ann@example.com", "jo@example.com jobs", "jo@example.com news"]);
        assert_eq!(list(&server, with(&[SuppressionReason::Unspecified])).await, all, "any reason");
        let begins = |prefix: &str| ListSuppressionsRequest { address_prefix: prefix.into(), ..Default::default() };
        assert_eq!(list(&server, begins("JO@")).await, all[1..4]);
        assert_eq!(list(&server, begins("jo_")).await, all[4..], "no pattern");
        assert_eq!(list(&server, begins("%")).await, [""; 0]);
        let of = ListSuppressionsRequest { topic: "news".into(), ..Default::default() };
        assert_eq!(list(&server, of).await, all[3..]);
    }

    async fn a_suppression_that_has_ended_counts_as_none(server: Server) {
        let ends = Suppression { expire_time: Some(in_future(&server, HOUR)), ..suppression("jo@example.com", "", SuppressionReason::Complaint) };
        create(&server, ends.clone()).await.unwrap();
        find(&server, "jo@example.com", "").await.unwrap();
        server.advance(HOUR);
        expect_none(&server, "jo@example.com", "").await;
        assert_eq!(list(&server, ListSuppressionsRequest::default()).await, [""; 0]);
        status::expect(&delete(&server, "jo@example.com", "").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        let made = create(&server, suppression("jo@example.com", "", SuppressionReason::Bounce)).await.unwrap();
        assert_eq!((made.reason(), made.expire_time), (SuppressionReason::Bounce, None));
    }

    async fn the_queue_is_told_who_gets_no_mail(server: Server) {
        let mut queue = Queue::of(&server).await;
        let now = server.clock.now();
        let pairs = [("jo@example.com", ""), ("jo@example.com", "news"), ("sam@example.com", "news"), ("sam@example.com", "jobs")];
        assert_eq!(queue.ask(&pairs, now).await, [None, None, None, None]);
        assert_eq!(queue.ask(&[], now).await, [None; 0]);
        let ends = Suppression { expire_time: Some(in_future(&server, HOUR)), ..suppression("jo@example.com", "", SuppressionReason::Complaint) };
        create(&server, ends).await.unwrap();
        create(&server, suppression("jo@example.com", "news", SuppressionReason::Unsubscribe)).await.unwrap();
        create(&server, suppression("sam@example.com", "news", SuppressionReason::Unsubscribe)).await.unwrap();
        let because = |word: &str| Some(format!("suppressed: {word}"));
        assert_eq!(queue.ask(&pairs, now).await, [because("complaint"), because("complaint"), because("unsubscribe"), None]);
        assert_eq!(queue.ask(&pairs, now + HOUR).await, [None, because("unsubscribe"), because("unsubscribe"), None]);

        server.advance(2 * HOUR);
        let db = Db::open(&server.config.database).await.unwrap();
        // The server's own housekeeping may have been there before.
        suppression::forget_expired(&db, server.clock.now()).await.unwrap();
        assert_eq!(suppression::forget_expired(&db, server.clock.now()).await.unwrap(), 0);
        assert_eq!(queue.ask(&pairs, now).await, [None, because("unsubscribe"), because("unsubscribe"), None]);
    }

    async fn what_the_queue_adds_weakens_nothing(server: Server) {
        let mut queue = Queue::of(&server).await;
        let now = server.clock.now();
        let new = |reason: Reason, expires_at: Option<Timestamp>| NewSuppression {
            address: "jo@example.com".into(),
            topic: String::new(),
            reason,
            origin: Origin::Smtp,
            detail: format!("{reason:?}\0{}", "x".repeat(2_000)),
            email_id: Some(format!("em_{reason:?}")),
            expires_at,
            now,
        };
        queue.add(&new(Reason::Bounce, Some(now + HOUR))).await;
        let found = find(&server, "jo@example.com", "").await.unwrap();
        assert_eq!((found.reason(), found.origin.as_str(), found.detail.chars().count()), (SuppressionReason::Bounce, "smtp", 1_024));
        for (add, expires_at, reason, ends) in [
            (Reason::Bounce, Some(now + HOUR / 2), SuppressionReason::Bounce, Some(HOUR)),
            (Reason::Manual, Some(now + 2 * HOUR), SuppressionReason::Manual, Some(2 * HOUR)),
            (Reason::Bounce, None, SuppressionReason::Manual, None),
            (Reason::Unsubscribe, Some(now + HOUR), SuppressionReason::Manual, None),
            (Reason::Complaint, Some(now + HOUR), SuppressionReason::Complaint, None),
            (Reason::Manual, None, SuppressionReason::Complaint, None),
        ] {
            queue.add(&new(add, expires_at)).await;
            let found = find(&server, "jo@example.com", "").await.unwrap();
            assert_eq!((found.reason(), found.expire_time), (reason, ends.map(|after| in_future(&server, after))), "{add:?}");
        }
        // What has ended counts as nothing.
        let other = |reason, expires_at, now| NewSuppression { topic: "news".into(), now, ..new(reason, expires_at) };
        queue.add(&other(Reason::Complaint, Some(now + HOUR), now)).await;
        server.advance(HOUR);
        queue.add(&other(Reason::Bounce, None, now + HOUR)).await;
        let found = find(&server, "jo@example.com", "news").await.unwrap();
        assert_eq!((found.reason(), found.create_time), (SuppressionReason::Bounce, Some(in_future(&server, Duration::ZERO))));
    }

    async fn unsubscribing_takes_a_post(server: Server) {
        let links = links(&server).await;
        let email_id = send(&server, &["jo@example.com"]).await;
        let url = links.unsubscribe_url(&email_id, "jo@example.com", "news");

        let page = get(&server, &url).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(text(&page).contains("jo@example.com") && text(&page).contains("<form method=\"post\">"), "{}", text(&page));
        assert!(!text(&page).contains("<script"), "{}", text(&page));
        assert!(header(&page, "content-security-policy").starts_with("default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"));
        assert_eq!((header(&page, "cache-control"), header(&page, "referrer-policy")), ("no-store, private", "no-referrer"));
        assert_eq!((header(&page, "x-robots-tag"), header(&page, "content-type")), ("noindex", "text/html; charset=utf-8"));
        assert_eq!(ask(&server, Method::HEAD, &url, READER, "").await.status(), StatusCode::OK);
        for method in [Method::PUT, Method::DELETE] {
            assert_eq!(ask(&server, method, &url, READER, "").await.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        expect_none(&server, "jo@example.com", "news").await;

        for _ in 0..2 {
            let done = one_click(&server, &url).await;
            assert_eq!(done.status(), StatusCode::OK);
            assert!(text(&done).contains("You are unsubscribed"), "{}", text(&done));
            let found = find(&server, "jo@example.com", "news").await.unwrap();
            assert_eq!((found.reason(), found.origin.as_str()), (SuppressionReason::Unsubscribe, "link"));
            assert_eq!(found.email_id, email_id);
            server.advance(HOUR);
        }
        for other in ["", "jobs"] {
            expect_none(&server, "jo@example.com", other).await;
        }
        let [activity] = activities(&server, &email_id).await.try_into().unwrap();
        assert_eq!((activity.kind(), activity.address.as_str()), (EmailActivityKind::Unsubscribed, "jo@example.com"));

        // The link outlives the mail, and whoever it was about.
        let url = links.unsubscribe_url("em_01jd0000000000000000000000", "sam@example.com", "");
        assert_eq!(one_click(&server, &url).await.status(), StatusCode::OK);
        find(&server, "sam@example.com", "").await.unwrap();
        let big = ask(&server, Method::POST, &url, READER, &"x".repeat(2_000)).await;
        assert_eq!(big.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    async fn a_link_that_was_made_up_does_nothing(server: Server) {
        let links = links(&server).await;
        let email_id = send(&server, &["jo@example.com"]).await;
        let url = links.unsubscribe_url(&email_id, "jo@example.com", "news");
        let (at, token) = url.rsplit_once('/').unwrap();
        let (payload, tag) = token.split_once('.').unwrap();
        let foreign = Links::new(&[7; 32], &server.url());
        let click = links.click_url(&email_id, "", "https://example.org/");
        let bad = [
            format!("{at}/{payload}.{}", tag.chars().rev().collect::<String>()),
            format!("{at}/{payload}"),
            format!("{at}/{payload}."),
            format!("{at}/%00"),
            foreign.unsubscribe_url(&email_id, "jo@example.com", "news"),
            links.open_url(&email_id, "jo@example.com").replace("/o/", "/u/"),
            click.replace("/c/", "/u/"),
        ];
        for url in &bad {
            for answer in [get(&server, url).await, one_click(&server, url).await] {
                assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{url}");
                assert_eq!(header(&answer, "cache-control"), "no-store, private");
            }
        }
        let moved = url.replace("/u/", "/c/");
        let bad = [moved, foreign.click_url("em_x", "", "https://evil.example/"), links.click_url(&email_id, "", "javascript:alert(1)")];
        for url in &bad {
            let answer = get(&server, url).await;
            assert_eq!((answer.status(), header(&answer, "location")), (StatusCode::NOT_FOUND, ""), "{url}");
        }
        assert_eq!(get(&server, &url.replace("/u/", "/o/")).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(list(&server, ListSuppressionsRequest::default()).await, [""; 0]);
        assert_eq!(activities(&server, &email_id).await, []);
    }

    async fn nobody_puts_markup_into_the_page(server: Server) {
        let links = links(&server).await;
        let url = links.unsubscribe_url("em_x", "\"<script>alert(1)</script>\"@example.com", "<b>");
        let page = get(&server, &url).await;
        assert!(!text(&page).contains("<script") && !text(&page).contains("<b>"), "{}", text(&page));
    }

    async fn opens_and_clicks_are_noted(server: Server) {
        let links = links(&server).await;
        let email_id = send(&server, &["jo@example.com"]).await;
        let picture = links.open_url(&email_id, "jo@example.com");
        let answer = get(&server, &picture).await;
        assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::OK, "image/gif"));
        assert!(answer.body().starts_with(b"GIF89a") && answer.body().len() == 43);
        let [opened] = wait_for_activities(&server, &email_id, 1).await.try_into().unwrap();
        assert_eq!((opened.kind(), opened.detail.as_str(), opened.automated), (EmailActivityKind::Opened, READER, false));
        assert_eq!(opened.address, "jo@example.com");

        // The same again at once is the same open; later it is another. Asking for the head alone is none.
        get(&server, &picture).await;
        ask(&server, Method::HEAD, &picture, READER, "").await;
        server.advance(HOUR);
        ask(&server, Method::GET, &picture, "Mozilla/5.0", "").await;
        let two = wait_for_activities(&server, &email_id, 2).await;
        assert_eq!(two.iter().map(|activity| activity.automated).collect::<Vec<_>>(), [false, true]);

        let target = "https://example.org/a?b=1&c=%22#d";
        let detour = links.click_url(&email_id, "jo@example.com", target);
        let answer = get(&server, &format!("{detour}?to=https://evil.example/")).await;
        assert_eq!((answer.status(), header(&answer, "location")), (StatusCode::FOUND, target));
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer");
        let head = ask(&server, Method::HEAD, &detour, READER, "").await;
        assert_eq!(header(&head, "location"), target);
        let three = wait_for_activities(&server, &email_id, 3).await;
        assert_eq!((three[2].kind(), three[2].detail.as_str()), (EmailActivityKind::Clicked, target));
        assert_eq!(three.len(), 3);

        // Of a mail that is not here, nothing is kept.
        let gone = links.open_url("em_01jd0000000000000000000000", "jo@example.com");
        assert_eq!(get(&server, &gone).await.status(), StatusCode::OK);
    }

    async fn an_address_that_is_gone_is_suppressed(server: Server) {
        let email_id = send(&server, &["Jo <JO@example.com>", "full@example.com", "late@example.com", "spam@example.com"]).await;
        let message = bounce(&email_id, &[
            ("jo@example.com", "failed", "5.1.1", "550 5.1.1 <jo@example.com>: user unknown"),
            ("full@example.com", "failed", "5.2.2", "552 5.2.2 mailbox full"),
            ("late@example.com", "delayed", "4.4.1", "connection timed out"),
            ("spam@example.com", "failed", "5.7.1", "550 5.7.1 rejected by policy"),
        ]);
        for _ in 0..2 {
            let answers = report(&server, &message).await.unwrap();
            let seen: Vec<_> = answers.iter().map(|a| (a.address.as_str(), a.status.as_str(), a.suppressed)).collect();
            assert_eq!(seen, [("jo@example.com", "5.1.1", true), ("full@example.com", "5.2.2", false), ("spam@example.com", "5.7.1", false)]);
            assert!(answers.iter().all(|answer| answer.email_id == email_id && answer.kind() == EmailActivityKind::Bounced));
            assert_eq!(answers[0].diagnostic, "550 5.1.1 <jo@example.com>: user unknown");
            let found = find(&server, "jo@example.com", "").await.unwrap();
            assert_eq!((found.reason(), found.origin.as_str(), found.email_id), (SuppressionReason::Bounce, "bounce", email_id.clone()));
            assert_eq!(list(&server, ListSuppressionsRequest::default()).await, ["jo@example.com"]);
            let noted = activities(&server, &email_id).await;
            assert_eq!(noted.iter().map(|activity| activity.address.as_str()).collect::<Vec<_>>(), ["jo@example.com", "full@example.com", "spam@example.com"]);
            server.advance(HOUR);
        }
    }

    async fn a_complaint_suppresses_and_nothing_weakens_it(server: Server) {
        let email_id = send(&server, &["jo@example.com", "sam@example.com"]).await;
        let answers = report(&server, &complaint(&email_id, "Original-Rcpt-To: <Jo@example.com>\r\n")).await.unwrap();
        let [answer] = answers.try_into().unwrap();
        assert_eq!((answer.address.as_str(), answer.kind(), answer.suppressed), ("jo@example.com", EmailActivityKind::Complained, true));
        let found = find(&server, "jo@example.com", "").await.unwrap();
        assert_eq!((found.reason(), found.origin.as_str()), (SuppressionReason::Complaint, "complaint"));
        let [noted] = activities(&server, &email_id).await.try_into().unwrap();
        assert_eq!(noted.kind(), EmailActivityKind::Complained);

        let gone = bounce(&email_id, &[("jo@example.com", "failed", "5.1.1", "550 no")]);
        assert!(report(&server, &gone).await.unwrap()[0].suppressed);
        assert_eq!(find(&server, "jo@example.com", "").await.unwrap(), found, "still a complaint, and the clock stood still");

        // One with an end loses it to one without; a stronger reason takes the place of a weaker one.
        let ends = Suppression { expire_time: Some(in_future(&server, HOUR)), ..suppression("sam@example.com", "", SuppressionReason::Bounce) };
        create(&server, ends).await.unwrap();
        report(&server, &complaint(&email_id, "Original-Rcpt-To: sam@example.com\r\n")).await.unwrap();
        let found = find(&server, "sam@example.com", "").await.unwrap();
        assert_eq!((found.reason(), found.expire_time), (SuppressionReason::Complaint, None));

        // Without an address, a mail to one recipient still says who it was.
        let alone = send(&server, &["kim@example.com"]).await;
        assert!(report(&server, &complaint(&alone, "")).await.unwrap()[0].suppressed);
        assert_eq!(find(&server, "kim@example.com", "").await.unwrap().email_id, alone);
    }

    async fn a_report_that_was_made_up_does_nothing(server: Server) {
        let email_id = send(&server, &["jo@example.com", "sam@example.com"]).await;
        let other = send(&server, &["kim@example.com"]).await;
        for message in [
            bounce(&email_id, &[("victim@example.com", "failed", "5.1.1", "550 no")]),
            bounce(&email_id, &[("kim@example.com", "failed", "5.1.1", "550 no")]),
            bounce("em_01jd0000000000000000000000", &[("jo@example.com", "failed", "5.1.1", "550 no")]),
            bounce("something-else", &[("jo@example.com", "failed", "5.1.1", "550 no")]),
            bounce(&other, &[("victim@example.com", "failed", "5.1.1", "550 no")]),
            complaint(&email_id, "Original-Rcpt-To: victim@example.com\r\n"),
            complaint(&email_id, ""),
        ] {
            let answers = report(&server, &message).await.unwrap();
            assert!(answers.iter().all(|answer| !answer.suppressed && answer.email_id.is_empty()), "{answers:?}");
        }
        assert_eq!(list(&server, ListSuppressionsRequest::default()).await, [""; 0]);
        assert_eq!(activities(&server, &email_id).await, []);
        for bad in ["", "hello", "Subject: Hi\r\n\r\nHello.\r\n"] {
            status::expect_violations(&report(&server, bad).await.unwrap_err(), &["message"]);
        }
        status::expect_violations(&report(&server, &"x".repeat(1024 * 1024 + 1)).await.unwrap_err(), &["message"]);
    }
}
