//! Lanes that take nothing for a while: a limit is used up, or nobody can take what they carry.
//!
//! A block is this node's knowledge only: what waits keeps its time and with it its turn, and is labelled `held` with the
//! reason, a few rows at each look, so that even a million rows cost the database little.

pub(super) mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;

/// Why a lane takes nothing, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Why, in words for people.
    pub why: String,
    /// When to look again.
    pub until: Timestamp,
}

/// How many deliveries of a lane may be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// So many.
    pub granted: usize,
    /// Why not all that was wanted.
    pub hold: Option<Hold>,
}

/// Where the labelling of a lane has got to: the time and the id of the last row.
pub(super) type Cursor = (Timestamp, String);

/// The blocked lanes.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    lanes: HashMap<Arc<str>, Block>,
    /// How often somebody ended blocks.
    ended: u64,
}

struct Block {
    hold: Hold,
    /// Where the labelling goes on; `None` once everything has its label.
    cursor: Option<Cursor>,
}

impl Blocks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked before what a block rests on is looked at.
    pub(super) fn ended(&self) -> u64 {
        self.lock().ended
    }

    /// Blocks a lane, unless blocks were ended since: then what the block rests on may be over.
    pub(super) fn block(&self, lane: &Arc<str>, hold: Hold, ended: u64) {
        let cursor = Some((Timestamp::from_micros(0), String::new()));
        let mut inner = self.lock();
        if inner.ended == ended {
            inner.lanes.insert(Arc::clone(lane), Block { hold, cursor });
        }
    }

    /// The hold of a lane that is still blocked; one whose time has come is blocked no more.
    pub(super) fn hold(&self, lane: &str, now: Timestamp) -> Option<Hold> {
        let blocks = &mut self.lock().lanes;
        let hold = blocks.get(lane)?.hold.clone();
        if hold.until > now {
            return Some(hold);
        }
        blocks.remove(lane);
        None
    }

    /// Where to go on with the labels of a lane; `None` when there is nothing left to do.
    pub(super) fn cursor(&self, lane: &str) -> Option<Cursor> {
        self.lock().lanes.get(lane)?.cursor.clone()
    }

    /// Notes how far the labels are.
    pub(super) fn labelled(&self, lane: &str, cursor: Option<Cursor>) {
        if let Some(block) = self.lock().lanes.get_mut(lane) {
            block.cursor = cursor;
        }
    }

    /// Ends every block.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        inner.lanes.clear();
        inner.ended += 1;
    }

    /// Ends the block of a lane.
    pub(super) fn remove(&self, lane: &str) {
        let mut inner = self.lock();
        inner.lanes.remove(lane);
        inner.ended += 1;
    }

    /// The holds that last.
    pub(super) fn holds(&self, now: Timestamp) -> Vec<Hold> {
        let lasting = |block: &&Block| block.hold.until > now;
        self.lock().lanes.values().filter(lasting).map(|block| block.hold.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_blocked_until_its_time_or_until_all_are_freed() {
        let (blocks, lane) = (Blocks::default(), Arc::from("a"));
        let at = Timestamp::from_micros;
        let hold = Hold { why: "full".into(), until: at(10) };
        blocks.block(&lane, hold.clone(), blocks.ended());
        assert_eq!(blocks.hold("a", at(9)), Some(hold.clone()));
        assert_eq!(blocks.hold("b", at(9)), None);
        assert_eq!((blocks.holds(at(9)).len(), blocks.holds(at(10)).len()), (1, 0));
        assert!(blocks.cursor("a").is_some());
        blocks.labelled("a", None);
        assert!(blocks.cursor("a").is_none());
        assert_eq!(blocks.hold("a", at(10)), None);
        let before = blocks.ended();
        blocks.block(&lane, hold.clone(), before);
        blocks.clear();
        assert_eq!(blocks.hold("a", at(9)), None);
        blocks.block(&lane, hold.clone(), before);
        assert_eq!(blocks.hold("a", at(9)), None, "what it rests on may be over");
        blocks.block(&lane, hold, blocks.ended());
        blocks.remove("b");
        assert!(blocks.hold("a", at(9)).is_some());
        blocks.remove("a");
        assert_eq!(blocks.hold("a", at(9)), None);
    }
}
