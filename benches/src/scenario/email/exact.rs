//! Whether every mail that was accepted arrives once, by its id, and is what was measured: signed, and of 4 KiB.

use std::time::{Duration, Instant};

use super::super::reconcile::{Reconciled, Sent};
use super::super::say;
use crate::client::connections;
use crate::error::{Error, Result};
use crate::mail::{Mailer, Mails, configure};
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::sink::Arrival;
use crate::smtp_sink::SmtpSink;
use crate::stage::Parts;

const BATCHES: usize = 20;
const BATCH: usize = 100;
/// How long all of them may take: the sink keeps each in a file.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// What a mail has on the wire at least, for the comparison with others' 4 KiB to hold.
const LEAST_SIZE: usize = 4_096;

/// Queues mails as fast as it can, and compares the ids that were answered with the Message-IDs that arrived.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let case = format!("{} by id", BATCHES * BATCH);
    say(&format!("email, {case}"));
    let sink = SmtpSink::start_keeping().await?;
    let stage = parts.stage(backend).await?;
    configure(stage.server.address(), sink.port()).await?;
    let channel = connections(stage.server.address(), 1).await?.remove(0);
    let mut mailer = Mailer::new(channel, &Mails::default())?;

    let mut sent = Vec::new();
    for _ in 0..BATCHES {
        let at = Instant::now();
        let ids = mailer.queue(BATCH).await?;
        let acknowledged = Instant::now();
        sent.extend(ids.into_iter().map(|event| Sent { event, at, acknowledged }));
    }
    sink.drained(sent.len() as u64, DRAIN_LIMIT).await;
    let kept = sink.kept()?;

    let arrivals = kept.iter().map(|message| {
        // Of no message is it known when it came, and only that it came is asked.
        Arrival { event: id(message).unwrap_or_default().to_owned(), endpoint: 0, at: Instant::now() }
    });
    let found = Reconciled::new(&sent, &arrivals.collect::<Vec<_>>(), 1);
    let mut figures = found.faults().to_vec();
    figures.push(Figure::median("KiB each", size(&kept) as f64 / 1_024.0));
    report.add("email", &case, backend.name(), &figures);
    stage.stop().await?;
    sink.stop().await;
    check(&kept)
}

/// What the measurement is not worth anything without.
fn check(kept: &[String]) -> Result<()> {
    let unsigned = kept.iter().filter(|message| header(message, "DKIM-Signature").is_none()).count();
    if unsigned > 0 {
        return Err(format!("{unsigned} of {} mails are not signed", kept.len()).into());
    }
    let size = size(kept);
    if size < LEAST_SIZE {
        return Err(Error::from(format!("a mail has {size} bytes, and {LEAST_SIZE} are measured elsewhere")));
    }
    Ok(())
}

/// The bytes that a message has on average, what the sink added not counted.
fn size(kept: &[String]) -> usize {
    let bytes = |message: &String| {
        // The sink's own lines end with its `Received` of three lines; it keeps a line's end as one character.
        let own = message.split_once("Received: from").map_or("", |(_, rest)| rest);
        let lines = own.splitn(4, '\n').nth(3).unwrap_or_default();
        lines.len() + lines.matches('\n').count()
    };
    kept.iter().map(bytes).sum::<usize>() / kept.len().max(1)
}

/// The mail's id: what is before the `@` of the Message-ID.
fn id(message: &str) -> Option<&str> {
    header(message, "Message-ID")?.trim().strip_prefix('<')?.split_once('@').map(|(id, _)| id)
}

/// The first line of a header field.
fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\n\n").next()?;
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "X-Client-Addr: 127.0.0.1\nX-Rcpt-Args: <a@example.net>\nReceived: from vm ([127.0.0.1])\n\
        \tby smtp-sink (smtp-sink) with SMTP id 3dd0ba0a;\n\tWed, 25 Nov 2026 02:56:36 +0000 (UTC)\n\
        From: a@example.com\nMessage-Id: <em_1@example.com>\n\nHello\nMessage-ID: <em_2@example.com>\n";

    #[test]
    fn a_message_is_taken_apart() {
        assert_eq!(id(KEPT), Some("em_1"));
        assert_eq!(header(KEPT, "DKIM-Signature"), None);
        let wire = "From: a@example.com\r\nMessage-Id: <em_1@example.com>\r\n\r\nHello\r\n\
            Message-ID: <em_2@example.com>\r\n";
        assert_eq!(size(&[KEPT.to_owned()]), wire.len());
        assert!(check(&[KEPT.to_owned()]).unwrap_err().to_string().contains("1 of 1"));
    }
}
