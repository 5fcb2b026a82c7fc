//! Request ids: a repeat of a request gets the first answer, and changes nothing.
//!
//! The answer is kept in the transaction of what the request did, for 24 hours, by key and request id, with a
//! fingerprint of the request.

mod store;

pub use store::{find_postgres, find_sqlite, forget_old, keep_postgres, keep_sqlite};

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result, Violations};
use crate::failpoint;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const LIMIT: usize = 128;

/// A request that may be a repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Who asked: the API key's id.
    pub principal: String,
    /// The caller's id for it.
    pub request_id: String,
    /// What was asked.
    pub fingerprint: Vec<u8>,
}

impl RequestKey {
    /// `None` when the caller gave no request id.
    pub fn new(principal: &str, request_id: &str, method: &str, parts: &[&[u8]]) -> Option<Self> {
        if request_id.is_empty() || failpoint::bug("request_id_ignored") {
            return None;
        }
        let mut digest = Sha256::new();
        for part in [method.as_bytes()].iter().chain(parts) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let fingerprint = digest.finalize().to_vec();
        Some(Self { principal: principal.to_owned(), request_id: request_id.to_owned(), fingerprint })
    }

    /// What an earlier request with this key means for this one: its answer, or an error if it was another request.
    fn compare(&self, earlier: Option<Earlier>) -> Result<Option<String>> {
        match earlier {
            None => Ok(None),
            Some(earlier) if earlier.fingerprint == self.fingerprint => Ok(Some(earlier.result)),
            Some(_) => Err(Error::new(
                Kind::InvalidArgument,
                "REQUEST_ID_REUSED",
                "this request_id was used for another request in the last 24 hours",
            )
            .with("request_id", &self.request_id)),
        }
    }
}

/// An earlier request.
struct Earlier {
    fingerprint: Vec<u8>,
    result: String,
}

/// Checks a request id.
pub fn check_request_id(violations: &mut Violations, field: &str, request_id: &str) {
    let ok = request_id.len() <= LIMIT && request_id.chars().all(|c| !c.is_control());
    violations.require(ok, field, "must have at most 128 characters and no control characters");
}
