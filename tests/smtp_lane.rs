//! The SMTP lane against servers that misbehave: each step ends at its deadline with the right verdict, nothing is sent
//! twice, and nobody waits for somebody else's server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::join_all;
use switchboard::clock::{ManualClock, SharedClock, SystemClock, Timestamp};
use switchboard::email::smtp::probe::{Probe, Step, probe};
use switchboard::email::smtp::{Deadlines, SmtpTransport};
use switchboard::email::transport::{Message, Report, Transport, Verdict};
use switchboard::email::{AuthMode, OAuth, Smtp, TlsMode};
use switchboard::secret::{SecretText, SystemRandom};

use crate::harness::hostile::{Hostile, Kind, Script, certificate};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::tools::free_port;
use crate::harness::{SOON, eventually};

/// Long enough for what has to work, short enough to wait for what does not.
const STEP: Duration = Duration::from_millis(1500);

fn brief() -> Deadlines {
    Deadlines {
        connect: STEP,
        greeting: STEP,
        tls: STEP,
        commands: STEP,
        content: STEP,
        dot: STEP,
        token: STEP,
        ..Deadlines::default()
    }
}

fn transport(providers: &[Smtp]) -> SmtpTransport {
    with(providers, Deadlines::default(), Arc::new(SystemClock))
}

fn with(providers: &[Smtp], deadlines: Deadlines, clock: SharedClock) -> SmtpTransport {
    let transport = SmtpTransport::with_deadlines(clock, Arc::new(SystemRandom), deadlines);
    transport.reconfigure(providers);
    transport
}

fn smtp(port: u16) -> Smtp {
    Smtp {
        host: "127.0.0.1".into(),
        port,
        user: String::new(),
        password: SecretText::default(),
        auth: AuthMode::Auto,
        oauth: None,
        tls: TlsMode::None,
        ca: String::new(),
        connections: 4,
        messages_per_connection: 100,
    }
}

fn login(port: u16, password: &str) -> Smtp {
    Smtp { user: "jo".into(), password: SecretText::new(password), ..smtp(port) }
}

fn plain(password: &str) -> String {
    format!("PLAIN {}", BASE64.encode(format!("\0jo\0{password}")))
}

fn mail(number: usize) -> Message {
    mail_to(number, &["jo@example.com"])
}

fn mail_to(number: usize, to: &[&str]) -> Message {
    Message {
        from: "sender@example.com".into(),
        to: to.iter().map(ToString::to_string).collect(),
        content: format!("Message-ID: <{number}@example.com>\r\n\r\nHello.\r\n").into(),
        urgent: true,
    }
}

async fn send_all(transport: &SmtpTransport, numbers: std::ops::Range<usize>) -> Vec<Report> {
    join_all(numbers.map(|number| transport.send(mail(number)))).await
}

fn all_accepted(reports: &[Report]) {
    let others: Vec<_> =
        reports.iter().filter(|report| report.recipients != [Verdict::Accepted]).take(3).collect();
    assert!(others.is_empty(), "{others:#?}");
}

fn deferred(report: &Report) -> (&str, Option<Duration>) {
    match &report.recipients[..] {
        [Verdict::Deferred { reply, after }] => (reply, *after),
        _ => panic!("{report:#?}"),
    }
}

fn held(report: &Report) -> (&str, Duration) {
    match &report.recipients[..] {
        [Verdict::Held { why, retry_in }] => (why, *retry_in),
        _ => panic!("{report:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_server_ends_at_its_deadline() {
    let (tls, _) = certificate("localhost").await;
    let starttls = |kind| Script { tls: Some(tls.clone()), ..Script::new(kind) };
    let one = |kind: Kind, tls, words: &'static str, waits: bool| {
        let script = starttls(kind.clone());
        async move {
            let server = Hostile::start(script).await;
            let transport = with(&[Smtp { tls, ..smtp(server.port()) }], brief(), Arc::new(SystemClock));
            let begun = Instant::now();
            let report = transport.send(mail(1)).await;
            let took = begun.elapsed();
            let (reply, _) = deferred(&report);
            assert!(reply.contains(words) && reply.contains("127.0.0.1"), "{kind:?}: {report:?}");
            assert_eq!(report.summary, reply, "{kind:?}");
            assert!(report.transcript.is_some(), "{kind:?}");
            assert!(!waits || took >= STEP, "{kind:?} took {took:?}");
            assert!(took < STEP + SOON, "{kind:?} took {took:?}");
            // Bounded by us, but for what fits into the buffers on the way.
            assert!(server.seen().said < 16 << 20, "{kind:?}: {} bytes", server.seen().said);
        }
    };
    use TlsMode::{None, StartTls};
    tokio::join!(
        one(Kind::NoGreeting, None, "greeting: no answer in time", true),
        one(Kind::Tarpit, None, "greeting: no answer in time", true),
        one(Kind::HangAfterEhlo, None, "EHLO: no answer in time", true),
        one(Kind::HangInData, None, "DATA: no answer in time", true),
        one(Kind::EndlessLines, None, "more than 100 lines", false),
        one(Kind::EndlessLine, None, "more than 2048 bytes", false),
        one(Kind::GarbageAfterStartTls, StartTls, "does not speak TLS", false),
        one(Kind::InjectAfterStartTls, StartTls, "before TLS began", false),
        one(Kind::Greets("554 5.7.1 Go away"), None, "554 5.7.1 Go away", false),
        one(Kind::Greets("421 Busy"), None, "421 Busy", false),
        one(Kind::Greets("SSH-2.0-OpenSSH_9"), None, "no SMTP reply", false),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_become_verdicts_and_cost_no_provider() {
    for (kind, code, deferred) in [
        (Kind::RefuseMail("451 4.3.0 Later"), 451, true),
        (Kind::RefuseMail("550 5.1.8 Not you"), 550, false),
        (Kind::RefuseRecipients("450 4.7.1 Greylisted"), 450, true),
        (Kind::RefuseRecipients("550 5.1.1 Unknown"), 550, false),
        (Kind::RefuseContent("452 4.3.1 Full"), 452, true),
        (Kind::RefuseContent("554 5.7.1 Spam"), 554, false),
    ] {
        for pipelining in [true, false] {
            let server = Hostile::start(Script { pipelining, ..Script::new(kind.clone()) }).await;
            let other = Hostile::start(Script::new(Kind::Healthy)).await;
            let transport = transport(&[smtp(server.port()), smtp(other.port())]);
            for report in send_all(&transport, 0..30).await {
                assert_eq!(report.code, Some(code), "{kind:?}: {report:?}");
                assert!(report.transcript.as_ref().unwrap().contains("> MAIL FROM:<sender@example.com>"));
                match &report.recipients[0] {
                    Verdict::Deferred { after, .. } if deferred => {
                        assert_eq!(after.is_some(), code != 451, "{report:?}");
                    }
                    Verdict::Refused { bad_address, .. } if !deferred => {
                        assert_eq!(*bad_address, report.summary.contains("5.1.1"), "{report:?}");
                    }
                    _ => panic!("{kind:?}: {report:?}"),
                }
            }
            assert!(transport.holds().is_empty());
            assert_eq!(other.seen().connections, 0, "a refusal is no fault of the server");
            server.becomes(Kind::Healthy);
            all_accepted(&send_all(&transport, 0..10).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_server_may_have_it_nobody_knows() {
    for kind in [Kind::HangAfterDot, Kind::DropAfterDot] {
        let server = Hostile::start(Script::new(kind.clone())).await;
        let other = Hostile::start(Script::new(Kind::Healthy)).await;
        let clock: SharedClock = Arc::new(SystemClock);
        let transport = with(&[smtp(server.port()), smtp(other.port())], brief(), clock);
        let report = transport.send(mail(1)).await;
        match &report.recipients[..] {
            [Verdict::Unknown { error }] => assert!(error.contains("may have taken it"), "{error}"),
            _ => panic!("{report:?}"),
        }
        assert_eq!(
            (server.seen().mails.len(), other.seen().mails.len()),
            (1, 0),
            "{kind:?}: it is not repeated"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_in_the_content_costs_nothing() {
    let first = Hostile::start(Script::new(Kind::DropInContent(1000))).await;
    let second = Hostile::start(Script::new(Kind::Healthy)).await;
    let transport = transport(&[smtp(first.port()), smtp(second.port())]);
    let content =
        format!("Message-ID: <1@example.com>\r\n\r\n{}", format!("{}\r\n", "x".repeat(998)).repeat(12_000));
    let report = transport.send(Message { content: content.clone().into(), ..mail(1) }).await;
    all_accepted(&[report]);
    assert_eq!((first.seen().mails.len(), second.seen().mails.len()), (0, 1));
    assert!(second.seen().mails[0].content == content.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drops_after_some_mails_gets_each_once() {
    for farewell in [true, false] {
        let server = Hostile::start(Script::new(Kind::DropAfter(7, farewell))).await;
        let transport = transport(&[smtp(server.port())]);
        all_accepted(&send_all(&transport, 0..100).await);
        let seen = server.seen();
        assert_eq!((seen.mails.len(), seen.duplicates()), (100, Vec::new()), "farewell: {farewell}");
        assert!(seen.connections >= 100 / 7, "{}", seen.connections);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_recipient_does_not_sink_the_others() {
    for pipelining in [true, false] {
        let recipients = [("bad@example.com", "550 5.1.1 Unknown"), ("full@example.com", "552 5.2.2 Full")];
        let script = Script { pipelining, recipients: recipients.into(), ..Script::new(Kind::Healthy) };
        let server = Hostile::start(script).await;
        let transport = transport(&[smtp(server.port())]);
        let to = ["bad@example.com", "jo@example.com", "full@example.com", "sam@example.com"];
        let report = transport.send(mail_to(1, &to)).await;
        match &report.recipients[..] {
            [
                Verdict::Refused { code: 550, bad_address: true, .. },
                Verdict::Accepted,
                Verdict::Deferred { .. },
                Verdict::Accepted,
            ] => {}
            _ => panic!("{report:#?}"),
        }
        assert!(
            report.summary.starts_with("250") && report.transcript.unwrap().contains("< 550 5.1.1 Unknown")
        );
        assert_eq!(server.seen().mails[0].to, ["<jo@example.com>", "<sam@example.com>"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_for_nobody_is_not_sent_and_the_next_one_is() {
    for (pipelining, data_for_nobody) in [(true, true), (true, false), (false, false)] {
        let recipients = [("bad@example.com", "550 5.1.1 Unknown")].into();
        let script = Script { pipelining, data_for_nobody, recipients, ..Script::new(Kind::Healthy) };
        let server = Hostile::start(script).await;
        let transport = transport(&[Smtp { connections: 1, ..smtp(server.port()) }]);
        let sends = (0..20).map(|number| {
            let to = if number % 2 == 0 { "bad@example.com" } else { "jo@example.com" };
            transport.send(mail_to(number, &[to]))
        });
        for (number, report) in join_all(sends).await.into_iter().enumerate() {
            assert_eq!(report.recipients == [Verdict::Accepted], number % 2 == 1, "{number}: {report:?}");
            assert_eq!(report.code, Some(if number % 2 == 0 { 550 } else { 250 }), "{number}: {report:?}");
        }
        let seen = server.seen();
        let (empty, sent): (Vec<_>, Vec<_>) = seen.mails.iter().partition(|mail| mail.to.is_empty());
        assert_eq!((sent.len(), empty.len()), (10, if data_for_nobody { 10 } else { 0 }));
        assert!(empty.iter().all(|mail| mail.content.is_empty()), "the content stays here");
        let resets = seen.commands.iter().filter(|command| *command == "RSET").count();
        assert!(if data_for_nobody { resets == 0 } else { (9..=10).contains(&resets) }, "{resets} resets");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_pipelining_a_mail_costs_one_round_trip() {
    const MAILS: usize = 50;
    let delay = Duration::from_millis(20);
    let server = Hostile::start(Script { delay, ..Script::new(Kind::Healthy) }).await;
    let transport = transport(&[Smtp { connections: 1, ..smtp(server.port()) }]);
    all_accepted(&send_all(&transport, 0..MAILS).await);
    let seen = server.seen();
    assert_eq!((seen.connections, seen.mails.len(), seen.bare), (1, MAILS, 0));
    // EHLO, the first envelope, and a write for each mail.
    assert!(seen.reads <= MAILS + 3, "{} reads", seen.reads);
    assert!(!seen.commands.contains(&"RSET".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_for_what_waits_and_closed_after_their_share() {
    let server = Hostile::start(Script::new(Kind::Healthy)).await;
    let transport = transport(&[Smtp { connections: 8, messages_per_connection: 10, ..smtp(server.port()) }]);
    all_accepted(&send_all(&transport, 0..3).await);
    assert!(server.seen().most_open <= 3, "{} for three mails", server.seen().most_open);
    all_accepted(&send_all(&transport, 3..300).await);
    let seen = server.seen();
    assert!(seen.most_open <= 8 && seen.connections >= 30, "{} of {}", seen.most_open, seen.connections);
    for connection in 1..=seen.connections {
        assert!(seen.mails.iter().filter(|mail| mail.connection == connection).count() <= 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_say_farewell() {
    let server = Hostile::start(Script::new(Kind::Healthy)).await;
    let deadlines = Deadlines { idle: Duration::from_millis(50), ..Deadlines::default() };
    let transport = with(&[smtp(server.port())], deadlines, Arc::new(SystemClock));
    all_accepted(&send_all(&transport, 0..10).await);
    eventually("all connections are closed", async || (server.seen().open == 0).then_some(())).await;
    let seen = server.seen();
    let farewells = seen.commands.iter().filter(|command| *command == "QUIT").count();
    assert_eq!(farewells, seen.connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_does_not_slow_a_healthy_one() {
    let hanging = Hostile::start(Script::new(Kind::HangInData)).await;
    let healthy = Hostile::start(Script::new(Kind::Healthy)).await;
    let slow = transport(&[smtp(hanging.port())]);
    let fast = transport(&[smtp(healthy.port())]);
    let waiting = send_all(&slow, 0..200);
    let sent = async {
        let begun = Instant::now();
        all_accepted(&send_all(&fast, 0..500).await);
        assert!(begun.elapsed() < Deadlines::default().commands / 2, "{:?}", begun.elapsed());
    };
    tokio::select! {
        () = sent => {}
        reports = waiting => panic!("{:?}", reports[0]),
    }
    assert_eq!((healthy.seen().mails.len(), hanging.seen().mails.len()), (500, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_mail_does_not_wait_behind_bulk() {
    let server = Hostile::start(Script::new(Kind::HangFor("bulk@"))).await;
    let transport = transport(&[smtp(server.port())]);
    let bulk = |number| Message { from: "bulk@example.com".into(), urgent: false, ..mail(number) };
    let hanging = join_all((0..50).map(|number| transport.send(bulk(number))));
    let urgent = async {
        eventually("bulk has what it may have", async || (server.seen().mails.len() == 3).then_some(()))
            .await;
        all_accepted(&send_all(&transport, 100..150).await);
    };
    tokio::select! {
        () = urgent => {}
        reports = hanging => panic!("{:?}", reports[0]),
    }
    let seen = server.seen();
    assert_eq!(seen.mails.iter().filter(|mail| mail.from.contains("bulk@")).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_is_given_up_is_sent_once_or_not_at_all() {
    let delay = Duration::from_millis(5);
    let server = Hostile::start(Script { delay, ..Script::new(Kind::Healthy) }).await;
    let transport = transport(&[smtp(server.port())]);
    tokio::select! {
        _ = send_all(&transport, 0..300) => {}
        () = eventually("some are sent", async || (server.seen().mails.len() > 20).then_some(())) => {}
    }
    all_accepted(&send_all(&transport, 300..350).await);
    let seen = server.seen();
    assert_eq!(seen.duplicates(), Vec::<String>::new());
    assert!(seen.mails.len() < 300, "{} were sent although nobody waited", seen.mails.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_content_is_it_stays_one_mail() {
    let server = Hostile::start(Script::new(Kind::Healthy)).await;
    let transport = transport(&[smtp(server.port())]);
    let ends = ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\n.\r", "\r\n.\r\n", "\r\r\n.\r\n"];
    let smuggled = "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nHi\r\n.\r\n";
    for end in ends {
        let content = format!("Message-ID: <{}@example.com>\r\n\r\nHello{end}{smuggled}", end.escape_debug());
        let report = transport.send(Message { content: content.into(), ..mail(1) }).await;
        all_accepted(&[report]);
    }
    for address in ["a@example.com>\r\nRCPT TO:<victim@example.com", "a b@example.com", "a@example.com\0"] {
        let report = transport.send(mail_to(1, &[address, "jo@example.com"])).await;
        assert!(matches!(report.recipients[0], Verdict::Refused { bad_address: true, .. }), "{report:?}");
        assert_eq!(report.recipients[1], Verdict::Accepted);
        let report = transport.send(Message { from: address.into(), ..mail(1) }).await;
        assert!(matches!(report.recipients[0], Verdict::Refused { bad_address: false, .. }), "{report:?}");
    }
    let seen = server.seen();
    assert_eq!((seen.mails.len(), seen.bare), (ends.len() + 3, 0));
    assert!(
        seen.mails.iter().all(|mail| mail.from.starts_with("<sender@") && mail.to == ["<jo@example.com>"])
    );
    assert!(seen.mails[0].content.ends_with(b"Hi\r\n.\r\n"), "the dot arrives as text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_goes_to_the_next_provider_and_five_shut_the_first() {
    let second = Hostile::start(Script::new(Kind::Healthy)).await;
    let first = Hostile::start(Script::new(Kind::Greets("421 4.3.2 Down"))).await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
    let both = with(&[smtp(first.port()), smtp(second.port())], Deadlines::default(), clock.clone());
    for number in 0..8 {
        all_accepted(&send_all(&both, number..number + 1).await);
    }
    assert_eq!(first.seen().connections, 5, "then it is left alone");
    assert!(both.holds().is_empty(), "the second would be tried");
    first.becomes(Kind::Healthy);
    clock.advance(Duration::from_secs(33));
    all_accepted(&send_all(&both, 8..18).await);
    assert!(!first.seen().mails.is_empty(), "one looks whether it is back");
    let before = second.seen().mails.len();
    all_accepted(&send_all(&both, 18..38).await);
    assert_eq!(second.seen().mails.len(), before, "it is");

    let port = free_port();
    let alone = with(&[smtp(port)], Deadlines::default(), clock.clone());
    for _ in 0..5 {
        let report = alone.send(mail(1)).await;
        let (reply, _) = deferred(&report);
        assert_eq!(reply, format!("127.0.0.1:{port}: the connection was refused"));
    }
    let report = alone.send(mail(1)).await;
    let (why, retry_in) = held(&report);
    assert!(why.contains("Nothing accepts connections on port"), "{why}");
    assert!((30..=33).contains(&retry_in.as_secs()), "{retry_in:?}");
    assert_eq!(alone.holds()[0].why, why);
    clock.advance(retry_in + Duration::from_secs(1));
    assert!(alone.holds().is_empty());
    deferred(&alone.send(mail(1)).await);
    assert!(alone.holds()[0].retry_in > Duration::from_secs(59), "twice as long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_holds_the_mail_until_the_settings_change() {
    let script = Script {
        logins: vec![plain("right"), format!("LOGIN {} {}", BASE64.encode("jo"), BASE64.encode("right"))],
        extensions: vec!["AUTH PLAIN LOGIN"],
        ..Script::new(Kind::Healthy)
    };
    let server = Hostile::start(script).await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
    let transport = with(&[login(server.port(), "wrong-password")], Deadlines::default(), clock.clone());
    for report in send_all(&transport, 0..20).await {
        let (why, retry_in) = held(&report);
        assert!(why.contains("535 5.7.8") && why.contains("app password"), "{why}");
        assert!(retry_in <= Duration::from_secs(600));
        let shown = report.transcript.unwrap_or_default();
        assert!(
            !shown.contains("wrong-password") && !shown.contains(&plain("wrong-password")[6..]),
            "{shown}"
        );
        assert!(shown.is_empty() || shown.contains("> AUTH PLAIN [secret]"), "{shown}");
    }
    assert_eq!(server.seen().connections, 1, "nobody tries it again");
    assert_eq!(transport.holds().len(), 1);
    assert!(transport.holds()[0].retry_in > Duration::from_secs(590));
    held(&transport.send(mail(1)).await);
    clock.advance(Duration::from_secs(601));
    held(&transport.send(mail(1)).await);
    assert_eq!(server.seen().connections, 2, "one looks again");

    for auth in [AuthMode::Auto, AuthMode::Login] {
        transport.reconfigure(&[Smtp { auth, ..login(server.port(), "right") }]);
        assert!(transport.holds().is_empty(), "new settings are tried at once");
        all_accepted(&send_all(&transport, 0..20).await);
    }
    transport.reconfigure(&[]);
    let report = transport.send(mail(1)).await;
    assert!(held(&report).0.contains("no provider"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_ends_when_the_settings_change() {
    let delay = Duration::from_millis(10);
    let old = Hostile::start(Script { delay, ..Script::new(Kind::Healthy) }).await;
    let new = Hostile::start(Script::new(Kind::Healthy)).await;
    let transport = transport(&[smtp(old.port())]);
    let change = async {
        eventually("some are under way", async || (old.seen().mails.len() > 10).then_some(())).await;
        transport.reconfigure(&[smtp(new.port())]);
    };
    let (reports, ()) = tokio::join!(send_all(&transport, 0..300), change);
    all_accepted(&reports);
    let (old_mails, new_mails) = (old.seen().mails, new.seen().mails);
    assert_eq!(old_mails.len() + new_mails.len(), 300);
    assert!(new_mails.len() > 100, "what waited went to the new server: {}", new_mails.len());
    eventually("the old connections are closed", async || (old.seen().open == 0).then_some(())).await;
}

fn oauth(port: u16, receiver: &Receiver) -> Smtp {
    let oauth = OAuth {
        token_url: receiver.url("/token"),
        client_id: "client & co".into(),
        client_secret: SecretText::new("client-secret"),
        refresh_token: SecretText::new("refresh-token"),
    };
    Smtp { oauth: Some(oauth), ..login(port, "") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_tokens_are_got_once_and_again_when_refused() {
    let receiver = Receiver::start().await;
    let token = |token: &str, life: u64| {
        Behaviour::Text(
            200,
            format!(r#"{{"access_token":"{token}","expires_in":{life},"token_type":"Bearer"}}"#),
        )
    };
    let xoauth2 =
        |token: &str| format!("XOAUTH2 {}", BASE64.encode(format!("user=jo\x01auth=Bearer {token}\x01\x01")));
    let script = |logins: Vec<String>| Script {
        logins,
        extensions: vec!["AUTH PLAIN XOAUTH2"],
        ..Script::new(Kind::Healthy)
    };
    receiver.respond_with("/token", token("first", 3600));
    let server = Hostile::start(script(vec![xoauth2("first"), xoauth2("third")])).await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
    let smtp = Smtp { messages_per_connection: 1, ..oauth(server.port(), &receiver) };
    let deadlines = Deadlines { idle: Duration::from_millis(50), ..Deadlines::default() };
    let transport = with(&[smtp], deadlines, clock.clone());
    all_accepted(&send_all(&transport, 0..40).await);
    assert!(server.seen().connections >= 40);
    eventually("all connections are closed", async || (server.seen().open == 0).then_some(())).await;
    let asked = receiver.received();
    assert_eq!(asked.len(), 1, "one token serves all connections");
    let form: std::collections::HashMap<_, _> = url::form_urlencoded::parse(&asked[0].body).collect();
    assert_eq!((&*form["grant_type"], &*form["client_id"]), ("refresh_token", "client & co"));
    assert_eq!((&*form["client_secret"], &*form["refresh_token"]), ("client-secret", "refresh-token"));

    // A minute before its end it is not used any more, and one that is refused is replaced.
    clock.advance(Duration::from_secs(3545));
    receiver.respond_with("/token", token("second", 3600));
    let report = transport.send(mail(1)).await;
    assert!(held(&report).0.contains(r#"{"status":"401"}"#), "{report:?}");
    receiver.respond_with("/token", token("third", 3600));
    clock.advance(Duration::from_secs(601));
    all_accepted(&send_all(&transport, 0..1).await);

    receiver.respond_with("/token", Behaviour::Text(400, r#"{"error":"invalid_grant"}"#.into()));
    let other = Hostile::start(script(vec![])).await;
    let transport = with(&[oauth(other.port(), &receiver)], Deadlines::default(), clock.clone());
    let report = transport.send(mail(1)).await;
    assert!(
        held(&report).0.contains("invalid_grant") && held(&report).0.contains("new refresh token"),
        "{report:?}"
    );

    receiver.respond_with("/token", Behaviour::Status(503));
    let transport = with(&[oauth(other.port(), &receiver)], Deadlines::default(), clock);
    deferred(&transport.send(mail(1)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_under_tls_and_only_to_whom_the_certificate_names() {
    let (config, pem) = certificate("localhost").await;
    for (implicit, tls) in [(true, TlsMode::Implicit), (false, TlsMode::StartTls)] {
        let script = Script {
            tls: Some(config.clone()),
            implicit,
            logins: vec![plain("right")],
            extensions: vec!["AUTH PLAIN"],
            ..Script::new(Kind::Healthy)
        };
        let server = Hostile::start(script).await;
        let good = Smtp { host: "localhost".into(), tls, ca: pem.clone(), ..login(server.port(), "right") };
        all_accepted(&send_all(&transport(std::slice::from_ref(&good)), 0..100).await);
        let seen = server.seen();
        assert_eq!((seen.mails.len(), seen.duplicates().len(), seen.bare), (100, 0, 0));

        let wrong_name = Smtp { host: "127.0.0.1".into(), ..good.clone() };
        let untrusted = Smtp { ca: String::new(), ..good };
        for bad in [wrong_name, untrusted] {
            let report = transport(&[bad]).send(mail(1)).await;
            assert!(deferred(&report).0.contains("TLS"), "{report:?}");
        }
        assert_eq!(server.seen().mails.len(), 100);
    }
}

async fn probed(smtp: &Smtp, test: Option<Message>) -> Probe {
    probe(smtp, "sender@example.com", test, brief(), Arc::new(SystemClock)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_says_which_step_failed_and_what_to_do() {
    let (tls, pem) = certificate("localhost").await;
    let healthy = |implicit| Script {
        tls: Some(tls.clone()),
        implicit,
        logins: vec![plain("right")],
        extensions: vec!["AUTH PLAIN"],
        ..Script::new(Kind::Healthy)
    };
    let server = Hostile::start(healthy(false)).await;
    let implicit = Hostile::start(healthy(true)).await;
    let good =
        Smtp { host: "localhost".into(), tls: TlsMode::StartTls, ca: pem, ..login(server.port(), "right") };
    use Step::{Connect, Delivery, Login, Resolve, Sender, Tls};
    let result = probed(&good, Some(mail(7))).await;
    assert!(result.succeeded(), "{result:#?}");
    let steps: Vec<_> = result.steps.iter().map(|step| step.step).collect();
    assert_eq!(steps, [Resolve, Connect, Tls, Login, Sender, Delivery]);
    assert!(result.steps.iter().all(|step| !step.explanation.is_empty()));
    assert_eq!(result.steps[5].reply, "250 2.0.0 Ok: queued");
    assert!(
        result.transcript.contains("> AUTH PLAIN [secret]")
            && !result.transcript.contains(&plain("right")[6..])
    );
    assert_eq!((server.seen().mails.len(), server.seen().mails[0].id()), (1, "<7@example.com>".to_owned()));
    let result = probed(&Smtp { tls: TlsMode::Implicit, port: implicit.port(), ..good.clone() }, None).await;
    let steps: Vec<_> = result.steps.iter().map(|step| step.step).collect();
    assert_eq!((result.succeeded(), &steps[..]), (true, &[Resolve, Connect, Tls, Login, Sender][..]));

    let failing = async |smtp: Smtp, step: Step, words: &str| {
        let result = probed(&smtp, Some(mail(1))).await;
        let last = result.steps.last().unwrap();
        assert!(
            !last.succeeded && last.step == step && last.explanation.contains(words),
            "{words}: {result:#?}"
        );
        assert!(result.steps.iter().rev().skip(1).all(|step| step.succeeded), "{result:#?}");
    };
    failing(Smtp { host: "no-such-host.invalid".into(), ..good.clone() }, Resolve, "has no address").await;
    failing(Smtp { port: free_port(), ..good.clone() }, Connect, "Nothing accepts connections").await;
    failing(Smtp { tls: TlsMode::Implicit, ..good.clone() }, Tls, "speaks plain text first: use STARTTLS")
        .await;
    failing(Smtp { port: implicit.port(), ..good.clone() }, Connect, "use implicit TLS").await;
    failing(Smtp { ca: String::new(), ..good.clone() }, Tls, "vouches for the certificate").await;
    failing(Smtp { host: "127.0.0.1".into(), ..good.clone() }, Tls, "is not for 127.0.0.1").await;
    failing(Smtp { password: SecretText::new("wrong"), ..good.clone() }, Login, "Authentication failed")
        .await;
    server.becomes(Kind::RefuseMail("550 5.7.60 Not permitted to send as this"));
    failing(good.clone(), Sender, "may not send from this address").await;
    server.becomes(Kind::RefuseRecipients("550 5.1.1 Unknown"));
    failing(good.clone(), Delivery, "Check the address").await;
    server.becomes(Kind::RefuseContent("554 5.7.1 Spam"));
    failing(good, Delivery, "refuses the mail itself").await;
    let plain = Hostile::start(Script::new(Kind::Healthy)).await;
    failing(Smtp { tls: TlsMode::StartTls, ..smtp(plain.port()) }, Tls, "does not offer STARTTLS").await;
}
