//! What a transport's report means for a mail and for each of its recipients.

mod store;

use std::time::Duration;

use super::address;
use super::transport::{Report, Verdict};
use crate::clock::Timestamp;
use crate::delivery::{Attempt, Outcome, State};

/// What the server said about one recipient, when it is not what it said about the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    /// The address, as it is compared.
    pub address: String,
    /// Where the mail stands with it.
    pub state: State,
    /// What was said.
    pub reply: String,
    /// The reply's code.
    pub code: Option<u16>,
}

/// What is written with a mail's result: the recipients that the server answered for, and addresses that do not exist.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settlements {
    pub email_id: String,
    pub recipients: Vec<Settlement>,
    /// Addresses that are bad, with what the server said.
    pub bad: Vec<(String, String)>,
    pub now: Timestamp,
}

/// What a report means for the mail.  `delivered_before` says whether somebody has the mail from an earlier attempt.
pub(super) fn judge(
    email_id: &str,
    to: &[String],
    report: Report,
    delivered_before: bool,
    now: Timestamp,
) -> Attempt {
    let verdicts = &report.recipients;
    let outcome = outcome(verdicts, delivered_before, now);
    let mut settlements = Settlements { email_id: email_id.to_owned(), now, ..Settlements::default() };
    let alike = verdicts.iter().all(|verdict| rank(verdict) == rank(&verdicts[0])) && !delivered_before;
    for (address, verdict) in to.iter().zip(verdicts) {
        let key = address::suppression_key(address).unwrap_or_else(|| address.to_ascii_lowercase());
        if let Verdict::Refused { reply, bad_address: true, .. } = verdict {
            settlements.bad.push((key.clone(), reply.clone()));
        }
        // Where all stand alike, they stand where the mail stands.
        if !alike && let Some((state, reply, code)) = settled(verdict) {
            settlements.recipients.push(Settlement { address: key, state, reply, code });
        }
    }
    let all_have_it = verdicts.iter().all(|verdict| *verdict == Verdict::Accepted);
    let error = if alike { report.summary.clone() } else { missed(to, verdicts) };
    let something = !settlements.recipients.is_empty() || !settlements.bad.is_empty();
    Attempt {
        outcome,
        response_status: report.code.map(i32::from),
        error: (!all_have_it).then_some(error),
        // What was said, if it came to that.
        response_body: report.code.map(|_| report.summary),
        transcript: report.transcript,
        details: None,
        effect: something.then(|| Box::new(settlements) as _),
    }
}

fn outcome(verdicts: &[Verdict], delivered_before: bool, now: Timestamp) -> Outcome {
    let held = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Held { retry_in, .. } => Some(*retry_in),
        _ => None,
    });
    if let Some(retry_in) = held.clone().min().filter(|_| held.count() == verdicts.len()) {
        return Outcome::Held { until: now + retry_in };
    }
    let any = |wanted: fn(&Verdict) -> bool| verdicts.iter().any(wanted);
    if any(|verdict| matches!(verdict, Verdict::Deferred { .. } | Verdict::Held { .. })) {
        let after = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Deferred { after, .. } => *after,
            _ => None,
        });
        return Outcome::Retry { after: after.max().filter(|after| *after > Duration::ZERO) };
    }
    if any(|verdict| matches!(verdict, Verdict::Unknown { .. })) {
        return Outcome::Unknown;
    }
    if delivered_before || any(|verdict| *verdict == Verdict::Accepted) {
        return Outcome::Succeeded;
    }
    Outcome::Refused
}

/// Who does not have the mail, and why: the first few.
fn missed(to: &[String], verdicts: &[Verdict]) -> String {
    const SHOWN: usize = 3;
    let why = |(address, verdict): (&String, &Verdict)| match verdict {
        Verdict::Accepted => None,
        Verdict::Deferred { reply, .. } | Verdict::Refused { reply, .. } => {
            Some(format!("{address}: {reply}"))
        }
        Verdict::Unknown { error } => Some(format!("{address}: {error}")),
        Verdict::Held { why, .. } => Some(format!("{address}: {why}")),
    };
    let missed: Vec<String> = to.iter().zip(verdicts).filter_map(why).collect();
    let more =
        if missed.len() > SHOWN { format!("; and {} more", missed.len() - SHOWN) } else { String::new() };
    missed[..missed.len().min(SHOWN)].join("; ") + &more
}

fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::Deferred { .. } => 1,
        Verdict::Refused { .. } => 2,
        Verdict::Unknown { .. } => 3,
        Verdict::Held { .. } => 4,
    }
}

/// Where a recipient stands for good; `None` for one that is tried again.
fn settled(verdict: &Verdict) -> Option<(State, String, Option<u16>)> {
    match verdict {
        Verdict::Accepted => Some((State::Succeeded, String::new(), None)),
        Verdict::Refused { reply, code, .. } => Some((State::Failed, reply.clone(), Some(*code))),
        Verdict::Unknown { error } => Some((State::Unknown, error.clone(), None)),
        Verdict::Deferred { .. } | Verdict::Held { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn deferred(after: Option<u64>) -> Verdict {
        Verdict::Deferred { reply: "451 later".into(), after: after.map(Duration::from_secs) }
    }

    fn refused() -> Verdict {
        Verdict::Refused { reply: "550 5.1.1 no".into(), code: 550, bad_address: true }
    }

    fn held() -> Verdict {
        Verdict::Held { why: "paused".into(), retry_in: Duration::from_secs(9) }
    }

    fn unknown() -> Verdict {
        Verdict::Unknown { error: "gone".into() }
    }

    #[test]
    fn the_mail_stands_where_its_least_settled_recipient_stands() {
        use Outcome::*;
        let a = Verdict::Accepted;
        let after = |seconds| Retry { after: Some(Duration::from_secs(seconds)) };
        let cases = [
            (vec![a.clone()], Succeeded),
            (vec![a.clone(), refused()], Succeeded),
            (vec![refused(), refused()], Refused),
            (vec![a.clone(), deferred(None)], Retry { after: None }),
            (vec![refused(), deferred(Some(5)), deferred(Some(300))], after(300)),
            (vec![a.clone(), unknown()], Unknown),
            (vec![unknown(), deferred(None)], Retry { after: None }),
            (vec![held(), held()], Held { until: NOW + Duration::from_secs(9) }),
            (vec![a, held()], Retry { after: None }),
        ];
        for (verdicts, expected) in cases {
            assert_eq!(outcome(&verdicts, false, NOW), expected, "{verdicts:?}");
        }
        assert_eq!(outcome(&[refused()], true, NOW), Succeeded, "somebody has it");
    }

    #[test]
    fn recipients_are_written_only_where_they_differ_and_bad_addresses_always() {
        let report = |recipients: Vec<Verdict>| Report {
            recipients,
            summary: "said".into(),
            code: Some(250),
            transcript: None,
        };
        let to = ["Jo@example.com".to_owned(), "sam@example.com".to_owned()];
        let judged = |verdicts: Vec<Verdict>| judge("em_1", &to, report(verdicts), false, NOW);
        assert!(judged(vec![Verdict::Accepted, Verdict::Accepted]).effect.is_none());
        assert!(judged(vec![deferred(None), deferred(None)]).effect.is_none());
        let mixed = judged(vec![Verdict::Accepted, refused()]);
        assert!(mixed.effect.is_some() && mixed.error.is_some());
        assert!(judged(vec![refused(), refused()]).effect.is_some(), "two bad addresses");
    }
}
