//! What the demo says before and after the timeline.

use std::net::SocketAddr;

use super::check::Tally;
use super::events::{LISTS, TEMPLATES};
use super::line::time;
use super::next_steps;
use super::page::{Page, Tone};

/// Says what is about to be shown, once the server runs.
pub fn opening(page: Page, server: &str, folder: &str, receiver: &str) {
    page.toned(Tone::Heading, "Switchboard demo");
    page.line("");
    page.line("  The whole job in this one process, over real sockets: an application publishes events, and");
    page.line("  each reaches a live subscriber, a webhook receiver and the people who get mail about it.");
    page.line("");
    pair(page, "server", server);
    pair(page, "database", &format!("new, in {folder}, removed at the end"));
    pair(page, "live", "one subscriber to every event");
    pair(page, "webhook", &format!("{receiver}, which checks both signatures of every request"));
    pair(page, "email", "captured: nothing leaves this machine");
    let mut name = "recipients";
    for (list, addresses) in LISTS {
        pair(page, name, &format!("{list:<16}  {addresses}"));
        name = "";
    }
    page.heading("Timeline");
}

fn pair(page: Page, name: &str, value: &str) {
    page.line(format!("  {name:<10}  {value}"));
}

/// Says what arrived, and whether that is all.  Answers whether it is.
pub fn verdict(page: Page, tallies: &[Tally]) -> bool {
    page.heading("Check");
    page.line(format!(
        "  {:<7}  {:>8}  {:>7}  {:>7}  {}",
        "channel", "expected", "arrived", "slowest", "what was checked"
    ));
    for tally in tallies {
        let slowest = if tally.slowest.is_zero() { "-".to_owned() } else { time(tally.slowest) };
        let Tally { channel, expected, arrived, .. } = tally;
        let tone = if tally.is_good() { Tone::Plain } else { Tone::Bad };
        page.toned(
            tone,
            format!("  {channel:<7}  {expected:>8}  {arrived:>7}  {slowest:>7}  {}", checked(channel)),
        );
    }
    page.line("");
    let good = tallies.iter().all(Tally::is_good);
    if good {
        page.toned(Tone::Good, "  All good: every channel got everything, once.");
    } else {
        page.toned(Tone::Bad, "  Not good:");
        for problem in tallies.iter().flat_map(|tally| &tally.problems) {
            page.line(format!("    {problem}"));
        }
    }
    good
}

fn checked(channel: &str) -> String {
    match channel {
        "live" => "each event once, in order, byte for byte".to_owned(),
        "webhook" => "each event once, both signatures, the body, its data byte for byte".to_owned(),
        "email" => format!(
            "each mail once, captured, subject, HTML and text with their variables; all {} templates",
            TEMPLATES.len()
        ),
        _ => "GetEvent says the same of every delivery".to_owned(),
    }
}

/// Says what to try while the server keeps running.
pub fn serving(page: Page, address: SocketAddr, key: &str) {
    page.heading("What to try next");
    page.line("  This server keeps running until Ctrl-C. In another terminal:");
    commands(page, address, key);
    page.line("");
    page.line("  What you publish shows up here:");
    page.line("");
}

/// Says what to try when this server is about to end.
pub fn ending(page: Page, key: &str) {
    page.heading("What to try next");
    page.line(
        "  This server ends now. To see the same and keep it running, with lines for its address and key:",
    );
    page.line("");
    page.line("    switchboard demo --keep");
    page.line("");
    page.line("  Or start one of your own, on a new folder, with the key of this demo:");
    page.line("");
    page.line(format!("    {}", next_steps::serve(key)));
    page.line("");
    page.line("  and then, in another terminal:");
    commands(page, next_steps::DEFAULT_ADDRESS, key);
}

fn commands(page: Page, address: SocketAddr, key: &str) {
    for (purpose, line) in next_steps::PURPOSES.iter().zip(super::grpcurl_lines(address, key)) {
        page.line("");
        page.line(format!("    # {purpose}"));
        page.line(format!("    {line}"));
    }
}
