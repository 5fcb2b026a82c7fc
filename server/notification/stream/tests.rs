//! Streams of users, whose tokens end: without a port, on an embedded database, with a clock that is moved.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;
use switchboard_client::notification::v1::{SubscribeResponse, closing, resync};
use tokio::sync::watch;

use super::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::db::Target;
use crate::error::{Error, Kind};
use crate::event::ephemeral::Ephemeral;
use crate::event::{Fact, log};
use crate::notification::registry::{Limits, Succession, Unread, Update};
use crate::notification::view;
use crate::rpc::admission::Admission;
use crate::rpc::admission::quota::Standing;
use crate::rpc::{Authenticate, Endings, User};
use crate::secret::SystemRandom;

const ENDED: i64 = -1;
const DENIED: i64 = -2;

/// Says what the test wants.
#[derive(Default)]
struct Fake {
    /// What is said of every caller: when the key ends, 0 for never, or one of the next.
    answer: AtomicI64,
    present: Arc<AtomicUsize>,
}

impl Authenticate for Fake {
    fn cached(&self, _key: &str) -> Option<Result<Principal>> {
        None
    }

    fn authenticate<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Principal>> {
        futures_util::future::pending().boxed()
    }

    fn admit(&self, _key: &str, _address: Option<IpAddr>) -> Result<Option<Standing>> {
        Ok(None)
    }

    fn revalidate<'a>(
        &'a self,
        _principal: &'a Principal,
        _access: &'a Access,
    ) -> BoxFuture<'a, Result<Option<Timestamp>>> {
        let answer = match self.answer.load(Ordering::SeqCst) {
            ENDED => Err(Error::new(Kind::Unauthenticated, "KEY_INVALID", "over")),
            DENIED => Err(Error::new(Kind::PermissionDenied, "SCOPE_MISSING", "less")),
            until => Ok((until > 0).then(|| Timestamp::from_micros(until))),
        };
        async { answer }.boxed()
    }

    fn revoked(&self) -> watch::Receiver<u64> {
        Endings::default().watch()
    }
}

impl Succession for Fake {
    fn is_replaced_by<'a>(&'a self, key_id: &'a str, by: &'a str) -> BoxFuture<'a, Result<bool>> {
        async move { Ok((key_id, by) == ("key_old", "key_new")) }.boxed()
    }
}

/// Present as long as it is there.
struct Present(Arc<AtomicUsize>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Attendance for Fake {
    fn arrived(&self, _user: &User) -> Box<dyn Send> {
        self.present.fetch_add(1, Ordering::SeqCst);
        Box::new(Present(Arc::clone(&self.present)))
    }
}

const ACCESS: Access = Access { scope: "notifications:read", address: None };

struct Bench {
    source: Arc<Source>,
    fake: Arc<Fake>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&Target::Sqlite(folder.path().join("test.db"))).await.unwrap();
    db.migrate().await.unwrap();
    log::create(&db, 7).await.unwrap();
    let bus = Bus::open(db.clone()).await.unwrap();
    tokio::spawn(Arc::clone(&bus).run(tokio_util::sync::CancellationToken::new()));
    let (fake, clock) =
        (Arc::<Fake>::default(), Arc::new(ManualClock::new(Timestamp::from_micros(1_800_000_000_000_000))));
    let registry = Registry::new(1, Arc::new(SystemRandom), fake.clone(), Unread::default());
    let source = Source {
        hub: Arc::new(EphemeralHub::new(Arc::clone(bus.wakes()))),
        db,
        bus,
        registry,
        valid: Valid::new(fake.clone(), Arc::new(Admission::new(clock.clone()))),
        attendance: fake.clone(),
        metrics: Arc::default(),
        clock: clock.clone(),
    };
    Bench { source: Arc::new(source), fake, clock, _folder: folder }
}

impl Bench {
    fn user(&self, id: &str, seconds: u64, topics: &[&str]) -> Principal {
        let now = self.clock.now();
        let user = User {
            id: id.into(),
            name: String::new(),
            topics: topics.iter().map(|&topic| topic.into()).collect(),
            event_types: Vec::new(),
            issued_at: now,
            expires_at: now + Duration::from_secs(seconds),
        };
        Principal { user: Some(Arc::new(user)), ..key("key_maker") }
    }

    async fn open(&self, principal: &Principal, topics: &[&str]) -> Result<(Stream, String)> {
        let topics = topics.iter().map(|&topic| topic.into()).collect();
        let wish = Wish { filter: view::Wish { topics, ..Default::default() }, ..Default::default() };
        let mut stream = Stream::open(Arc::clone(&self.source), principal.clone(), ACCESS, wish).await?;
        let id = next(&mut stream).await.opened.unwrap().subscription_id;
        Ok((stream, id))
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.source.registry.wake();
    }

    fn publish(&self, topic: &str, data: &str) {
        self.source.hub.publish(Ephemeral::new(Arc::new(fact(topic, data)), ""));
    }
}

fn key(id: &str) -> Principal {
    Principal { key_id: id.into(), scopes: ["notifications:read".to_owned()].into(), user: None }
}

fn fact(topic: &str, data: &str) -> Fact {
    Fact {
        id: "evt_1".into(),
        event_type: "a.b".into(),
        data: data.into(),
        actor: String::new(),
        subject: String::new(),
        topic: topic.into(),
        created_at: Timestamp::default(),
    }
}

async fn next(stream: &mut Stream) -> SubscribeResponse {
    let next = tokio::time::timeout(Duration::from_secs(10), stream.next());
    let frame = next.await.expect("in time").expect("not the end");
    SubscribeResponse::decode(&*frame.encode_to_vec()).unwrap()
}

fn data(message: &SubscribeResponse) -> Vec<&str> {
    message.events.iter().map(|event| event.data.as_str()).collect()
}

#[tokio::test]
async fn a_token_that_ends_is_told_of_and_a_new_one_keeps_the_stream() {
    let bench = bench().await;
    let (mut stream, id) = bench.open(&bench.user("jo", 300, &[]), &[]).await.unwrap();
    bench.advance(269);
    bench.publish("user:jo", "1");
    assert_eq!(data(&next(&mut stream).await), ["1"], "not yet");
    bench.advance(1);
    let warning = next(&mut stream).await;
    let end = bench.clock.now() + Duration::from_secs(30);
    assert_eq!(warning.token_expire_time.unwrap().seconds, end.seconds());
    bench.advance(54);
    bench.publish("user:jo", "2");
    assert_eq!(data(&next(&mut stream).await), ["2"], "there is a grace");
    let stranger = bench.user("jim", 300, &[]);
    let refused = bench.source.registry.refresh(&id, &stranger).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
    bench.source.registry.refresh(&id, &bench.user("jo", 100, &[])).await.unwrap();
    bench.advance(20);
    bench.publish("user:jo", "3");
    assert_eq!(data(&next(&mut stream).await), ["3"]);
    bench.advance(70);
    assert!(next(&mut stream).await.token_expire_time.is_some(), "a tenth of a short life before its end");
    bench.advance(35);
    let last = next(&mut stream).await.closing.unwrap();
    assert_eq!((last.reason(), last.reconnect), (closing::Reason::KeyEnded, true));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_at_once_and_one_that_may_less_loses_them() {
    for (answer, reason) in [(ENDED, closing::Reason::KeyEnded), (DENIED, closing::Reason::PermissionLost)] {
        let bench = bench().await;
        let (mut of_user, _) = bench.open(&bench.user("jo", 300, &[]), &[]).await.unwrap();
        let (mut of_key, _) = bench.open(&key("key_1"), &[]).await.unwrap();
        bench.fake.answer.store(answer, Ordering::SeqCst);
        bench.source.registry.recheck();
        for stream in [&mut of_user, &mut of_key] {
            let last = next(stream).await.closing.unwrap();
            assert_eq!((last.reason(), last.reconnect), (reason, false));
        }
    }
}

#[tokio::test]
async fn a_key_whose_time_is_over_ends_its_streams_without_waiting_for_a_heartbeat() {
    let bench = bench().await;
    let end = bench.clock.now() + Duration::from_secs(5);
    bench.fake.answer.store(end.micros(), Ordering::SeqCst);
    let (mut stream, id) = bench.open(&key("key_old"), &[]).await.unwrap();
    bench.publish("a", "1");
    assert_eq!(data(&next(&mut stream).await), ["1"]);
    let left = stream.ending.next(&stream.seat, &stream.principal, bench.clock.now());
    assert_eq!(left, Some(Duration::from_secs(5)), "it wakes up by itself");
    bench.fake.answer.store(ENDED, Ordering::SeqCst);
    bench.advance(4);
    bench.publish("a", "2");
    assert_eq!(data(&next(&mut stream).await), ["2"], "not yet");
    // What replaces a key in time is asked about in its place.
    bench.fake.answer.store(0, Ordering::SeqCst);
    bench.source.registry.refresh(&id, &key("key_new")).await.unwrap();
    bench.advance(2);
    bench.publish("a", "3");
    assert_eq!(data(&next(&mut stream).await), ["3"]);

    let end = bench.clock.now() + Duration::from_secs(5);
    bench.fake.answer.store(end.micros(), Ordering::SeqCst);
    bench.source.registry.recheck();
    bench.publish("a", "4");
    assert_eq!(data(&next(&mut stream).await), ["4"]);
    bench.fake.answer.store(ENDED, Ordering::SeqCst);
    bench.advance(5);
    let last = next(&mut stream).await.closing.unwrap();
    assert_eq!((last.reason(), last.reconnect), (closing::Reason::KeyEnded, false));
}

#[tokio::test]
async fn an_address_has_so_many_streams_and_a_place_is_given_back() {
    let bench = bench().await;
    bench.source.registry.set_limits(Limits { per_address: Some(2), ..Limits::default() });
    let enter = |address: Option<u128>| {
        bench.source.registry.enter(&key("key_1"), address, &Arc::default(), Duration::from_secs(1))
    };
    let first = enter(Some(7)).unwrap();
    let _second = enter(Some(7)).unwrap();
    let refused = enter(Some(7)).err().unwrap();
    assert_eq!((refused.kind(), refused.reason()), (Kind::ResourceExhausted, "STREAM_LIMIT"));
    let _others: Vec<_> =
        [Some(8), None, None, None].into_iter().map(|address| enter(address).unwrap()).collect();
    drop(first);
    enter(Some(7)).unwrap();
}

#[tokio::test]
async fn users_see_their_own_and_ask_for_no_more() {
    let bench = bench().await;
    let jo = bench.user("jo", 300, &["chat:*"]);
    for denied in ["events", "user:jim", "*"] {
        let refused = bench.open(&jo, &[denied]).await.err().unwrap();
        assert_eq!((refused.kind(), refused.reason()), (Kind::PermissionDenied, "TOPIC_DENIED"));
    }
    assert!(bench.source.registry.is_empty(), "who is refused has no place");
    let (mut stream, id) = bench.open(&jo, &[]).await.unwrap();
    for (topic, data) in
        [("user:jim", "1"), ("events", "2"), ("chat:9", "3"), ("broadcast", "4"), ("user:jo", "5")]
    {
        bench.publish(topic, data);
    }
    assert_eq!(data(&next(&mut stream).await), ["3", "4", "5"]);
    let update = |generation, topic: &str| Update {
        generation,
        wish: view::Wish { topics: vec![topic.into()], ..Default::default() },
    };
    let registry = &bench.source.registry;
    assert_eq!(registry.update(&id, &jo, &update(2, "chat:9")).await.unwrap(), 2);
    assert_eq!(registry.update(&id, &jo, &update(1, "chat:8")).await.unwrap(), 2, "it was overtaken");
    let denied = registry.update(&id, &jo, &update(3, "events")).await.unwrap_err();
    assert_eq!(denied.reason(), "TOPIC_DENIED");
    for stranger in [bench.user("jim", 300, &[]), key("key_maker")] {
        let refused = registry.update(&id, &stranger, &update(4, "chat:8")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound);
    }
    assert_eq!(next(&mut stream).await.updated.unwrap().generation, 2);
    for (topic, data) in [("chat:8", "1"), ("broadcast", "2"), ("user:jo", "3"), ("chat:9", "4")] {
        bench.publish(topic, data);
    }
    assert_eq!(data(&next(&mut stream).await), ["3", "4"], "their own topic always");
    // A token that may see less takes more than it leaves.
    registry.refresh(&id, &bench.user("jo", 300, &["news"])).await.unwrap();
    let last = next(&mut stream).await.closing.unwrap();
    assert_eq!((last.reason(), last.reconnect), (closing::Reason::PermissionLost, false));
}

#[tokio::test]
async fn a_key_that_replaced_another_has_its_streams() {
    let bench = bench().await;
    let (mut stream, id) = bench.open(&key("key_old"), &[]).await.unwrap();
    let registry = &bench.source.registry;
    assert_eq!(registry.refresh(&id, &key("key_other")).await.unwrap_err().kind(), Kind::NotFound);
    registry.refresh(&id, &key("key_new")).await.unwrap();
    assert_eq!(registry.refresh(&id, &key("key_old")).await.unwrap_err().kind(), Kind::NotFound);
    bench.publish("user:jo", "1");
    assert_eq!(data(&next(&mut stream).await), ["1"]);
    assert_eq!(&*stream.principal.key_id, "key_new");
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_is_there_while_one_is_open() {
    let bench = bench().await;
    bench.source.registry.set_limits(Limits { per_user: 2, ..Limits::default() });
    let (jo, jim) = (bench.user("jo", 300, &[]), bench.user("jim", 300, &[]));
    let first = bench.open(&jo, &[]).await.unwrap();
    let invisible = Wish { invisible: true, ..Wish::default() };
    let second = Stream::open(Arc::clone(&bench.source), jo.clone(), ACCESS, invisible).await.unwrap();
    let refused = bench.open(&jo, &[]).await.err().unwrap();
    assert_eq!((refused.kind(), refused.reason()), (Kind::ResourceExhausted, "STREAM_LIMIT"));
    assert!(refused.retry_delay().is_some());
    let other = bench.open(&jim, &[]).await.unwrap();
    let many = [
        bench.open(&key("key_1"), &[]).await,
        bench.open(&key("key_1"), &[]).await,
        bench.open(&key("key_1"), &[]).await,
    ];
    assert!(many.iter().all(|stream| stream.is_ok()), "keys are no users");
    assert_eq!(bench.fake.present.load(Ordering::SeqCst), 2, "who is invisible is not there");
    drop((first, other));
    assert_eq!(bench.fake.present.load(Ordering::SeqCst), 0);
    bench.open(&jo, &[]).await.unwrap();
    drop((second, many));
    assert!(bench.source.registry.is_empty());
}

#[tokio::test]
async fn what_the_log_no_longer_has_is_said_to_be_missing() {
    let bench = bench().await;
    let (mut stream, _) = bench.open(&key("key_1"), &[]).await.unwrap();
    // The stream is where the log no longer is, as after a retention that was faster than it.
    stream.position = -5;
    let message = next(&mut stream).await;
    assert_eq!(message.resync.unwrap().reason(), resync::Reason::Lag);
    assert_eq!(Cursor::decode(&message.cursor).unwrap().position, bench.source.bus.head());
}
