//! Whose streams this node has, in memory; and what of it the database is still to be told.
//!
//! A user has an entry while a stream of theirs is open, and for the linger after.  The database has one row for it: what
//! is known of that row (`Row`) and whether streams are open decide whether there is something to write.  What is under
//! way counts as unknown, and so does what failed, because a commit whose outcome was lost may have happened.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Whose streams this node has.
#[derive(Default)]
pub(super) struct Roster(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: HashMap<Arc<str>, Entry>,
    /// Who may have to be noted as here, each once.
    arrived: Vec<Arc<str>>,
    /// Whose last stream was closed, each once, the one who left first on top.
    left: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
}

struct Entry {
    username: Arc<str>,
    streams: usize,
    /// When the last stream was closed.
    left_at: Timestamp,
    row: Row,
    in_arrived: bool,
    in_left: bool,
}

/// What is known of the row in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Absent,
    Present,
    Unknown,
}

/// A user who is to be noted as here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub user_id: Arc<str>,
    pub username: Arc<str>,
}

/// What the database is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub arrived: Vec<Arrival>,
    pub left: Vec<String>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.left.is_empty()
    }
}

impl Entry {
    fn new(username: &str) -> Self {
        Self {
            username: username.into(),
            streams: 0,
            left_at: Timestamp::default(),
            row: Row::Absent,
            in_arrived: false,
            in_left: false,
        }
    }

    /// Whether there is nothing left to do about it.
    fn is_over(&self) -> bool {
        self.streams == 0 && self.row == Row::Absent && !self.in_arrived && !self.in_left
    }
}

impl Inner {
    fn push_arrived(&mut self, user_id: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(user_id)
            && !std::mem::replace(&mut entry.in_arrived, true)
        {
            self.arrived.push(Arc::clone(user_id));
        }
    }

    fn push_left(&mut self, user_id: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(user_id)
            && !std::mem::replace(&mut entry.in_left, true)
        {
            self.left.push(Reverse((entry.left_at, Arc::clone(user_id))));
        }
    }
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream was opened.  Answers the user's id as it is shared here, and whether there is something to write.
    pub fn arrive(&self, user_id: &str, username: &str) -> (Arc<str>, bool) {
        let mut inner = self.lock();
        let user_id = match inner.entries.get_key_value(user_id) {
            Some((user_id, _)) => Arc::clone(user_id),
            None => {
                let user_id: Arc<str> = user_id.into();
                inner.entries.insert(Arc::clone(&user_id), Entry::new(username));
                user_id
            }
        };
        let Some(entry) = inner.entries.get_mut(&user_id) else { return (user_id, false) };
        entry.streams += 1;
        if !username.is_empty() && *entry.username != *username {
            entry.username = username.into();
        }
        let unwritten = entry.row != Row::Present;
        if unwritten {
            inner.push_arrived(&user_id);
        }
        (user_id, unwritten)
    }

    /// A stream was closed.  Answers whether it was the user's last.
    pub fn leave(&self, user_id: &Arc<str>, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(user_id) else { return false };
        entry.streams -= 1;
        let last = entry.streams == 0;
        if last {
            entry.left_at = now;
            inner.push_left(user_id);
        }
        last
    }

    /// Whether somebody has left whose linger has not ended.
    pub fn is_lingering(&self) -> bool {
        !self.lock().left.is_empty()
    }

    /// What the database is to be told now, at most `limit` users of each kind.
    pub fn take(&self, now: Timestamp, linger: Duration, limit: usize) -> Changes {
        let mut inner = self.lock();
        let mut changes = Changes::default();
        while changes.arrived.len() < limit
            && let Some(user_id) = inner.arrived.pop()
        {
            let Some(entry) = inner.entries.get_mut(&user_id) else { continue };
            entry.in_arrived = false;
            // Who has come and gone again already need not be told of.
            let lingers = entry.in_left && now.since(entry.left_at) < linger;
            if entry.row != Row::Present && (entry.streams > 0 || lingers) {
                entry.row = Row::Unknown;
                changes.arrived.push(Arrival { user_id, username: Arc::clone(&entry.username) });
            } else if entry.is_over() {
                inner.entries.remove(&user_id);
            }
        }
        while changes.left.len() < limit
            && let Some(Reverse((left_at, _))) = inner.left.peek()
            && now.since(*left_at) >= linger
            && let Some(Reverse((_, user_id))) = inner.left.pop()
        {
            let Some(entry) = inner.entries.get_mut(&user_id) else { continue };
            entry.in_left = false;
            if entry.streams > 0 {
                continue;
            }
            if now.since(entry.left_at) < linger {
                // Came back and left again.
                inner.push_left(&user_id);
            } else if entry.is_over() {
                inner.entries.remove(&user_id);
            } else if entry.row != Row::Absent {
                entry.row = Row::Unknown;
                changes.left.push(user_id.to_string());
            }
        }
        changes
    }

    /// These were noted as here, or it is not known whether they were.
    pub fn arrivals_written(&self, arrivals: &[Arrival], written: bool) {
        let mut inner = self.lock();
        for Arrival { user_id, .. } in arrivals {
            let Some(entry) = inner.entries.get_mut(user_id) else { continue };
            if written {
                entry.row = Row::Present;
            } else {
                inner.push_arrived(user_id);
            }
        }
    }

    /// These were noted as gone, or it is not known whether they were.
    pub fn departures_written(&self, user_ids: &[String], written: bool) {
        let mut inner = self.lock();
        for user_id in user_ids {
            let Some((user_id, _)) = inner.entries.get_key_value(user_id.as_str()) else { continue };
            let user_id = Arc::clone(user_id);
            let Some(entry) = inner.entries.get_mut(&user_id) else { continue };
            if written {
                entry.row = Row::Absent;
                if entry.is_over() {
                    inner.entries.remove(&user_id);
                }
            } else if entry.streams == 0 {
                inner.push_left(&user_id);
            }
        }
    }

    /// These were taken over from a node that is gone: they linger from now.
    pub fn adopt(&self, user_ids: &[String], now: Timestamp) {
        let mut inner = self.lock();
        for user_id in user_ids {
            let user_id: Arc<str> = user_id.as_str().into();
            let entry = inner.entries.entry(Arc::clone(&user_id)).or_insert_with(|| Entry::new(""));
            entry.row = Row::Present;
            if entry.streams == 0 && !entry.in_left {
                entry.left_at = now;
                inner.push_left(&user_id);
            }
        }
    }

    /// Has everybody who is here noted anew: others may have taken over the rows.
    pub fn doubt(&self) {
        let mut inner = self.lock();
        let mut here = Vec::new();
        for (user_id, entry) in &mut inner.entries {
            if entry.row == Row::Present {
                entry.row = Row::Unknown;
            }
            if entry.streams > 0 {
                here.push(Arc::clone(user_id));
            }
        }
        here.iter().for_each(|user_id| inner.push_arrived(user_id));
    }

    /// How many users have a stream here or had one a moment ago.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_secs(15);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_parts(1_000_000 + seconds, 0)
    }

    fn names(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
        let arrived = changes.arrived.iter().map(|arrival| &*arrival.user_id).collect();
        (arrived, changes.left.iter().map(String::as_str).collect())
    }

    #[test]
    fn a_user_is_written_once_however_many_streams_they_have() {
        let roster = Roster::default();
        let (jo, first) = roster.arrive("jo", "Jo");
        assert!(first);
        let changes = roster.take(at(0), LINGER, 10);
        assert_eq!(names(&changes), (vec!["jo"], vec![]));
        roster.arrivals_written(&changes.arrived, true);
        assert!(!roster.arrive("jo", "Jo").1, "a second device is nothing new");
        assert!(!roster.leave(&jo, at(1)));
        assert!(roster.leave(&jo, at(2)));
        assert!(roster.take(at(16), LINGER, 10).is_empty(), "the linger has not ended");
        let changes = roster.take(at(17), LINGER, 10);
        assert_eq!(names(&changes), (vec![], vec!["jo"]));
        roster.departures_written(&changes.left, true);
        assert_eq!(roster.len(), 0);
        assert!(!roster.is_lingering());
    }

    #[test]
    fn who_comes_back_in_time_costs_nothing() {
        let roster = Roster::default();
        roster.arrive("jo", "");
        let changes = roster.take(at(0), LINGER, 10);
        roster.arrivals_written(&changes.arrived, true);
        let mut jo: Arc<str> = "jo".into();
        for second in 0..1_000 {
            roster.leave(&jo, at(second));
            jo = roster.arrive("jo", "").0;
            assert!(roster.take(at(second), LINGER, 10).is_empty());
        }
        assert!(roster.lock().left.len() <= 1, "flapping does not pile up");
        roster.leave(&jo, at(1_000));
        assert!(roster.take(at(1_014), LINGER, 10).is_empty());
        assert_eq!(names(&roster.take(at(1_015), LINGER, 10)), (vec![], vec!["jo"]));
    }

    #[test]
    fn without_a_linger_who_came_and_went_unseen_is_not_told_of() {
        let roster = Roster::default();
        let (jo, _) = roster.arrive("jo", "");
        roster.leave(&jo, at(0));
        assert!(roster.take(at(0), Duration::ZERO, 10).is_empty());
        assert_eq!(roster.len(), 0);
    }

    #[test]
    fn who_comes_back_while_their_leaving_is_written_is_noted_again() {
        let roster = Roster::default();
        let (jo, _) = roster.arrive("jo", "");
        let changes = roster.take(at(0), LINGER, 10);
        roster.arrivals_written(&changes.arrived, true);
        roster.leave(&jo, at(0));
        let leaving = roster.take(at(15), LINGER, 10);
        assert!(roster.arrive("jo", "").1);
        roster.departures_written(&leaving.left, true);
        assert_eq!(names(&roster.take(at(15), LINGER, 10)), (vec!["jo"], vec![]));
    }

    #[test]
    fn a_batch_has_a_limit() {
        let roster = Roster::default();
        for user in 0..25 {
            roster.arrive(&format!("u{user}"), "");
        }
        let sizes = [0; 3].map(|_| roster.take(at(0), LINGER, 10).arrived.len());
        assert_eq!(sizes, [10, 10, 5]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(usize),
        Leave(usize),
        Pass(i64),
        /// Writes; the second says whether the database takes it, and the third whether the answer comes back.
        Write(bool, bool),
        Adopt(usize),
        Doubt,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize).prop_map(Step::Arrive),
            4 => (0..3usize).prop_map(Step::Leave),
            3 => (0..20i64).prop_map(Step::Pass),
            4 => (any::<bool>(), any::<bool>()).prop_map(|(taken, told)| Step::Write(taken, told)),
            1 => (0..3usize).prop_map(Step::Adopt),
            1 => Just(Step::Doubt),
        ]
    }

    proptest! {
        /// Whatever happens in between, once all is written and the linger has ended the database has just those who are here.
        #[test]
        fn the_database_ends_up_with_those_who_are_here(steps in prop::collection::vec(step(), 0..80)) {
            let roster = Roster::default();
            let mut database: BTreeSet<String> = BTreeSet::new();
            let mut open: BTreeMap<usize, Vec<Arc<str>>> = BTreeMap::new();
            let mut now = 0;
            let write = |roster: &Roster, database: &mut BTreeSet<String>, now, taken: bool, told: bool| {
                let changes = roster.take(at(now), LINGER, 10);
                if taken {
                    database.extend(changes.arrived.iter().map(|arrival| arrival.user_id.to_string()));
                }
                roster.arrivals_written(&changes.arrived, taken && told);
                if taken {
                    changes.left.iter().for_each(|user_id| { database.remove(user_id); });
                }
                roster.departures_written(&changes.left, taken && told);
            };
            for step in steps {
                match step {
                    Step::Arrive(user) => {
                        let (user_id, _) = roster.arrive(&format!("u{user}"), "");
                        open.entry(user).or_default().push(user_id);
                    }
                    Step::Leave(user) => {
                        if let Some(user_id) = open.entry(user).or_default().pop() {
                            roster.leave(&user_id, at(now));
                        }
                    }
                    Step::Pass(seconds) => now += seconds,
                    Step::Write(taken, told) => write(&roster, &mut database, now, taken, told),
                    Step::Adopt(user) => {
                        database.insert(format!("u{user}"));
                        roster.adopt(&[format!("u{user}")], at(now));
                    }
                    Step::Doubt => {
                        database.clear();
                        roster.doubt();
                    }
                }
            }
            for _ in 0..3 {
                now += 15;
                write(&roster, &mut database, now, true, true);
            }
            let here: BTreeSet<String> =
                open.iter().filter(|(_, open)| !open.is_empty()).map(|(user, _)| format!("u{user}")).collect();
            prop_assert_eq!(database, here.clone());
            prop_assert_eq!(roster.len(), here.len());
        }
    }
}
