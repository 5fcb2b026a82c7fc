//! An open stream, as the registry and the stream itself know it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::Guard;
use tokio::sync::Notify;

use super::{Drain, Limits, Registry};
use crate::error::Result;
use crate::event::pattern::Pattern;
use crate::event::topic::TopicPattern;
use crate::notification::view::{Filter, Grant, View};
use crate::rpc::Principal;
use crate::rpc::cut::Cut;

/// What both know.
pub(super) struct Entry {
    /// Rung when the stream has to look at something.
    pub bell: Arc<Notify>,
    pub state: Mutex<State>,
    /// Whether there is something in the state for the stream.
    pub changed: AtomicBool,
    /// When the stream last had a chance to say something, in milliseconds of the registry's watch.
    pub polled: AtomicU64,
    /// How long the stream is silent by its own will, in milliseconds.
    pub silence: u64,
    /// Whether its peer has not read for too long.
    pub slow: AtomicBool,
    /// Ends the stream when nothing else does.
    pub cut: Option<Cut>,
}

/// Who has the stream, and what it is about.
pub(super) struct State {
    pub principal: Principal,
    pub filter: Arc<Filter>,
    pub generation: i64,
    changes: Changes,
}

/// What the stream has not taken note of.
#[derive(Debug, Default)]
pub struct Changes {
    /// The caller that has taken the place of the one before.
    pub principal: Option<Principal>,
    /// What it shows from now on.
    pub view: Option<View>,
    /// The number of the change that the subscriber waits to be told of.
    pub generation: Option<i64>,
    /// Whether its caller may no longer see what it is about.
    pub lost: bool,
}

impl Entry {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the stream is about, unless a later change did; answers the number of the change that it has now.
    pub fn update(&self, generation: i64, filter: Arc<Filter>) -> Result<i64> {
        let mut state = self.state();
        if generation <= state.generation {
            return Ok(state.generation);
        }
        let view = View::new(&Arc::new(Grant::of(&state.principal)), &filter)?;
        (state.generation, state.filter) = (generation, filter);
        state.changes.view = Some(view);
        state.changes.generation = Some(generation);
        self.ring(state);
        Ok(generation)
    }

    /// Puts another caller in the place of the one before.
    pub fn refresh(&self, principal: Principal) {
        let mut state = self.state();
        match View::new(&Arc::new(Grant::of(&principal)), &state.filter) {
            Ok(view) => state.changes.view = Some(view),
            Err(_) => state.changes.lost = true,
        }
        state.changes.principal = Some(principal.clone());
        state.principal = principal;
        self.ring(state);
    }

    fn ring(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changed.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

impl State {
    pub fn new(principal: Principal, filter: Arc<Filter>) -> Self {
        Self { principal, filter, generation: 0, changes: Changes::default() }
    }

    /// Whether the caller asked for this topic or type by its name, or by a pattern that is not for all.  A user whose token
    /// has the topic asks for it when they ask for no other.
    pub fn asks_for(&self, topic: &str, event_type: &str) -> bool {
        let Filter { types, topics, .. } = &*self.filter;
        let named = |pattern: &TopicPattern| *pattern != TopicPattern::All && pattern.matches(topic);
        let granted = |text: &String| TopicPattern::parse(text).is_ok_and(|pattern| named(&pattern));
        topics.iter().any(named)
            || types.iter().any(|pattern| *pattern != Pattern::All && pattern.matches(event_type))
            || topics.is_empty()
                && types.is_empty()
                && self.principal.user.as_ref().is_some_and(|user| user.topics.iter().any(granted))
    }
}

/// The place of a stream among all: it is given back when this is dropped.
pub struct Seat {
    pub(super) registry: Arc<Registry>,
    pub(super) id: String,
    pub(super) user: Option<String>,
    pub(super) address: Option<u128>,
    pub(super) entry: Arc<Entry>,
}

impl Seat {
    /// The name of the stream.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is rung when there is something to look at.
    pub fn bell(&self) -> &Arc<Notify> {
        &self.entry.bell
    }

    /// Notes that the stream could say something now.
    pub fn polled(&self) {
        self.entry.polled.store(self.registry.millis(), Ordering::Relaxed);
    }

    /// Whether its peer did not read for too long.
    pub fn is_slow(&self) -> bool {
        self.entry.slow.load(Ordering::Relaxed)
    }

    /// Whether something has changed that was not asked for yet.
    pub fn is_changed(&self) -> bool {
        self.entry.changed.load(Ordering::Acquire)
    }

    /// What the settings say.
    pub fn limits(&self) -> Guard<Arc<Limits>> {
        self.registry.limits.load()
    }

    /// The drain, once there is one.
    pub fn draining(&self) -> Option<Drain> {
        self.registry.draining()
    }

    /// What has changed since this was asked last.
    pub fn changes(&self) -> Option<Changes> {
        // Asked for each message: mostly nothing has.
        if !self.entry.changed.load(Ordering::Relaxed) || !self.entry.changed.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut self.entry.state().changes))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.leave(self);
    }
}
