//! What a refusal means: a table over where it came, its code, its enhanced code and its words (RFC 3463).

use std::time::Duration;

use super::fault::Stage;
use super::reply::Reply;
use crate::email::transport::Verdict;

/// How long a greylisting server wants to be left alone.
const GREYLIST: Duration = Duration::from_secs(300);
/// How long a server that is asked too often is left alone when it does not say.
const THROTTLE: Duration = Duration::from_secs(120);
/// How long a full mailbox is left alone.
const FULL: Duration = Duration::from_secs(3600);
/// No text makes a mail wait longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Greylist,
    Throttle,
    MailboxFull,
    BadAddress,
    Transient,
    Final,
}

/// The enhanced codes of one class.
struct Rule {
    stages: &'static [Stage],
    codes: &'static [u16],
    subject: u16,
    details: &'static [u16],
    words: &'static [&'static str],
    class: Class,
}

const ANY_STAGE: &[Stage] = &[Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Content];
const RCPT: &[Stage] = &[Stage::Rcpt];
/// The words decide, whatever the enhanced code.
const ANY_SUBJECT: u16 = u16::MAX;

/// The first that fits decides.
const RULES: &[Rule] = &[
    Rule {
        stages: ANY_STAGE,
        codes: &[450, 451, 452, 421],
        subject: ANY_SUBJECT,
        details: &[],
        words: &["greylist", "graylist", "grey-list", "gray-list"],
        class: Class::Greylist,
    },
    Rule {
        stages: ANY_STAGE,
        codes: &[450, 451],
        subject: 7,
        details: &[1],
        words: &[],
        class: Class::Greylist,
    },
    Rule {
        stages: ANY_STAGE,
        codes: &[421, 450, 451, 452, 454],
        subject: 7,
        details: &[0, 28],
        words: &[],
        class: Class::Throttle,
    },
    // 552 stands for "too large" too, and only the enhanced code tells them apart.
    Rule {
        stages: ANY_STAGE,
        codes: &[450, 452, 552, 550],
        subject: 2,
        details: &[2],
        words: &[],
        class: Class::MailboxFull,
    },
    Rule {
        stages: ANY_STAGE,
        codes: &[452, 552],
        subject: 3,
        details: &[1],
        words: &[],
        class: Class::MailboxFull,
    },
    Rule {
        stages: ANY_STAGE,
        codes: &[421, 450, 451, 452, 454],
        subject: ANY_SUBJECT,
        details: &[],
        words: &[
            "rate limit",
            "rate-limit",
            "sending rate",
            "too many",
            "too fast",
            "throttl",
            "exceeded the rate",
        ],
        class: Class::Throttle,
    },
    Rule {
        stages: RCPT,
        codes: &[550, 551, 552, 553, 554, 501],
        subject: 1,
        details: &[1, 2, 3, 6, 10],
        words: &[],
        class: Class::BadAddress,
    },
    Rule {
        stages: RCPT,
        codes: &[550, 551, 553, 554],
        subject: 2,
        details: &[1],
        words: &[],
        class: Class::BadAddress,
    },
];

fn class(stage: Stage, reply: &Reply) -> Class {
    let words = reply.text.to_ascii_lowercase();
    let rule = RULES.iter().find(|rule| {
        rule.stages.contains(&stage)
            && rule.codes.contains(&reply.code)
            && (rule.subject == ANY_SUBJECT || reply.is_about(rule.subject, rule.details))
            && (rule.words.is_empty() || rule.words.iter().any(|word| words.contains(word)))
    });
    match rule {
        Some(rule) => rule.class,
        None if reply.code < 500 => Class::Transient,
        // Without an enhanced code there is nothing better than the place where it was said.
        None if stage == Stage::Rcpt && reply.enhanced.is_none() && is_about_mailbox(reply.code, &words) => {
            Class::BadAddress
        }
        None => Class::Final,
    }
}

fn is_about_mailbox(code: u16, words: &str) -> bool {
    const POLICY: &[&str] =
        &["relay", "spam", "blocked", "blacklist", "policy", "authenticat", "denied", "not allowed"];
    matches!(code, 550 | 551 | 553) && !POLICY.iter().any(|word| words.contains(word))
}

/// The verdict on those whom a refusal is about.
pub(super) fn verdict(stage: Stage, reply: &Reply) -> Verdict {
    let class = class(stage, reply);
    let deferred = |after| Verdict::Deferred { reply: reply.to_string(), after };
    let asked = asked(&reply.text);
    match class {
        Class::Greylist => deferred(Some(asked.map_or(GREYLIST, |asked| asked.max(GREYLIST)))),
        Class::Throttle => deferred(Some(asked.unwrap_or(THROTTLE))),
        Class::MailboxFull => deferred(Some(asked.map_or(FULL, |asked| asked.max(FULL)))),
        Class::Transient => deferred(asked),
        Class::BadAddress | Class::Final => Verdict::Refused {
            reply: reply.to_string(),
            code: reply.code,
            bad_address: class == Class::BadAddress,
        },
    }
}

/// When a reply that is no verdict on a message asks to be tried again.
pub(super) fn after(stage: Stage, reply: &Reply) -> Option<Duration> {
    match verdict(stage, reply) {
        Verdict::Deferred { after, .. } => after,
        _ => None,
    }
}

/// Reads "in 5 minutes", "after 300 seconds", "wait 1 hour".
fn asked(text: &str) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.windows(3).find_map(|three| {
        let &[before, number, unit] = three else { return None };
        if !matches!(before, "in" | "after" | "wait" | "least" | "for" | "within") {
            return None;
        }
        let seconds = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            _ => return None,
        };
        let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
        Some(Duration::from_secs(number.saturating_mul(seconds)).min(LONGEST))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_mean_what_the_table_says() {
        use Class::{BadAddress, Final, Greylist, MailboxFull, Throttle, Transient};
        use Stage::{Content, Data, Mail, Rcpt};
        for (stage, text, expected) in [
            (Rcpt, "450 4.7.1 Please try again later", Greylist),
            (Rcpt, "451 Greylisted, see http://example.com", Greylist),
            (Content, "451 4.7.1 Greylisting in action", Greylist),
            (Mail, "450 4.7.0 Temporarily deferred", Throttle),
            (Content, "421 4.7.28 Our system has detected an unusual rate", Throttle),
            (Rcpt, "452 4.5.3 Too many recipients", Throttle),
            (Rcpt, "450 You are sending too fast", Throttle),
            (Content, "451 4.4.2 Sending rate exceeded", Throttle),
            (Rcpt, "452 4.2.2 Mailbox full", MailboxFull),
            (Rcpt, "552 5.2.2 Over quota", MailboxFull),
            (Content, "552 5.2.2 Over quota", MailboxFull),
            (Rcpt, "452 4.3.1 Insufficient system storage", MailboxFull),
            (Rcpt, "550 5.1.1 User unknown", BadAddress),
            (Rcpt, "550 5.1.2 Bad domain", BadAddress),
            (Rcpt, "501 5.1.3 Bad syntax", BadAddress),
            (Rcpt, "551 5.1.6 Moved", BadAddress),
            (Rcpt, "550 5.1.10 Null MX", BadAddress),
            (Rcpt, "550 5.2.1 Disabled", BadAddress),
            (Rcpt, "550 No such user", BadAddress),
            (Rcpt, "551 Not here", BadAddress),
            (Rcpt, "553 Mailbox name not allowed here", Final),
            (Rcpt, "553 Bad mailbox", BadAddress),
            (Rcpt, "550 Relay access denied", Final),
            (Rcpt, "554 Transaction failed", Final),
            (Rcpt, "500 5.3.0 Error: command failed", Final),
            (Rcpt, "550 5.7.1 Blocked by policy", Final),
            (Rcpt, "550 5.7.26 Unauthenticated", Final),
            (Mail, "550 5.1.8 Bad sender", Final),
            (Mail, "550 5.1.1 Unknown", Final),
            (Mail, "553 Sender refused", Final),
            (Mail, "550 5.7.27 Sender has null MX", Final),
            (Data, "554 5.5.1 No valid recipients", Final),
            (Content, "552 5.3.4 Too large", Final),
            (Content, "550 5.1.1 Unknown, said late", Final),
            (Content, "550 Spam", Final),
            (Rcpt, "450 4.2.0 Mailbox busy", Transient),
            (Content, "451 4.3.0 Error: command failed", Transient),
            (Mail, "451 Local error", Transient),
        ] {
            let reply = Reply::read(text[..3].parse().unwrap(), text.as_bytes());
            assert_eq!(class(stage, &reply), expected, "{stage:?}: {text}");
        }
    }

    #[test]
    fn the_time_that_a_server_asks_for_is_honoured() {
        let after = |text: &str| {
            let reply = Reply::read(text[..3].parse().unwrap(), text.as_bytes());
            match verdict(Stage::Rcpt, &reply) {
                Verdict::Deferred { after, .. } => after.map(|after| after.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after("451 4.7.1 Greylisted"), Some(300));
        assert_eq!(after("451 4.7.1 Greylisted, try again in 60 seconds"), Some(300));
        assert_eq!(after("451 4.7.1 Greylisted, try again in 10 minutes"), Some(600));
        assert_eq!(after("450 4.7.28 Try again after 15 min."), Some(900));
        assert_eq!(after("450 too many messages, wait 1 hour"), Some(3600));
        assert_eq!(after("450 4.7.0 slow down"), Some(120));
        assert_eq!(after("450 4.2.0 busy"), None);
        assert_eq!(after("450 4.2.0 retry in 99999999999999999 hours"), Some(86_400));
        assert_eq!(after("450 4.2.0 queued in 0 seconds"), None);
        assert_eq!(after("452 4.2.2 full"), Some(3600));
    }

    #[test]
    fn only_a_bad_address_is_said_to_be_one() {
        let refused = |stage, text: &str| {
            let reply = Reply::read(text[..3].parse().unwrap(), text.as_bytes());
            match verdict(stage, &reply) {
                Verdict::Refused { code, bad_address, .. } => (code, bad_address),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(Stage::Rcpt, "550 5.1.1 x"), (550, true));
        assert_eq!(refused(Stage::Rcpt, "550 5.7.1 x"), (550, false));
        assert_eq!(refused(Stage::Mail, "550 x"), (550, false));
    }
}
