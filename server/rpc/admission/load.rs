//! How many calls are under way, and who is refused when they are too many.
//!
//! A server that takes more than it can do answers everybody late, and all it has taken waits in memory.  So what is over a
//! bound is refused before anything is done for it, at once and with a time to come back ([`super::pause`]): what is under way is answered as
//! fast as ever.  What applications do in bulk may take seven eighths of the places; the rest is for those who administer
//! the server, who are needed most just then.  Health is asked without a place.
//!
//! Once it is known who calls, a call of bulk is counted for them too: no key has more than half of the places of bulk and no user
//! more than a small part, so that one application that floods leaves room for the others.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pause::Pause;
use crate::error::{Error, Kind, Result};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Of the kind that applications make for each of their events, mails, requests or users.
    Bulk,
    /// What an administrator does.
    Administration,
}

/// Who calls.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum Caller<'a> {
    /// An application, by its key.
    Key(&'a str),
    /// A user, by whatever tokens.
    User(&'a str),
}

/// How many callers are told apart, by a hash that nobody outside can know: two that share a number share its places, which is
/// felt by one beside which the other floods, and by nobody else.
const CALLERS: usize = 4_096;

/// Counts the calls under way.
#[derive(Debug, Default)]
pub(super) struct Load(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    all: AtomicUsize,
    callers: Box<[AtomicUsize]>,
    hasher: RandomState,
    pause: Pause,
}

impl Default for Counts {
    fn default() -> Self {
        let callers = (0..CALLERS).map(|_| AtomicUsize::new(0)).collect();
        Self { all: AtomicUsize::new(0), callers, hasher: RandomState::new(), pause: Pause::default() }
    }
}

/// A call under way, until this is dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    class: Class,
    /// Whose it is, once that is known.
    caller: Option<usize>,
    /// Whether the call was refused.
    refused: bool,
}

impl Place {
    /// Counts the call for its caller, with `most` places in all.  What an administrator does is not counted: the key that floods may
    /// be theirs.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with `CALL_LIMIT` when the caller has too many already.
    pub(super) fn claim(&mut self, caller: Caller<'_>, most: Option<usize>) -> Result<()> {
        if self.class == Class::Administration {
            return Ok(());
        }
        let number = (self.counts.hasher.hash_one(caller) as usize) % CALLERS;
        let before = self.counts.callers[number].fetch_add(1, Ordering::Relaxed);
        // Given back also when it is refused.
        self.caller = Some(number);
        let Some(most) = most.map(|most| share_of(caller, most)).filter(|most| before >= *most) else {
            return Ok(());
        };
        let (who, message) = match caller {
            Caller::Key(_) => ("key", "this key has too many calls under way: try again soon"),
            Caller::User(_) => ("user", "this user has too many calls under way: try again soon"),
        };
        let error = Error::new(Kind::ResourceExhausted, "CALL_LIMIT", message);
        self.refused = true;
        Err(error.with("of", who).with("limit", most.to_string()).retry_after(self.counts.pause.refused()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
        if !self.refused {
            self.counts.pause.done();
        }
        if let Some(number) = self.caller {
            self.counts.callers[number].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Load {
    /// A place for a call, among `most` in all.
    ///
    /// # Errors
    /// `UNAVAILABLE` with `OVERLOADED` when there is none for its class.
    pub fn enter(&self, class: Class, most: Option<usize>) -> Result<Place> {
        let before = self.0.all.fetch_add(1, Ordering::Relaxed);
        // Given back also when it is refused.
        let mut place = Place { counts: Arc::clone(&self.0), class, caller: None, refused: false };
        match most {
            Some(most) if before >= share(class, most) => {
                place.refused = true;
                let message = "the server has too many calls under way: try again soon";
                Err(Error::new(Kind::Unavailable, "OVERLOADED", message).retry_after(self.0.pause.refused()))
            }
            _ => Ok(place),
        }
    }
}

/// How many of `most` places one caller may have.
fn share_of(caller: Caller<'_>, most: usize) -> usize {
    match caller {
        Caller::Key(_) => (share(Class::Bulk, most) / 2).max(1),
        Caller::User(_) => (most / 64).max(8),
    }
}

fn share(class: Class, most: usize) -> usize {
    match class {
        Class::Bulk => (most - most / 8).max(1),
        Class::Administration => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_refused_first_and_places_come_back() {
        let load = Load::default();
        let enter = |class| load.enter(class, Some(16));
        let mut places: Vec<_> = (0..14).map(|_| enter(Class::Bulk).unwrap()).collect();
        let refused = enter(Class::Bulk).unwrap_err();
        assert_eq!((refused.kind(), refused.reason()), (Kind::Unavailable, "OVERLOADED"));
        places.extend((0..2).map(|_| enter(Class::Administration).unwrap()));
        assert!(enter(Class::Administration).is_err());
        places.truncate(13);
        assert!(enter(Class::Bulk).is_ok());
        drop(places);
        assert_eq!(load.0.all.load(Ordering::Relaxed), 0);
        assert!(Load::default().enter(Class::Bulk, Some(1)).is_ok(), "there is always a place for one");
        assert!(
            (0..100).map(|_| load.enter(Class::Bulk, None)).collect::<Vec<_>>().iter().all(Result::is_ok)
        );
    }

    #[test]
    fn no_caller_has_all_of_it_and_others_have_room() {
        let load = Load::default();
        let call = |caller| {
            let mut place = load.enter(Class::Bulk, Some(16)).unwrap();
            place.claim(caller, Some(16)).map(|()| place)
        };
        let mut places: Vec<_> = (0..7).map(|_| call(Caller::Key("a")).unwrap()).collect();
        let refused = call(Caller::Key("a")).unwrap_err();
        assert_eq!((refused.kind(), refused.reason()), (Kind::ResourceExhausted, "CALL_LIMIT"));
        // One in 4,096 has the same number: three that all have it do not happen.
        assert!(["b", "c", "d"].iter().any(|key| call(Caller::Key(key)).is_ok()));
        places.pop();
        assert!(call(Caller::Key("a")).is_ok());
        let mut of_administrators = load.enter(Class::Administration, Some(16)).unwrap();
        assert!(of_administrators.claim(Caller::Key("a"), Some(16)).is_ok());
        drop(places);
        assert!(load.0.callers.iter().all(|count| count.load(Ordering::Relaxed) == 0));
        let mut free = load.enter(Class::Bulk, None).unwrap();
        assert!(free.claim(Caller::User("u"), None).is_ok());
        assert_eq!(share_of(Caller::User("u"), 4_096), 64);
    }
}
