//! The mail queue: batches, schedules, limits, cancel, retry, counts, files.

use std::time::Duration;

use serde_json::json;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::batch_send_emails_result::Result as Sent;
use switchboard_client::email::v1::{
    BatchMode, BatchSendEmailsRequest, BatchSendEmailsResult, CancelEmailRequest, Email, EmailAttachment,
    EmailPriority, GetEmailStatsRequest, GetEmailStatsResponse, ListEmailsRequest, RetryEmailRequest,
    RetryFailedEmailsRequest, SendEmailRequest,
};
use tonic::{Code, Status};

use crate::emails::{Read, get, list, raw, send, send_to, templated, try_send, wait};
use crate::harness::server::Server;
use crate::harness::smtp::SmtpSink;
use crate::harness::tools::free_port;
use crate::harness::{SOON, eventually, on_both, status};
use crate::settings::set;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A time of the server's clock, from now.
fn ahead(server: &Server, by: Duration) -> Option<prost_types::Timestamp> {
    use switchboard::clock::Clock;
    let at = server.clock.now() + by;
    Some(prost_types::Timestamp { seconds: at.seconds(), nanos: at.nanos_of_second() })
}

async fn batch(
    server: &Server,
    emails: Vec<SendEmailRequest>,
    mode: BatchMode,
) -> Result<Vec<BatchSendEmailsResult>, Status> {
    let request = BatchSendEmailsRequest { emails, mode: mode.into() };
    Ok(server.client.emails().batch_send_emails(request).await?.into_inner().results)
}

fn ids(results: &[BatchSendEmailsResult]) -> Vec<String> {
    let id = |result: &BatchSendEmailsResult| match result.result.as_ref().unwrap() {
        Sent::Sent(sent) => sent.email_id.clone(),
        Sent::Refused(refused) => panic!("refused: {refused:?}"),
    };
    results.iter().map(id).collect()
}

async fn cancel(server: &Server, email_id: &str) -> Result<Email, Status> {
    let request = CancelEmailRequest { email_id: email_id.into() };
    Ok(server.client.emails().cancel_email(request).await?.into_inner().email.unwrap())
}

async fn retry(server: &Server, email_id: &str) -> Result<Email, Status> {
    let request = RetryEmailRequest { email_id: email_id.into() };
    Ok(server.client.emails().retry_email(request).await?.into_inner().email.unwrap())
}

async fn stats(server: &Server) -> GetEmailStatsResponse {
    server.client.emails().get_email_stats(GetEmailStatsRequest::default()).await.unwrap().into_inner()
}

fn count(stats: &GetEmailStatsResponse, state: DeliveryState) -> i64 {
    stats.counts.iter().find(|count| count.state() == state).map_or(0, |count| count.count)
}

/// The one state of all the mails, once they are all in it.
async fn all_in(server: &Server, state: DeliveryState, number: usize) -> Vec<Email> {
    eventually(&format!("{number} mails are {state:?}"), async || {
        let request = ListEmailsRequest { states: vec![state.into()], page_size: 500, ..Default::default() };
        let found = list(server, request).await;
        (found.len() == number).then_some(found)
    })
    .await
}

on_both! {
    async fn a_batch_is_queued_in_order_and_each_gets_its_own(server: Server) {
        let emails: Vec<_> = (0..500)
            .map(|n| templated(&format!("jo{n}@example.com"), "welcome", &json!({"user_name": format!("Jo {n}")})))
            .collect();
        let queued = ids(&batch(&server, emails.clone(), BatchMode::Strict).await.unwrap());
        assert_eq!(queued.len(), 500);
        assert!(queued.is_sorted(), "ids are in the order of the batch");
        let (email, got) = wait(&server, &queued[377], DeliveryState::Succeeded, 1).await;
        assert_eq!(email.to, ["jo377@example.com"]);
        assert!(got.plain_body.contains("Jo 377"), "{}", got.plain_body);
        let recipients = got.recipients.iter().map(|r| (r.address.as_str(), r.state())).collect::<Vec<_>>();
        assert_eq!(recipients, [("jo377@example.com", DeliveryState::Succeeded)]);

        let too_many = [emails, vec![raw("one@example.com", "more")]].concat();
        status::expect_violations(&batch(&server, too_many, BatchMode::Strict).await.unwrap_err(), &["emails"]);
        status::expect_violations(&batch(&server, vec![], BatchMode::Permissive).await.unwrap_err(), &["emails"]);
    }

    async fn a_bad_mail_refuses_a_strict_batch_and_only_itself_in_a_permissive_one(server: Server) {
        let bad = SendEmailRequest { cc: vec!["nobody".into()], ..raw("jo@example.com", "") };
        let emails = vec![raw("one@example.com", "One"), bad, raw("two@example.com", "Two")];
        let refused = batch(&server, emails.clone(), BatchMode::Strict).await.unwrap_err();
        status::expect_violations(&refused, &["emails[1].cc[0]", "emails[1].subject"]);
        assert_eq!(list(&server, ListEmailsRequest::default()).await, [], "nothing is queued");

        let results = batch(&server, emails, BatchMode::Permissive).await.unwrap();
        let Some(Sent::Refused(refused)) = &results[1].result else { panic!("{results:?}") };
        assert_eq!(refused.reason, "FIELD_INVALID");
        let fields: Vec<_> = refused.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["cc[0]", "subject"]);
        assert_eq!(ids(&[results[0].clone(), results[2].clone()]).len(), 2);
        all_in(&server, DeliveryState::Succeeded, 2).await;
    }

    async fn a_batch_can_be_repeated(server: Server) {
        let with_id = |to: &str, request_id: &str| SendEmailRequest { request_id: request_id.into(), ..raw(to, "Once") };
        let emails = vec![with_id("one@example.com", "a"), with_id("two@example.com", "b")];
        let first = ids(&batch(&server, emails.clone(), BatchMode::Strict).await.unwrap());
        let again = batch(&server, emails.clone(), BatchMode::Strict).await.unwrap();
        assert_eq!(ids(&again), first);
        assert!(again.iter().all(|r| matches!(&r.result, Some(Sent::Sent(sent)) if sent.replayed)));

        let reused = vec![with_id("three@example.com", "c"), with_id("other@example.com", "b")];
        let refused = batch(&server, reused.clone(), BatchMode::Strict).await.unwrap_err();
        status::expect(&refused, Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(list(&server, ListEmailsRequest::default()).await.len(), 2, "none of them is queued");
        let results = batch(&server, reused, BatchMode::Permissive).await.unwrap();
        assert!(matches!(&results[0].result, Some(Sent::Sent(sent)) if !sent.replayed));
        assert!(matches!(&results[1].result, Some(Sent::Refused(refused)) if refused.reason == "REQUEST_ID_REUSED"));

        let twice = vec![with_id("one@example.com", "d"), with_id("two@example.com", "d")];
        let refused = batch(&server, twice, BatchMode::Strict).await.unwrap_err();
        status::expect_violations(&refused, &["emails[1].request_id"]);
    }

    async fn a_mail_waits_for_its_time_and_can_be_cancelled_until_then(server: Server) {
        let later = SendEmailRequest { send_time: ahead(&server, HOUR), ..raw("jo@example.com", "Later") };
        let (kept, withdrawn) = (send(&server, later.clone()).await, send(&server, later).await);
        let (email, _) = wait(&server, &kept, DeliveryState::Scheduled, 0).await;
        assert_eq!(email.next_attempt_time, ahead(&server, HOUR));

        assert_eq!(cancel(&server, &withdrawn).await.unwrap().state(), DeliveryState::Cancelled);
        assert_eq!(cancel(&server, &withdrawn).await.unwrap().state(), DeliveryState::Cancelled, "again is as good");
        server.advance(HOUR);
        wait(&server, &kept, DeliveryState::Succeeded, 1).await;
        let late = cancel(&server, &kept).await.unwrap_err();
        status::expect(&late, Code::FailedPrecondition, "TOO_LATE");
        assert!(late.message().contains("sent"), "{late:?}");
        status::expect(&cancel(&server, "em_none").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        assert_eq!(get(&server, &withdrawn).await.email.unwrap().state(), DeliveryState::Cancelled);
        assert!(get(&server, &withdrawn).await.attempts.is_empty());

        let past = SendEmailRequest { send_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }), ..raw("jo@example.com", "Past") };
        wait(&server, &send(&server, past).await, DeliveryState::Succeeded, 1).await;
        let far = SendEmailRequest { send_time: ahead(&server, 9_000 * HOUR), ..raw("jo@example.com", "Far") };
        status::expect_violations(&try_send(&server, far).await.unwrap_err(), &["send_time"]);
    }

    async fn a_stale_mail_is_cancelled_instead_of_sent(server: Server) {
        let code = SendEmailRequest {
            send_time: ahead(&server, HOUR),
            expire_time: ahead(&server, HOUR + Duration::from_secs(60)),
            ..raw("jo@example.com", "Your code")
        };
        let email_id = send(&server, code).await;
        server.advance(2 * HOUR);
        let (email, got) = wait(&server, &email_id, DeliveryState::Cancelled, 0).await;
        assert!(email.last_error.contains("stale"), "{email:?}");
        assert!(got.attempts.is_empty());
        let never = SendEmailRequest { expire_time: ahead(&server, Duration::ZERO), ..raw("jo@example.com", "Never") };
        status::expect_violations(&try_send(&server, never).await.unwrap_err(), &["expire_time"]);
    }

    async fn mail_over_the_hourly_limit_is_held_and_none_is_lost(server: Server) {
        let sink = SmtpSink::start().await;
        set(&server.client, json!({"email.hourly_limit": 10})).await;
        send_to(&server, sink.port()).await;
        let bulk = |n: usize| SendEmailRequest { priority: EmailPriority::Bulk.into(), ..raw(&format!("b{n}@example.com"), "Bulk") };
        let sent = batch(&server, (0..30).map(bulk).collect(), BatchMode::Strict).await.unwrap();
        let (first, held) = (ids(&sent[..9]), ids(&sent[9..]));
        // A tenth of the limit is kept for what somebody waits for.
        sink.wait_for(9, SOON).await;
        all_in(&server, DeliveryState::Held, 21).await;
        for email_id in &first {
            wait(&server, email_id, DeliveryState::Succeeded, 1).await;
        }
        let (email, got) = wait(&server, &held[0], DeliveryState::Held, 0).await;
        assert!(email.last_error.contains("10 mails an hour"), "{email:?}");
        assert!(got.attempts.is_empty(), "waiting is no attempt");
        let urgent = send(&server, raw("now@example.com", "Reset")).await;
        wait(&server, &urgent, DeliveryState::Succeeded, 1).await;
        let more = send(&server, raw("later@example.com", "Reset")).await;
        wait(&server, &more, DeliveryState::Held, 0).await;
        let now = stats(&server).await;
        assert_eq!((count(&now, DeliveryState::Held), count(&now, DeliveryState::Succeeded), now.total), (22, 10, 32));
        assert!(now.holds.iter().any(|hold| hold.description.contains("10 mails an hour")), "{now:?}");
        assert!(now.oldest_due_time.is_some());

        // The next hour: first what somebody waits for, then the oldest.
        server.advance(HOUR);
        wait(&server, &more, DeliveryState::Succeeded, 1).await;
        wait(&server, &held[7], DeliveryState::Succeeded, 1).await;
        all_in(&server, DeliveryState::Held, 13).await;
        // A higher limit has effect at once.
        set(&server.client, json!({"email.hourly_limit": 0})).await;
        all_in(&server, DeliveryState::Succeeded, 32).await;
        assert_eq!(sink.wait_for(32, SOON).await.len(), 32);
    }

    async fn a_domain_has_a_limit_of_its_own(server: Server) {
        let sink = SmtpSink::start().await;
        set(&server.client, json!({"email.domain_limits": "slow.example=2"})).await;
        send_to(&server, sink.port()).await;
        let emails = (0..5).map(|n| raw(&format!("a{n}@slow.example"), "Slow")).chain([raw("b@fast.example", "Fast")]);
        let sent = ids(&batch(&server, emails.collect(), BatchMode::Strict).await.unwrap());
        wait(&server, &sent[5], DeliveryState::Succeeded, 1).await;
        let held = all_in(&server, DeliveryState::Held, 3).await;
        assert!(held[0].last_error.contains("slow.example") && held[0].next_attempt_time.is_some(), "{held:?}");
        server.advance(HOUR);
        all_in(&server, DeliveryState::Succeeded, 5).await;
        server.advance(HOUR);
        all_in(&server, DeliveryState::Succeeded, 6).await;
        status::expect_violations(
            &crate::settings::try_set(&server.client, crate::settings::change(&json!({"email.domain_limits": "slow"}))).await.unwrap_err(),
            &["values[email.domain_limits]"],
        );
    }

    async fn failed_mails_are_tried_again_one_or_all(server: Server) {
        let refusing = SmtpSink::start_with(&["-f", "RCPT"]).await;
        send_to(&server, refusing.port()).await;
        let mut failed = Vec::new();
        for n in 0..4 {
            failed.push(send(&server, raw(&format!("jo{n}@example.com"), "Again")).await);
        }
        let waiting = send(&server, SendEmailRequest { send_time: ahead(&server, HOUR), ..raw("x@example.com", "Later") }).await;
        all_in(&server, DeliveryState::Failed, 4).await;
        status::expect(&retry(&server, &waiting).await.unwrap_err(), Code::FailedPrecondition, "NOT_RETRYABLE");

        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        retry(&server, &failed[0]).await.unwrap();
        let (_, got) = wait(&server, &failed[0], DeliveryState::Succeeded, 2).await;
        assert_eq!(got.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
        assert!(!got.attempts[0].error.is_empty() && got.attempts[1].error.is_empty());
        status::expect(&retry(&server, &failed[0]).await.unwrap_err(), Code::FailedPrecondition, "NOT_RETRYABLE");

        let none = RetryFailedEmailsRequest { created_after: ahead(&server, HOUR), ..Default::default() };
        let all = RetryFailedEmailsRequest { created_after: Some(prost_types::Timestamp::default()), ..Default::default() };
        let mut client = server.client.emails();
        assert_eq!(client.retry_failed_emails(none).await.unwrap().into_inner().count, 0);
        assert_eq!(client.retry_failed_emails(all.clone()).await.unwrap().into_inner().count, 3);
        all_in(&server, DeliveryState::Succeeded, 4).await;
        assert_eq!(client.retry_failed_emails(all).await.unwrap().into_inner().count, 0);
        assert_eq!(sink.wait_for(4, SOON).await.len(), 4);
        let missing = client.retry_failed_emails(RetryFailedEmailsRequest::default()).await.unwrap_err();
        status::expect_violations(&missing, &["created_after"]);
    }

    async fn a_mail_that_is_tried_again_gets_its_whole_schedule(server: Server) {
        send_to(&server, free_port()).await;
        let email_id = send(&server, raw("jo@example.com", "Stubborn")).await;
        wait(&server, &email_id, DeliveryState::Retrying, 1).await;
        cancel(&server, &email_id).await.unwrap();
        retry(&server, &email_id).await.unwrap();
        let (email, _) = wait(&server, &email_id, DeliveryState::Retrying, 2).await;
        let due = email.next_attempt_time.unwrap().seconds - ahead(&server, Duration::ZERO).unwrap().seconds;
        assert!((29..=34).contains(&due), "the first wait of the schedule, not the second: {due} s");
    }

    async fn mails_are_found_by_recipient(server: Server) {
        let to_both = SendEmailRequest { cc: vec!["Sam <SAM@example.com>".into()], ..raw("jo@example.com", "Both") };
        let both = send(&server, to_both).await;
        send(&server, raw("jo@example.com", "One")).await;
        let find = |recipient: &str| ListEmailsRequest { recipient: recipient.into(), ..Default::default() };
        let found = list(&server, find("sam@EXAMPLE.com")).await;
        assert_eq!(found.iter().map(|email| email.id.as_str()).collect::<Vec<_>>(), [both]);
        assert_eq!(list(&server, find("jo@example.com")).await.len(), 2);
        assert_eq!(list(&server, find("nobody@example.com")).await, []);
        let bad = server.client.emails().list_emails(find("nobody")).await.unwrap_err();
        status::expect_violations(&bad, &["recipient"]);
    }

    async fn an_address_gets_a_mail_once(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        let twice = SendEmailRequest {
            to: vec!["jo@example.com".into(), "Jo <JO@Example.com>".into()],
            cc: vec!["jo@EXAMPLE.com".into(), "sam@example.com".into()],
            bcc: vec!["sam@example.com".into()],
            ..raw("", "Once")
        };
        let email_id = send(&server, twice).await;
        let (email, got) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert_eq!((email.to, email.cc, email.bcc.len()), (vec!["jo@example.com".to_owned()], vec!["sam@example.com".to_owned()], 0));
        assert_eq!(got.recipients.len(), 2);
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(mail.rcpt_to, ["<jo@example.com>", "<sam@example.com>"]);
    }

    async fn files_and_pictures_arrive_whole(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let file = |filename: &str, content_type: &str, content_id: &str, content: &[u8]| EmailAttachment {
            filename: filename.into(),
            content_type: content_type.into(),
            content: content.to_vec(),
            content_id: content_id.into(),
            size: 0,
        };
        let request = SendEmailRequest {
            html_body: r#"<p>See <img src="cid:logo"></p>"#.into(),
            attachments: vec![
                file("logo.png", "image/png", "logo", b"picture"),
                file("Übersicht 2026.pdf", "application/pdf", "", &bytes),
                file("same.bin", "", "", &bytes),
            ],
            headers: [("X-Ticket".to_owned(), "Störung 42".to_owned())].into(),
            preheader: "What this is about".into(),
            ..raw("jo@example.com", "Files")
        };
        let email_id = send(&server, request).await;
        let (email, _) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        let sizes: Vec<_> = email.attachments.iter().map(|file| (file.size, file.content.len())).collect();
        assert_eq!(sizes, [(7, 0), (300_000, 0), (300_000, 0)]);
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        let read = Read::of(&mail).await;
        assert_eq!(read.0["defects"], json!([]));
        assert_eq!(read.header("X-Ticket"), "Störung 42");
        let parts: Vec<_> = read.0["parts"].as_array().unwrap().iter().map(|part| part["type"].as_str().unwrap()).collect();
        assert_eq!(parts, ["text/plain", "text/html", "image/png", "application/pdf", "application/octet-stream"]);
        let digests: Vec<_> = read.0["parts"].as_array().unwrap().iter().filter_map(|part| part["sha256"].as_str()).collect();
        assert_eq!(digests.len(), 3);
        assert_eq!(digests[1], digests[2], "the same bytes under two names");
        assert_eq!(digests[1], "5576a58a474142a55f619be58eea2c14d7d7937cb99d5ef600a704fcde5ddbd8");
        assert!(read.part("text/html").contains("What this is about"), "{}", read.part("text/html"));

        let huge = SendEmailRequest {
            attachments: vec![file("huge.bin", "", "", &vec![0; 20 * 1024 * 1024])],
            ..raw("jo@example.com", "Huge")
        };
        let refused = try_send(&server, huge).await.unwrap_err();
        status::expect_violations(&refused, &["attachments"]);
    }

    async fn a_mail_with_large_bodies_arrives_whole(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        let text = "A line of text that is repeated.\n".repeat(20_000);
        let email_id = send(&server, SendEmailRequest { plain_body: text.clone(), ..raw("jo@example.com", "Large") }).await;
        wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert_eq!(Read::of(&mail).await.part("text/plain").trim_end(), text.trim_end());
    }
}
