//! Verification for host applications: whether a key may do something, and if not, why not.
//!
//! The order is part of the contract: the secret, then what became of the key, the address, the scopes, the rate limits, the
//! credits.  Nothing but the first is told to somebody who does not have the whole key.

pub mod http;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::credits::lease::CreditState;
use super::limit::LimitState;
use super::service::ApiKeyService;
use super::usage::{Call, endpoint};
use super::verifier::Record;
use crate::clock::{Stopwatch, Timestamp};
use crate::error::{Result, Violations};
use crate::scope;
use crate::secret::SecretText;

/// The most verifications in one call.
pub const BATCH_LIMIT: usize = 100;
const SCOPE_LIMIT: usize = 100;
const LIMIT_NAMES: usize = 10;
const COST_LIMIT: i64 = 1_000_000;
const METHOD_LIMIT: usize = 32;
const PATH_LIMIT: usize = 2_048;

/// What is asked of a key.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// The key.
    pub key: SecretText,
    /// The scopes that it must have.
    pub all_of: Vec<String>,
    /// The scopes of which it must have one; none means that none is needed.
    pub any_of: Vec<String>,
    /// What the use costs; `None` means one.
    pub cost: Option<i64>,
    /// The rate limits that it counts against; none means all.
    pub rate_limits: Vec<String>,
    /// What it is used for: the method.
    pub method: String,
    /// And the path.
    pub path: String,
    /// Where it is used from; empty when that is not known.
    pub client_ip: String,
}

/// What is said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub enum Code {
    Valid,
    Invalid,
    Revoked,
    Expired,
    Disabled,
    IpNotAllowed,
    ScopeMissing,
    RateLimited,
    CreditsExhausted,
}

impl Code {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Disabled => "DISABLED",
            Self::IpNotAllowed => "IP_NOT_ALLOWED",
            Self::ScopeMissing => "SCOPE_MISSING",
            Self::RateLimited => "RATE_LIMITED",
            Self::CreditsExhausted => "CREDITS_EXHAUSTED",
        }
    }

    /// The HTTP status (RFC 9110; RFC 6585 for 429) that says the same.
    pub fn status(self) -> u16 {
        match self {
            Self::Valid => 200,
            Self::Invalid | Self::Revoked | Self::Expired | Self::Disabled => 401,
            Self::IpNotAllowed | Self::ScopeMissing => 403,
            Self::RateLimited | Self::CreditsExhausted => 429,
        }
    }
}

/// What was found of a key.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// In one word.
    pub code: Code,
    /// The key, when the secret is right.
    pub record: Option<Arc<Record>>,
    /// The scopes that it lacks.
    pub missing: Vec<String>,
    /// How it stands with its rate limits.
    pub limits: Vec<LimitState>,
    /// How it stands with its credits.
    pub credits: Option<CreditState>,
    /// When another try may help.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    fn new(code: Code, record: Option<Arc<Record>>) -> Self {
        let (missing, limits) = (Vec::new(), Vec::new());
        Self { code, record, missing, limits, credits: None, retry_after: None }
    }
}

/// A verification that was checked.
pub(super) struct Checked {
    cost: i64,
    address: Option<IpAddr>,
}

impl ApiKeyService {
    /// Verifies a key.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a question that is none; `UNAVAILABLE` when the database is needed and away.
    pub async fn verify(&self, verification: &Verification) -> Result<Verdict> {
        let mut violations = Violations::default();
        let checked = verification.check(&mut violations);
        violations.finish()?;
        self.judge(verification, &checked).await
    }

    /// Verifies keys, each for itself.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, under `requests[i]`, when any question is none: no key is used then.
    pub async fn verify_batch(&self, verifications: &[Verification]) -> Result<Vec<Verdict>> {
        let mut violations = Violations::default();
        let fits = (1..=BATCH_LIMIT).contains(&verifications.len());
        violations.require(fits, "requests", "must have 1 to 100 entries");
        violations.finish()?;
        let mut checked = Vec::with_capacity(verifications.len());
        let mut found = Violations::default();
        for (index, verification) in verifications.iter().enumerate() {
            let mut violations = Violations::default();
            checked.push(verification.check(&mut violations));
            if let Err(error) = violations.finish() {
                for violation in error.within(&format!("requests[{index}]")).violations() {
                    found.add(violation.field.clone(), violation.description.clone());
                }
            }
        }
        found.finish()?;
        let mut verdicts = Vec::with_capacity(verifications.len());
        for (verification, checked) in verifications.iter().zip(&checked) {
            verdicts.push(self.judge(verification, checked).await?);
        }
        Ok(verdicts)
    }

    async fn judge(&self, verification: &Verification, checked: &Checked) -> Result<Verdict> {
        let began = Stopwatch::start();
        let text = verification.key.reveal();
        // Most keys are in memory, and there is nothing to wait for.
        let found = match self.verifier.look_at(text, &began) {
            Some(found) => found,
            None => self.verifier.find(text).await?,
        };
        let Some(record) = found else {
            return Ok(Verdict::new(Code::Invalid, None));
        };
        let now = self.clock.now();
        let mut verdict = Verdict::new(standing(&record, verification, checked.address, now), None);
        match verdict.code {
            Code::Valid => self.use_up(&record, verification, checked.cost, now, &mut verdict).await?,
            Code::ScopeMissing => verdict.missing = missing(&record, verification),
            _ => {}
        }
        let code = verdict.code;
        self.usage.note(&Call {
            key_id: &record.principal.key_id,
            method: &verification.method,
            path: &verification.path,
            endpoint: endpoint::of(&verification.path),
            status: code.status(),
            code: code.name(),
            address: checked.address,
            duration: began.elapsed(),
            at: now,
        });
        verdict.record = Some(record);
        Ok(verdict)
    }

    async fn use_up(
        &self,
        record: &Record,
        verification: &Verification,
        cost: i64,
        now: Timestamp,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let Some(bounds) = record.bounds() else { return Ok(()) };
        let (admitted, limits) = bounds.limits.take(&verification.rate_limits, cost, self.clock.steady());
        verdict.limits = limits;
        if !admitted {
            verdict.code = Code::RateLimited;
            // The longest wait counts, and one that never ends is none.
            let waits: Option<Vec<Duration>> = verdict.limits.iter().map(|limit| limit.retry_after).collect();
            verdict.retry_after = waits.and_then(|waits| waits.into_iter().max());
            return Ok(());
        }
        if let Some(lease) = &bounds.lease {
            let state = lease.take(&self.db, cost, now).await?;
            if !state.enough {
                verdict.code = Code::CreditsExhausted;
                verdict.retry_after = state.refill_at.map(|at| at.since(now));
            }
            verdict.credits = Some(state);
        }
        Ok(())
    }
}

fn standing(record: &Record, verification: &Verification, address: Option<IpAddr>, now: Timestamp) -> Code {
    if record.revoked {
        Code::Revoked
    } else if record.expires_at <= now {
        Code::Expired
    } else if record.disabled {
        Code::Disabled
    } else if !record.admits(address) {
        Code::IpNotAllowed
    } else if !has_scopes(record, verification) {
        Code::ScopeMissing
    } else {
        Code::Valid
    }
}

fn has_scopes(record: &Record, verification: &Verification) -> bool {
    let has = |needed: &String| scope::any_covers(&record.principal.scopes, needed);
    verification.all_of.iter().all(has)
        && (verification.any_of.is_empty() || verification.any_of.iter().any(has))
}

fn missing(record: &Record, verification: &Verification) -> Vec<String> {
    let has = |needed: &String| scope::any_covers(&record.principal.scopes, needed);
    let mut missing: Vec<_> = verification.all_of.iter().filter(|needed| !has(needed)).cloned().collect();
    if !verification.any_of.iter().any(has) {
        missing.extend(verification.any_of.iter().cloned());
    }
    missing
}

impl Verification {
    pub(super) fn check(&self, violations: &mut Violations) -> Checked {
        for (field, scopes) in [("all_of", &self.all_of), ("any_of", &self.any_of)] {
            violations.require(scopes.len() <= SCOPE_LIMIT, field, "must have at most 100 entries");
            for (index, one) in scopes.iter().enumerate() {
                if let Err(reason) = scope::check(one) {
                    violations.add(format!("{field}[{index}]"), reason);
                }
            }
        }
        let cost = self.cost.unwrap_or(1);
        violations.require((0..=COST_LIMIT).contains(&cost), "cost", "must be 0 to 1000000");
        let few = self.rate_limits.len() <= LIMIT_NAMES;
        violations.require(few, "rate_limits", "must have at most 10 entries");
        let plain = |text: &str, limit| text.len() <= limit && !text.chars().any(char::is_control);
        violations.require(
            plain(&self.method, METHOD_LIMIT),
            "method",
            "must have at most 32 bytes, without control characters",
        );
        violations.require(
            plain(&self.path, PATH_LIMIT),
            "path",
            "must have at most 2048 bytes, without control characters",
        );
        let address = self.client_ip.parse().ok();
        let known = self.client_ip.is_empty() || address.is_some();
        violations.require(known, "client_ip", "must be an address of IPv4 or IPv6, or empty");
        Checked { cost, address }
    }
}
