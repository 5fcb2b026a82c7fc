//! Presence: one arrival and one departure for each user, whatever the number of devices, nodes and crashes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use switchboard::clock::{Clock, ManualClock, SystemClock};
use switchboard::db::group::{Lane, Writer};
use switchboard::db::schema::{presence_nodes, presence_users};
use switchboard::db::{Db, Target};
use switchboard::delivery::Node;
use switchboard::event::bus::Bus;
use switchboard::event::registry::Registry;
use switchboard::event::{PublishContext, PublishWrite, log};
use switchboard::id::IdGenerator;
use switchboard::notification::attendance::Attendance;
use switchboard::notification::presence::{Parts, Presence};
use switchboard::on;
use switchboard::rpc::User;
use switchboard::secret::SystemRandom;
use switchboard_client::notification::v1::ListPresenceRequest;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::harness::{eventually, on_both, postgres, status};

const ALIVE: Duration = Duration::from_secs(600);
/// More than the linger, and less than two of it.
const LINGER: Duration = Duration::from_secs(16);

/// A database that nodes come to and go from.
struct Ground {
    db: Db,
    publishes: Lane<PublishWrite>,
    clock: Arc<ManualClock>,
    ids: Arc<IdGenerator>,
    _folder: tempfile::TempDir,
}

/// What knows who is online, at one node.
struct AtNode {
    presence: Arc<Presence>,
    node: Arc<Node>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Ground {
    async fn new(shared: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = if shared {
            Target::Postgres(postgres::fresh_database().await)
        } else {
            Target::Sqlite(folder.path().join("test.db"))
        };
        let db = Db::open(&target).await.unwrap();
        db.migrate().await.unwrap();
        log::create(&db, 7).await.unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let context = PublishContext {
            fanouts: Vec::new(),
            registry: Arc::new(Registry::default()),
            bus: Bus::open(db.clone()).await.unwrap(),
            clock: clock.clone(),
        };
        let mut writer = Writer::new(db.clone());
        let publishes = writer.lane(Arc::new(context), Duration::ZERO);
        writer.start(&TaskTracker::new(), &CancellationToken::new());
        let ids = Arc::new(IdGenerator::new(clock.clone(), Arc::new(SystemRandom)));
        Self { db, publishes, clock, ids, _folder: folder }
    }

    /// A node that lives for `lease` after this, on PostgreSQL.
    async fn node(&self, id: i64, lease: Duration) -> AtNode {
        let node = if self.db.is_shared() { Node::among_others(id, lease) } else { Node::alone(id) };
        let node = Arc::new(node);
        self.renew(&node).await;
        let presence = Presence::new(Parts {
            db: self.db.clone(),
            node: Arc::clone(&node),
            publishes: self.publishes.clone(),
            ids: Arc::clone(&self.ids),
            clock: self.clock.clone(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&presence).run(stop.clone()));
        AtNode { presence, node, stop, task }
    }

    async fn renew(&self, node: &Node) {
        let clock: switchboard::clock::SharedClock = self.clock.clone();
        node.renew(&self.db, &clock).await.unwrap();
    }

    /// The events of presence in their order, as `+jo` and `-jo`.
    async fn told(&self) -> Vec<String> {
        let mut conn = self.db.reader().await.unwrap();
        let events = log::read_after(&mut conn, 0, 100_000).await.unwrap();
        let told = events.iter().map(|event| {
            assert_eq!(&*event.fact.topic, "presence");
            let data: serde_json::Value = serde_json::from_str(&event.fact.data).unwrap();
            let user_id = data["user_id"].as_str().unwrap();
            assert!(data["username"].is_string());
            match &*event.fact.event_type {
                "user.online" => format!("+{user_id}"),
                "user.offline" => format!("-{user_id}"),
                other => panic!("{other}"),
            }
        });
        told.collect()
    }

    async fn wait_for(&self, expected: &[&str]) {
        eventually(&format!("{expected:?}"), async || {
            let told = self.told().await;
            assert!(told.len() <= expected.len(), "{told:?} and not {expected:?}");
            (told == expected).then_some(())
        })
        .await;
    }

    /// Everything that was gathered is written once somebody who came after it is.
    async fn settle(&self, at: &AtNode, marker: &str) {
        let _here = at.arrive(marker);
        let marker = format!("+{marker}");
        eventually("the marker is told of", async || self.told().await.contains(&marker).then_some(())).await;
    }

    async fn rows(&self) -> Vec<(i64, String)> {
        let mut conn = self.db.reader().await.unwrap();
        on!(&mut conn, |c| presence_nodes::table.load(c).await).unwrap()
    }

    async fn set(&self, user_id: &'static str, announced: i64) {
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    let update = diesel::update(presence_users::table.find(user_id))
                        .set(presence_users::announced.eq(presence_users::generation - announced));
                    on!(conn, |c| update.execute(c).await)?;
                    Ok(())
                })
            })
            .await
            .unwrap();
    }
}

impl AtNode {
    fn arrive(&self, user_id: &str) -> Box<dyn Send> {
        let now = SystemClock.now();
        self.presence.arrived(&User {
            id: user_id.into(),
            name: format!("{user_id}'s name"),
            topics: Vec::new(),
            event_types: Vec::new(),
            issued_at: now,
            expires_at: now,
        })
    }

    /// As when the process is killed: nothing more is written.
    async fn kill(self, streams: Vec<Box<dyn Send>>) {
        self.stop.cancel();
        self.task.await.unwrap();
        drop(streams);
    }

    async fn online(&self) -> Vec<String> {
        // Somebody may come or go between the two reads of a list.
        for _ in 0..10 {
            let (users, count) = self.presence.list(&[], None, 1_000).await.unwrap();
            if users.len() as i64 == count {
                return users.into_iter().map(|user| user.user_id).collect();
            }
        }
        panic!("as many are listed as are counted");
    }
}

macro_rules! on_both_databases {
    ($(async fn $name:ident($ground:ident: Ground) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn run($ground: Ground) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    run(Ground::new(false).await).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    run(Ground::new(true).await).await;
                }
            }
        )*
    };
}

on_both_databases! {
    async fn a_user_comes_once_and_goes_once_whatever_their_devices(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        let phone = at.arrive("jo");
        ground.wait_for(&["+jo"]).await;
        let laptop = at.arrive("jo");
        drop(phone);
        ground.clock.advance(2 * LINGER);
        ground.settle(&at, "m1").await;
        assert_eq!(at.online().await, ["jo", "m1"]);
        drop(laptop);
        ground.clock.advance(Duration::from_secs(14));
        ground.settle(&at, "m2").await;
        assert_eq!(at.online().await, ["jo", "m1", "m2"], "in the linger");
        let phone = at.arrive("jo");
        ground.clock.advance(2 * LINGER);
        eventually("the others go", async || (at.online().await == ["jo"]).then_some(())).await;
        drop(phone);
        ground.clock.advance(LINGER);
        // They are told of after they went.
        eventually("jo goes", async || {
            let told = ground.told().await;
            (told.iter().filter(|told| told.ends_with("jo")).collect::<Vec<_>>() == ["+jo", "-jo"]).then_some(())
        })
        .await;
        assert!(at.online().await.is_empty());
        assert!(ground.rows().await.is_empty());
    }

    async fn a_client_that_flaps_costs_nothing_within_its_linger(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        drop(at.arrive("jo"));
        ground.wait_for(&["+jo"]).await;
        for _ in 0..500 {
            drop(at.arrive("jo"));
            ground.clock.advance(Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
        ground.clock.advance(LINGER);
        ground.wait_for(&["+jo", "-jo"]).await;
    }

    async fn many_who_come_at_once_are_all_told_of_once(ground: Ground) {
        const USERS: usize = 3_000;
        let at = ground.node(1, ALIVE).await;
        let here: Vec<_> = (0..USERS).map(|n| at.arrive(&format!("u{n}"))).collect();
        eventually("all are told of", async || (ground.told().await.len() >= USERS).then_some(())).await;
        let mut counts: HashMap<String, usize> = HashMap::new();
        for told in ground.told().await {
            *counts.entry(told).or_default() += 1;
        }
        assert!(counts.len() == USERS && counts.values().all(|count| *count == 1));
        drop(here);
        ground.clock.advance(LINGER);
        eventually("all go", async || (ground.told().await.len() == 2 * USERS).then_some(())).await;
        assert!(ground.rows().await.is_empty());
    }

    async fn what_a_crash_kept_from_being_published_is_published_once(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        let jo = at.arrive("jo");
        let al = at.arrive("al");
        eventually("both", async || (ground.told().await.len() == 2).then_some(())).await;
        // Published, and killed before that was noted.
        ground.set("jo", 1).await;
        // As if al's last three changes had not been published.
        ground.set("al", 3).await;
        at.kill(vec![jo, al]).await;
        let at = ground.node(1, ALIVE).await;
        let both = [at.arrive("jo"), at.arrive("al")];
        eventually("three of al", async || {
            (ground.told().await.iter().filter(|told| told.ends_with("al")).count() == 3).then_some(())
        })
        .await;
        ground.settle(&at, "m").await;
        let told = ground.told().await;
        let of = |user: &str| told.iter().filter(|told| told.ends_with(user)).cloned().collect::<Vec<_>>();
        assert_eq!(of("jo"), ["+jo"], "the request id makes it nothing");
        // The last of the three had been published at its time.
        assert_eq!(of("al"), ["+al", "+al", "-al"]);
        drop(both);
    }

    async fn users_of_a_process_that_was_killed_linger_and_go_unless_they_come_back(ground: Ground) {
        let lease = Duration::from_millis(300);
        let one = ground.node(1, lease).await;
        let streams = ["jo", "al", "cy"].map(|user| one.arrive(user)).into();
        eventually("all three", async || (ground.told().await.len() == 3).then_some(())).await;
        one.kill(streams).await;
        let other = ground.node(2, ALIVE).await;
        let al = other.arrive("al");
        eventually("the other node has them", async || {
            let rows = ground.rows().await;
            (rows.len() == 3 && rows.iter().all(|(node, _)| *node == 2)).then_some(())
        })
        .await;
        ground.clock.advance(Duration::from_secs(10));
        let jo = other.arrive("jo");
        // The other node counts from when it knew of them, which is later than its rows.
        eventually("cy goes", async || {
            ground.clock.advance(Duration::from_secs(1));
            ground.told().await.contains(&"-cy".into()).then_some(())
        })
        .await;
        assert_eq!(ground.told().await.len(), 4);
        assert_eq!(other.online().await, ["al", "jo"]);
        drop((jo, al));
        ground.clock.advance(LINGER);
        eventually("all go", async || (ground.told().await.len() == 6).then_some(())).await;
        assert!(ground.rows().await.is_empty());
    }

    async fn without_a_linger_a_user_goes_at_once(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        at.presence.set_linger(Duration::ZERO);
        let jo = at.arrive("jo");
        ground.wait_for(&["+jo"]).await;
        drop(jo);
        ground.wait_for(&["+jo", "-jo"]).await;
    }

    async fn users_who_went_long_ago_are_forgotten(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        drop(at.arrive("jo"));
        let al = at.arrive("al");
        eventually("both", async || (ground.told().await.len() == 2).then_some(())).await;
        ground.clock.advance(LINGER);
        eventually("jo goes", async || (ground.told().await.len() == 3).then_some(())).await;
        ground.clock.advance(Duration::from_secs(47 * 60 * 60));
        let known = async || {
            let mut conn = ground.db.reader().await.unwrap();
            let query = presence_users::table.order(presence_users::user_id).select(presence_users::user_id);
            let known: Vec<String> = on!(&mut conn, |c| query.load(c).await).unwrap();
            known
        };
        at.presence.tidy().await.unwrap();
        assert_eq!(known().await, ["al", "jo"]);
        ground.clock.advance(Duration::from_secs(2 * 60 * 60));
        at.presence.tidy().await.unwrap();
        assert_eq!(known().await, ["al"]);
        let told = ground.told().await.len();
        let jo = at.arrive("jo");
        eventually("jo is new", async || (ground.told().await.len() == told + 1).then_some(())).await;
        drop((al, jo));
    }

    async fn who_is_online_can_be_listed_by_page_and_by_name(ground: Ground) {
        let at = ground.node(1, ALIVE).await;
        let here: Vec<_> = (0..7).map(|n| at.arrive(&format!("u{n}"))).collect();
        eventually("all seven", async || (at.online().await.len() == 7).then_some(())).await;
        let (page, count) = at.presence.list(&[], Some("u2"), 3).await.unwrap();
        assert_eq!(count, 7);
        let page: BTreeMap<_, _> = page.into_iter().map(|user| (user.user_id, user.username)).collect();
        assert_eq!(page.keys().collect::<Vec<_>>(), ["u3", "u4", "u5"]);
        assert_eq!(page["u3"], "u3's name");
        let wanted = ["u6", "u1", "nobody"].map(str::to_owned);
        let (found, count) = at.presence.list(&wanted, None, 10).await.unwrap();
        assert_eq!(found.iter().map(|user| user.user_id.as_str()).collect::<Vec<_>>(), ["u1", "u6"]);
        assert_eq!(count, 2);
        drop(here);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_two_nodes_goes_when_both_have_lost_them() {
    let ground = Ground::new(true).await;
    let (one, other) = (ground.node(1, ALIVE).await, ground.node(2, ALIVE).await);
    let phone = one.arrive("jo");
    ground.wait_for(&["+jo"]).await;
    let laptop = other.arrive("jo");
    ground.settle(&other, "m").await;
    assert_eq!(ground.rows().await.iter().filter(|(_, user)| user == "jo").count(), 2);
    drop(phone);
    ground.clock.advance(LINGER);
    eventually("the first has let go", async || {
        (!ground.rows().await.contains(&(1, "jo".to_owned()))).then_some(())
    })
    .await;
    assert!(other.online().await.contains(&"jo".to_owned()));
    drop(laptop);
    ground.clock.advance(LINGER);
    eventually("jo goes", async || ground.told().await.contains(&"-jo".into()).then_some(())).await;
    let told = ground.told().await;
    assert_eq!(told.iter().filter(|told| told.ends_with("jo")).count(), 2, "{told:?}");
}

/// Two nodes that one user's devices come to and go from at random: what is told alternates, and ends with how it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_user_alternates_however_nodes_race() {
    let ground = Ground::new(true).await;
    let nodes = [ground.node(1, ALIVE).await, ground.node(2, ALIVE).await];
    for node in &nodes {
        node.presence.set_linger(Duration::ZERO);
    }
    let mut turns = Vec::new();
    for node in &nodes {
        turns.push(async move {
            for _ in 0..150 {
                let here = node.arrive("jo");
                crate::harness::breath().await;
                drop(here);
                tokio::task::yield_now().await;
            }
        });
    }
    futures_util::future::join_all(turns).await;
    eventually("jo goes", async || {
        (ground.rows().await.is_empty() && ground.told().await.last().is_some_and(|last| last == "-jo"))
            .then_some(())
    })
    .await;
    let told = ground.told().await;
    for (n, told) in told.iter().enumerate() {
        assert_eq!(told, if n % 2 == 0 { "+jo" } else { "-jo" }, "at {n}");
    }
    // How often it was noticed that nobody was there is chance.
    assert!(told.len() >= 2 && told.len().is_multiple_of(2), "{}", told.len());
}

/// A node that was only thought dead notes its users anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_has_its_users_again() {
    let ground = Ground::new(true).await;
    let one = ground.node(1, Duration::from_millis(200)).await;
    let jo = one.arrive("jo");
    ground.wait_for(&["+jo"]).await;
    let other = ground.node(2, ALIVE).await;
    eventually("the other node has jo", async || {
        (ground.rows().await == [(2, "jo".to_owned())]).then_some(())
    })
    .await;
    ground.clock.advance(LINGER);
    ground.wait_for(&["+jo", "-jo"]).await;
    eventually("the lease has ended here too", async || (!one.node.holds_lease()).then_some(())).await;
    ground.renew(&one.node).await;
    ground.wait_for(&["+jo", "-jo", "+jo"]).await;
    drop((jo, other));
}

on_both! {
    async fn presence_is_asked_for_over_the_wire(server: Server) {
        let reader = server.client_that_may(&["presence:read"]).await;
        let answer = reader.notifications().list_presence(ListPresenceRequest::default()).await.unwrap().into_inner();
        assert_eq!((answer.users.len(), answer.online), (0, 0));
        let bad = ListPresenceRequest { user_ids: vec!["jo".into(), "a b".into()], ..Default::default() };
        status::expect_violations(&reader.notifications().list_presence(bad).await.unwrap_err(), &["user_ids[1]"]);
        let many = ListPresenceRequest { user_ids: vec!["jo".into(); 501], ..Default::default() };
        status::expect_violations(&reader.notifications().list_presence(many).await.unwrap_err(), &["user_ids"]);
        let other = server.client_that_may(&["notifications:read"]).await;
        let refused = other.notifications().list_presence(ListPresenceRequest::default()).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
    }
}
