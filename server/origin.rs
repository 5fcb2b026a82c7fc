//! Who and what a piece of work is done for: known for as long as the work runs, so that what records changes need not be
//! told by every use case between it and the request.

use std::net::IpAddr;

/// Who does work that nobody asked for by a request.
pub const SYSTEM: &str = "system";

/// Where a change comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The id of the key that asks for it, or [`SYSTEM`].
    pub actor: String,
    /// What the caller calls the request; empty when it says nothing.
    pub request_id: String,
    /// Why, in the words of the caller; empty when it says nothing.
    pub reason: String,
    /// Where the request comes from.
    pub address: Option<IpAddr>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { actor: SYSTEM.to_owned(), request_id: String::new(), reason: String::new(), address: None }
    }
}

tokio::task_local! {
    static CURRENT: Origin;
}

/// Does work for this origin.
pub async fn within<F: Future>(origin: Origin, work: F) -> F::Output {
    CURRENT.scope(origin, work).await
}

/// Work for a task of its own that is for whom its maker works.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(current(), work)
}

/// Whom the work is for that asks.
pub fn current() -> Origin {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_knows_whom_it_is_for_and_nobody_else_does() {
        let origin = Origin { actor: "key_1".into(), ..Origin::default() };
        let elsewhere = async { tokio::spawn(carried(async { current().actor })).await.unwrap() };
        assert_eq!(within(origin.clone(), elsewhere).await, "key_1");
        assert_eq!(within(origin, async { current().actor }).await, "key_1");
        assert_eq!(current(), Origin::default());
    }
}
