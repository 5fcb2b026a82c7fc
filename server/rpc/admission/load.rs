//! How many calls are under way, and who is refused when they are too many.
//!
//! A server that takes more than it can do answers everybody late, and all it has taken waits in memory.  So what is over a
//! bound is refused before anything is done for it, at once and with a time to come back: what is under way is answered as
//! fast as ever.  What applications do in bulk may take seven eighths of the places; the rest is for those who administer
//! the server, who are needed most just then.  Health is asked without a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// When to come back: by then what was under way is done.
const PAUSE: Duration = Duration::from_secs(1);

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Of the kind that applications make for each of their events, mails, requests or users.
    Bulk,
    /// What an administrator does.
    Administration,
}

/// Counts the calls under way.
#[derive(Debug, Default)]
pub(super) struct Load(Arc<AtomicUsize>);

/// A call under way, until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// A place for a call, among `most` in all.
    ///
    /// # Errors
    /// `UNAVAILABLE` with `OVERLOADED` when there is none for its class.
    pub fn enter(&self, class: Class, most: Option<usize>) -> Result<Place> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        // Given back also when it is refused.
        let place = Place(Arc::clone(&self.0));
        match most {
            Some(most) if before >= share(class, most) => {
                let message = "the server has too many calls under way: try again soon";
                Err(Error::new(Kind::Unavailable, "OVERLOADED", message).retry_after(PAUSE))
            }
            _ => Ok(place),
        }
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
        assert_eq!(load.0.load(Ordering::Relaxed), 0);
        assert!(Load::default().enter(Class::Bulk, Some(1)).is_ok(), "there is always a place for one");
        assert!(
            (0..100).map(|_| load.enter(Class::Bulk, None)).collect::<Vec<_>>().iter().all(Result::is_ok)
        );
    }
}
