//! Who waits for what.
//!
//! Whoever watches some topics by name is kept under these, so that an event of another topic does not find them: ten
//! thousand who wait for their own topics cost a publish elsewhere nothing.  Whoever watches by pattern is on one list.
//! The waking itself is done by a task of its own, so that no publisher waits while thousands are woken.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::wanted::Wanted;

const SHARDS: usize = 64;

/// A shard: for each topic, those who wait for it.
type Shard = RwLock<HashMap<Arc<str>, HashMap<u64, Arc<Notify>>>>;

/// Wakes those who wait for a topic.
pub struct Wakes {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// Those who watch all topics, or some by pattern.
    wide: RwLock<HashMap<u64, (Wanted, Arc<Notify>)>>,
    /// The number of the next one who waits.
    next: AtomicU64,
    /// The topics that something happened on since the last waking.
    touched: Mutex<HashSet<Arc<str>>>,
    work: Notify,
}

impl Default for Wakes {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
            wide: RwLock::default(),
            next: AtomicU64::new(0),
            touched: Mutex::default(),
            work: Notify::new(),
        }
    }
}

impl Wakes {
    /// Notes that something happened on these topics: whoever waits for one of them is woken soon.
    pub fn touch<'a>(&self, topics: impl IntoIterator<Item = &'a Arc<str>>) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            if !touched.contains(topic) {
                touched.insert(Arc::clone(topic));
            }
        }
        drop(touched);
        self.work.notify_one();
    }

    /// Wakes, until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.work.notified() => self.wake(),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Wakes whoever waits for what was touched.
    fn wake(&self) {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        for topic in &touched {
            let shard = self.shard(topic).read().unwrap_or_else(PoisonError::into_inner);
            shard.get(topic).into_iter().flat_map(HashMap::values).for_each(|waiter| waiter.notify_one());
        }
        let wide = self.wide.read().unwrap_or_else(PoisonError::into_inner);
        for (wanted, waiter) in wide.values() {
            if touched.iter().any(|topic| wanted.takes(topic)) {
                waiter.notify_one();
            }
        }
    }

    /// Has `waiter` woken for what is wanted; answers the number to leave with.
    pub(super) fn enter(&self, wanted: &Wanted, waiter: &Arc<Notify>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match wanted {
            Wanted::Exactly(topics) => {
                for topic in topics.iter() {
                    let mut shard = self.shard(topic).write().unwrap_or_else(PoisonError::into_inner);
                    shard.entry(Arc::clone(topic)).or_default().insert(number, Arc::clone(waiter));
                }
            }
            Wanted::All | Wanted::Matching(_) => {
                let mut wide = self.wide.write().unwrap_or_else(PoisonError::into_inner);
                wide.insert(number, (wanted.clone(), Arc::clone(waiter)));
            }
        }
        number
    }

    /// Wakes them no more.
    pub(super) fn leave(&self, wanted: &Wanted, number: u64) {
        match wanted {
            Wanted::Exactly(topics) => {
                for topic in topics.iter() {
                    let mut shard = self.shard(topic).write().unwrap_or_else(PoisonError::into_inner);
                    if let Some(waiters) = shard.get_mut(topic) {
                        waiters.remove(&number);
                        if waiters.is_empty() {
                            shard.remove(topic);
                        }
                    }
                }
            }
            Wanted::All | Wanted::Matching(_) => {
                self.wide.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
            }
        }
    }

    fn shard(&self, topic: &str) -> &Shard {
        let at = self.hasher.hash_one(topic) % SHARDS as u64;
        &self.shards[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::event::topic::TopicPattern;

    fn wanted(texts: &[&str]) -> Wanted {
        let patterns: Vec<_> = texts.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
        Wanted::of(&patterns)
    }

    fn is_woken(waiter: &Notify) -> bool {
        waiter.notified().now_or_never().is_some()
    }

    #[test]
    fn an_event_wakes_those_who_wait_for_its_topic_and_nobody_else() {
        let wakes = Wakes::default();
        let enter = |texts: &[&str]| {
            let (wanted, waiter) = (wanted(texts), Arc::<Notify>::default());
            (wakes.enter(&wanted, &waiter), wanted, waiter)
        };
        let own: Vec<_> = (0..10_000).map(|user| enter(&[&format!("user:{user}"), "broadcast"])).collect();
        let (chats, all) = (enter(&["chat:*"]), enter(&["*"]));
        wakes.touch([&"user:7".into(), &"chat:9".into()]);
        wakes.wake();
        let woken: Vec<_> = (0..10_000).filter(|&user| is_woken(&own[user].2)).collect();
        assert_eq!(woken, [7]);
        assert!(is_woken(&chats.2) && is_woken(&all.2));
        wakes.touch([&"events".into()]);
        wakes.wake();
        assert!(own.iter().all(|(_, _, waiter)| !is_woken(waiter)));
        assert!(!is_woken(&chats.2) && is_woken(&all.2));
        wakes.touch([&"broadcast".into()]);
        wakes.wake();
        assert!(own.iter().all(|(_, _, waiter)| is_woken(waiter)));
        for (number, wanted, _) in own.iter().chain([&chats, &all]) {
            wakes.leave(wanted, *number);
        }
        let left = |shard: &Shard| shard.read().unwrap().len();
        assert_eq!(wakes.shards.iter().map(left).sum::<usize>() + wakes.wide.read().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_task_does_the_waking() {
        let (wakes, stop) = (Arc::new(Wakes::default()), CancellationToken::new());
        let waiter = Arc::<Notify>::default();
        wakes.enter(&wanted(&["a"]), &waiter);
        let task = tokio::spawn({
            let (wakes, stop) = (Arc::clone(&wakes), stop.clone());
            async move { wakes.run(&stop).await }
        });
        wakes.touch([&"a".into()]);
        waiter.notified().await;
        stop.cancel();
        task.await.unwrap();
    }
}
