//! Credits in the memory of a node: taken from the database in blocks, so that most uses need no write.
//!
//! What a block has is taken off the stock before any of it is used.  A node that is killed loses what it had not used, and
//! never grants more.  A block is worth nothing once the credits are set anew or filled up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::store::{self, Credits};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::Result;

/// The most that is taken at once without need.
const BLOCK: i64 = 100;
/// A node takes this part of what is left at the most, so that the others get some.
const PART: i64 = 8;
/// How long a stock that has too little is not asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a node has of the credits of a key.
#[derive(Debug)]
pub struct Lease {
    id: String,
    held: Mutex<Held>,
    /// One at a time asks the database.
    asking: tokio::sync::Mutex<()>,
}

/// What is in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    version: i64,
    left: i64,
    /// What was left in the stock when it was last asked.
    stock: i64,
    refill_at: Option<Timestamp>,
    /// Until then the stock has too little for so many.
    dry: Option<(Timestamp, i64)>,
}

/// How it stands with the credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditState {
    /// Whether there were enough.
    pub enough: bool,
    /// How many are left, as far as this node knows.
    pub remaining: i64,
    /// When they are filled up.
    pub refill_at: Option<Timestamp>,
}

impl Lease {
    /// Nothing, of the credits with this id and version.
    pub fn new(id: String, version: i64) -> Self {
        let held = Mutex::new(Held { version, ..Held::default() });
        Self { id, held, asking: tokio::sync::Mutex::default() }
    }

    /// Whether it is of these credits, as they are now.
    pub fn is_of(&self, id: &str, version: i64) -> bool {
        self.id == id && self.held().version == version
    }

    fn held(&self) -> Held {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from what is in hand; `None` when the database has to be asked.
    pub fn take_in_hand(&self, cost: i64, now: Timestamp) -> Option<CreditState> {
        self.lock().take(cost, now)
    }

    /// Takes, asking the database if need be.
    ///
    /// # Errors
    /// When the database can not be asked: nothing is taken then.
    pub async fn take(self: &Arc<Self>, db: &Db, cost: i64, now: Timestamp) -> Result<CreditState> {
        if let Some(state) = self.take_in_hand(cost, now) {
            return Ok(state);
        }
        let _asking = self.asking.lock().await;
        if let Some(state) = self.take_in_hand(cost, now) {
            return Ok(state);
        }
        let (id, held) = (self.id.clone(), self.held());
        let taken = db.transaction(move |conn| {
            Box::pin(async move {
                let Some(mut credits) = store::hold(conn, &id).await? else {
                    return Ok(None);
                };
                let before = credits.clone();
                let granted = grant(&mut credits, held, cost, now);
                if credits != before {
                    store::put(conn, &credits).await?;
                }
                Ok(Some((credits, granted)))
            })
        });
        let taken = taken.await?;
        let mut held = self.lock();
        match taken {
            Some((credits, granted)) => held.put(&credits, granted, cost, now),
            None => *held = Held { dry: Some((now + PAUSE, 0)), ..Held::default() },
        }
        let (remaining, refill_at) = (held.left + held.stock, held.refill_at);
        Ok(held.take(cost, now).unwrap_or(CreditState { enough: false, remaining, refill_at }))
    }

    /// Gives back what was not used, when the server stops.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn give_back(&self, db: &Db) -> Result<()> {
        let held = std::mem::take(&mut *self.lock());
        if held.left == 0 {
            return Ok(());
        }
        let id = self.id.clone();
        db.transaction(move |conn| {
            Box::pin(async move {
                match store::hold(conn, &id).await? {
                    Some(mut credits) if credits.version == held.version => {
                        credits.remaining += held.left;
                        store::put(conn, &credits).await
                    }
                    _ => Ok(()),
                }
            })
        })
        .await
    }

    /// The version of the credits that it has some of.
    pub fn version(&self) -> i64 {
        self.held().version
    }

    /// What is in hand and not used.
    pub fn left(&self) -> i64 {
        self.held().left
    }
}

impl Held {
    fn take(&mut self, cost: i64, now: Timestamp) -> Option<CreditState> {
        if self.refill_at.is_some_and(|at| at <= now) {
            (self.left, self.dry) = (0, None);
            return None;
        }
        let enough = self.left >= cost && (cost > 0 || self.stock + self.left > 0);
        if enough {
            self.left -= cost;
        } else if self.dry.is_none_or(|(until, least)| until <= now || cost < least) {
            return None;
        }
        Some(CreditState { enough, remaining: self.left + self.stock, refill_at: self.refill_at })
    }

    fn put(&mut self, credits: &Credits, granted: i64, cost: i64, now: Timestamp) {
        let left = if credits.version == self.version { self.left } else { 0 };
        *self = Self {
            version: credits.version,
            left: left + granted,
            stock: credits.remaining,
            refill_at: credits.refill_at,
            dry: (granted == 0).then(|| (now + PAUSE, cost)),
        };
    }
}

/// Takes a block off the stock for a node that holds some and needs `cost`; answers how much.
fn grant(credits: &mut Credits, held: Held, cost: i64, now: Timestamp) -> i64 {
    credits.refill(now);
    let left = if held.version == credits.version { held.left } else { 0 };
    let need = (cost - left).max(0);
    if need > credits.remaining {
        return 0;
    }
    let block = need.max((credits.remaining / PART).clamp(i64::from(credits.remaining > 0), BLOCK));
    credits.remaining -= block;
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::model::{NewCredits, RefillInterval};
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn use_up(credits: &mut Credits, held: &mut Held, cost: i64, now: Timestamp) -> bool {
        if let Some(state) = held.take(cost, now) {
            return state.enough;
        }
        let granted = grant(credits, *held, cost, now);
        held.put(credits, granted, cost, now);
        held.take(cost, now).is_some_and(|state| state.enough)
    }

    proptest! {
        #[test]
        fn nodes_that_are_killed_and_refills_never_grant_more(
            stock in 0..500i64, refill in 1..300i64,
            steps in prop::collection::vec((0..3usize, 0..40i64, 0..20u8, 0..5u32), 1..400)
        ) {
            let mut now = Timestamp::from_micros(1_700_000_000_000_000);
            let new = NewCredits { remaining: stock, refill_amount: refill, refill_interval: RefillInterval::Daily };
            let mut credits = Credits::new("key_1".into(), new, 1, now);
            let mut nodes = [Held { version: 1, ..Held::default() }; 3];
            let (mut used, mut most, mut end) = (0, stock, credits.refill_at.unwrap());
            for (node, cost, what, hours) in steps {
                now = now + HOUR * hours;
                if now >= end {
                    (used, most, end) = (0, refill, RefillInterval::Daily.next(now).unwrap());
                }
                if what == 0 {
                    nodes[node] = Held { version: credits.version, ..Held::default() };
                } else if use_up(&mut credits, &mut nodes[node], cost, now) {
                    used += cost;
                }
                prop_assert!(used <= most, "{} of {}", used, most);
                prop_assert!(credits.remaining >= 0 && nodes[node].left >= 0);
            }
        }

        #[test]
        fn one_node_can_use_all_of_it(stock in 0..5_000i64, cost in 1..7i64) {
            let now = Timestamp::from_micros(1_700_000_000_000_000);
            let new = NewCredits { remaining: stock, ..NewCredits::default() };
            let mut credits = Credits::new("key_1".into(), new, 1, now);
            let mut held = Held { version: 1, ..Held::default() };
            let mut uses = 0;
            while use_up(&mut credits, &mut held, cost, now) {
                uses += 1;
            }
            prop_assert_eq!(uses, stock / cost);
        }
    }
}
