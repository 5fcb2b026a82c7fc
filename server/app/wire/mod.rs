//! The wiring: which part gets which.

mod router;

use super::cluster::{self, Cluster};
use super::{
    Machine, Stops, follow, inbox as inboxes, keys as api_keys, live, mail, master, retention, security,
    tokens, webhooks,
};
use crate::apikey::usage::Usage;
use crate::apikey::{ApiKeyService, Verifier};
use crate::audit::Recorder;
use crate::config::Config;
use crate::db::Db;
use crate::db::group::{Lane, Writer};
use crate::db::keyring::Keyring;
use crate::delivery::engine::Parts;
use crate::delivery::{Engine, Limits, Node};
use crate::email::activity::{ActivityContext, ActivityWrite};
use crate::email::intake::Intake;
use crate::email::library::Library;
use crate::email::links::Links;
use crate::email::recipient;
use crate::email::smtp::SmtpTransport;
use crate::email::{self, Composer, EmailChannel, EmailFanout, EnqueueWrite, SharedConfig};
use crate::error::Result;
use crate::event::bus::Bus;
use crate::event::ephemeral::EphemeralHub;
use crate::event::registry::Registry;
use crate::event::route;
use crate::event::{self, Fanout, PublishContext, PublishWrite};
use crate::id::IdGenerator;
use crate::notification::inbox::{Herald, InboxFanout, InboxService};
use crate::notification::registry::Registry as LiveStreams;
use crate::notification::token::provider::Provider;
use crate::notification::token::{Callers, Revocations, Signer, TokenService};
use crate::pb;
use crate::rpc::Authenticate as _;
use crate::rpc::admission::Admission;
use crate::rpc::http::Health;
use crate::rpc::methods::Methods;
use crate::settings::{self, SettingsService};
use crate::telemetry::Metrics;
use crate::webhook::health::{Keeper, Pace};
use crate::webhook::stats::Tally;
use crate::webhook::{Clients, Defaults, Directory, Guard, Rules, Sender, WebhookChannel, WebhookFanout};
use arc_swap::ArcSwap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// How long attempts under way may take once the server shuts down: somewhat more than the longest that one can take.
pub(super) const ATTEMPT_DRAIN: Duration = Duration::from_secs(33);
/// Mails in hand.
///
/// More are being sent at a time than there are connections: each connection has the next message at hand while the
/// server thinks about the one before.
const EMAIL_LIMITS: Limits = Limits { concurrency: 128, lane: 512, total: 1_024 };

/// The database with its keys, and what everything needs: enough for the commands that do not serve.
pub struct Ground {
    /// The database, migrated.
    pub db: Db,
    /// Its keys.
    pub keyring: Keyring,
    /// Records changes in its audit log.
    pub audit: Recorder,
    /// The time and randomness.
    pub machine: Machine,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
}

impl Ground {
    /// Opens the database, brings it up to date and opens its keys.
    pub async fn open(config: &Config, machine: Machine) -> Result<Self> {
        let masters = master::of(config, &machine.random)?;
        let db = Db::open(&config.database).await?;
        for migration in db.migrate().await? {
            tracing::info!(migration, "the database was brought up to date");
        }
        let ids = Arc::new(IdGenerator::new(machine.clock.clone(), machine.random.clone()));
        let keyring = Keyring::open(&db, &masters, &machine.random, &ids, machine.clock.now()).await?;
        let audit = Recorder::open(&db, &keyring.audit_mac, machine.clock.clone()).await?;
        Ok(Self { db, keyring, audit, machine, ids })
    }

    /// The API keys of this database.
    pub fn api_keys(&self) -> Arc<ApiKeyService> {
        let clock = self.machine.clock.clone();
        let verifier = Arc::new(Verifier::new(self.db.clone(), &self.keyring.api_key_mac, clock.clone()));
        let (db, ids, random) = (self.db.clone(), Arc::clone(&self.ids), self.machine.random.clone());
        let (policy, events) = (Arc::default(), OnceLock::new());
        let usage = Arc::new(Usage::new(Arc::clone(&ids)));
        let audit = self.audit.clone();
        Arc::new(ApiKeyService { db, verifier, policy, usage, events, audit, random, ids, clock })
    }
}

/// What knows the tokens of users.
pub(super) struct Users {
    callers: Arc<Callers>,
    tokens: Arc<TokenService>,
    provider: Arc<Provider>,
    /// Asks for a look at what can be forgotten.
    pub(super) wake: Arc<Notify>,
}

impl Users {
    async fn open(ground: &Ground, keys: &Arc<Verifier>, clients: &Clients, epoch: i64) -> Result<Self> {
        let (clock, endings) = (|| ground.machine.clock.clone(), || keys.endings().clone());
        let signer = Arc::new(Signer::new(&ground.keyring.token_mac, epoch));
        let revocations = Revocations::open(ground.db.clone(), clock(), endings()).await?;
        let provider = Provider::new(Arc::new(tokens::Web::new(clients)?), clock(), endings());
        let callers = Callers::new(
            Arc::clone(keys) as _,
            Arc::clone(keys) as _,
            Arc::clone(&signer),
            Arc::clone(&provider),
            Arc::clone(&revocations),
            clock(),
        );
        let tokens = TokenService {
            signer,
            revocations,
            minutes: AtomicU32::default(),
            audit: ground.audit.clone(),
            random: ground.machine.random.clone(),
            clock: clock(),
        };
        Ok(Self { callers: Arc::new(callers), tokens: Arc::new(tokens), provider, wake: Arc::default() })
    }
}

/// Everything, wired.
pub struct Wired {
    ground: Ground,
    node: Arc<Node>,
    pub(super) api_keys: Arc<ApiKeyService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Health,
    pub(super) methods: Arc<Methods>,
    pub(super) webhook_engine: Engine<WebhookChannel>,
    pub(super) email_engine: Engine<EmailChannel>,
    /// Asks for a look at what is too old.
    pub(super) retention: Arc<Notify>,
    settings: Arc<SettingsService>,
    config: SharedConfig,
    transport: Arc<SmtpTransport>,
    library: Arc<Library>,
    clients: Arc<Clients>,
    directory: Arc<Directory>,
    email_fanout: Arc<EmailFanout>,
    registry: Arc<Registry>,
    bus: Arc<Bus>,
    hub: Arc<EphemeralHub>,
    /// The open live streams.
    pub(super) live: Arc<LiveStreams>,
    cluster: Cluster,
    publishes: Lane<PublishWrite>,
    enqueues: Lane<EnqueueWrite>,
    activities: Lane<ActivityWrite>,
    rules: Rules,
    defaults: Arc<Defaults>,
    sender: Arc<Sender>,
    tally: Arc<Tally>,
    keeper: Arc<Keeper>,
    admission: Arc<Admission>,
    pub(super) users: Users,
    /// Looks for keys that end soon.
    pub(super) key_watch: Arc<Notify>,
    inbox: Arc<InboxService>,
    inbox_fanout: Arc<InboxFanout>,
    /// Looks for what is due in inboxes.
    pub(super) inbox_watch: Arc<Notify>,
}

impl Wired {
    pub(super) async fn new(ground: Ground, config: &Config, stops: &Stops) -> Result<Self> {
        let Ground { db, keyring, audit, machine, ids } = &ground;
        let (clock, random) = (machine.clock.clone(), machine.random.clone());
        let mut number = [0; 8];
        random.fill(&mut number);
        event::log::create(db, i64::from_le_bytes(number)).await?;
        if let Err(error) = retention::prepare(db, clock.now()).await {
            // The default partitions take what comes meanwhile.
            tracing::warn!(%error, "the partitions of the next days could not be made; it is tried again");
        }
        seed(&ground).await?;

        let given = settings::Given {
            flags: config.set.clone(),
            environment: config.environment.clone(),
            file: config.file.clone(),
        };
        let settings =
            SettingsService::open(db.clone(), keyring, audit.clone(), clock.clone(), random.clone(), &given)
                .await?;
        let settings = Arc::new(settings);
        settings.check_with(mail::check);
        settings.check_with(webhooks::check);
        settings.check_with(security::check);
        settings.check_with(tokens::check);
        settings.check_with(cluster::check);
        settings.check_caller_with(security::check_caller);
        settings.check_given()?;
        let registry = Arc::new(Registry::default());
        let email_config: SharedConfig = Arc::new(ArcSwap::from_pointee(mail::config(&settings.values())));
        let metrics = Arc::new(Metrics::default());
        let node = Arc::new(node(db, config, &random));
        node.renew(db, &clock).await?;
        let mut writer = Writer::new(db.clone());
        let parts = Parts {
            db: db.clone(),
            node: Arc::clone(&node),
            clock: clock.clone(),
            random,
            metrics: Arc::clone(&metrics),
            tracker: stops.tasks.clone(),
            stop: stops.delivery.clone(),
        };

        let guard = Guard::new(config.allow_network.clone()).with_hosts(&config.allow_host)?;
        let rules = Rules { guard, https_only: config.production };
        let (guard, lookup) = (rules.guard.clone(), Arc::clone(&machine.lookup));
        let clients = Clients::new(guard, lookup, webhooks::proxy(&settings.values()))?;
        let directory = Directory::new(keyring.sealer.clone(), Arc::clone(&clients));
        let defaults = Defaults::new(webhooks::settings(&settings.values()));
        let sender = Sender::new(Arc::clone(&defaults), clock.clone());
        let tally = Arc::new(Tally::default());
        let channel = WebhookChannel {
            directory: Arc::clone(&directory),
            sender: Arc::clone(&sender),
            tally: Arc::clone(&tally),
            db: db.clone(),
            pace: Pace::default(),
        };
        let webhook_engine = Engine::new(parts.clone(), &mut writer, Arc::new(channel), config.webhooks);
        let webhook_fanout = WebhookFanout {
            directory: Arc::clone(&directory),
            engine: webhook_engine.clone(),
            defaults: Arc::clone(&defaults),
            ids: Arc::clone(ids),
        };
        let transport = Arc::new(SmtpTransport::new(clock.clone(), machine.random.clone()));
        let library = Library::open(db.clone()).await?;
        let emails = EmailChannel::new(
            db.clone(),
            Arc::clone(&email_config),
            Arc::clone(&transport) as _,
            Composer::new(Arc::clone(&library), Links::new(&keyring.link_mac, "")),
            clock.clone(),
        );
        let email_engine = Engine::new(parts, &mut writer, Arc::new(emails), EMAIL_LIMITS);
        let intake = Intake {
            engine: email_engine.clone(),
            config: Arc::clone(&email_config),
            transport: Arc::clone(&transport) as _,
        };
        let email_fanout = Arc::new(EmailFanout {
            intake: intake.clone(),
            config: Arc::clone(&email_config),
            library: Arc::clone(&library),
            ids: Arc::clone(ids),
            routes: ArcSwap::default(),
        });

        let bus = Bus::open(db.clone()).await?;
        let hub = Arc::new(EphemeralHub::new(Arc::clone(bus.wakes())));
        let api_keys = ground.api_keys();
        let succession = Arc::new(live::Keys(Arc::clone(&api_keys)));
        let streams = LiveStreams::new(node.id(), machine.random.clone(), succession, config.unread);
        let devices = Arc::new(inboxes::Streams { hub: Arc::clone(&hub), live: Arc::clone(&streams) });
        let herald = Arc::new(Herald::new(db.clone(), devices, Arc::clone(ids), clock.clone()));
        let inbox_fanout = InboxFanout::new(Arc::clone(&herald), Arc::clone(ids));
        let fallback_mails = inboxes::FallbackMails {
            intake: intake.clone(),
            config: Arc::clone(&email_config),
            ids: Arc::clone(ids),
        };
        let fanouts: Vec<Arc<dyn Fanout>> =
            vec![Arc::new(webhook_fanout), Arc::clone(&email_fanout) as _, Arc::clone(&inbox_fanout) as _];
        let context = PublishContext {
            fanouts,
            registry: Arc::clone(&registry),
            bus: Arc::clone(&bus),
            clock: clock.clone(),
        };
        context.refresh(&mut db.reader().await?).await?;
        let publishes = writer.lane(Arc::new(context), Duration::ZERO);
        let enqueue = email::enqueue::EnqueueContext { intake, clock };
        let enqueues = writer.lane(Arc::new(enqueue), Duration::ZERO);
        let activities = writer.lane(Arc::new(ActivityContext), Duration::ZERO);

        let inbox = Arc::new(InboxService {
            db: db.clone(),
            publishes: publishes.clone(),
            results: Arc::clone(&inbox_fanout.results),
            herald,
            mails: Arc::new(fallback_mails),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
        });

        writer.start(&stops.writers, &stops.writer);
        webhook_engine.start().await?;
        email_engine.start().await?;
        let keeper = Arc::new(Keeper {
            db: db.clone(),
            directory: Arc::clone(&directory),
            defaults: Arc::clone(&defaults),
            engine: webhook_engine.clone(),
            publishes: publishes.clone(),
            audit: audit.clone(),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
            metrics: Arc::clone(&metrics),
        });
        let api_keys = ground.api_keys();
        let users = Users::open(&ground, &api_keys.verifier, &clients, bus.epoch()).await?;
        let cluster =
            Cluster::open(&ground, config, &node, &publishes, &bus, &hub, &streams, &metrics).await?;
        let wired = Self {
            node,
            api_keys,
            metrics,
            health: Health::default(),
            methods: Arc::new(Methods::from_descriptor(pb::DESCRIPTOR)?),
            webhook_engine,
            email_engine,
            retention: Arc::default(),
            settings,
            config: email_config,
            transport,
            library,
            clients,
            directory,
            email_fanout,
            registry,
            bus,
            hub,
            live: streams,
            cluster,
            publishes,
            enqueues,
            activities,
            rules,
            defaults,
            sender,
            tally,
            keeper,
            admission: Arc::new(Admission::new(machine.clock.clone())),
            users,
            key_watch: Arc::default(),
            inbox,
            inbox_fanout,
            inbox_watch: Arc::default(),
            ground,
        };
        wired.follow(stops, config.port.drain);
        Ok(wired)
    }

    /// Starts what keeps this node up to date.
    fn follow(&self, stops: &Stops, drain: Duration) {
        let stop = || stops.delivery.clone();
        let db = &self.ground.db;
        stops.tasks.spawn(Arc::clone(&self.bus).run(stop()));
        let (config, transport) = (Arc::clone(&self.config), Arc::clone(&self.transport));
        let emails = self.email_engine.clone();
        let (registry, defaults) = (Arc::clone(&self.registry), Arc::clone(&self.defaults));
        let webhooks = self.webhook_engine.clone();
        follow::settings(&self.settings, config, transport, emails, registry, defaults, webhooks);
        follow::proxy(&self.settings, Arc::clone(&self.clients));
        security::settings(&self.settings, Arc::clone(&self.admission), Arc::clone(&self.api_keys.verifier));
        let Users { tokens, provider, wake, .. } = &self.users;
        tokens::settings(&self.settings, Arc::clone(tokens), Arc::clone(provider));
        stops.tasks.spawn(tokens::forget(Arc::clone(&tokens.revocations), Arc::clone(wake), stop()));
        let clock = self.ground.machine.clock.clone();
        stops.tasks.spawn(follow::housekeeping(db.clone(), clock.clone(), stop()));
        let retention = retention::Retention {
            db: db.clone(),
            clock: clock.clone(),
            settings: Arc::clone(&self.settings),
            audit: self.ground.audit.clone(),
            wake: Arc::clone(&self.retention),
            herald: Arc::clone(&self.inbox.herald),
            stop: stop(),
        };
        stops.tasks.spawn(retention.run());
        api_keys::settings(&self.settings, Arc::clone(&self.api_keys.policy));
        live::settings(&self.settings, Arc::clone(&self.live));
        self.cluster.start(&self.settings, &self.hub, &self.live, stops);
        stops.tasks.spawn(live::look_after(Arc::clone(&self.live), drain, stops.port.clone()));
        let revoked = self.users.callers.revoked();
        stops.tasks.spawn(live::recheck(Arc::clone(&self.live), revoked, stop()));
        let watch = Arc::clone(&self.key_watch);
        stops.tasks.spawn(api_keys::announce(Arc::clone(&self.api_keys), watch, stop()));
        let herald = || Arc::clone(&self.inbox.herald);
        stops.tasks.spawn(herald().run(stop()));
        stops.tasks.spawn(herald().follow(Arc::clone(&self.bus), stop()));
        let watch = Arc::clone(&self.inbox_watch);
        stops.tasks.spawn(inboxes::run(Arc::clone(&self.inbox), watch, stop()));
        stops.tasks.spawn(api_keys::usage(Arc::clone(&self.api_keys), stop()));
        stops.tasks.spawn(follow::tally(Arc::clone(&self.tally), db.clone(), stop()));
        stops.tasks.spawn(Arc::clone(&self.keeper).run(stop()));
        let gauges = follow::Gauges {
            metrics: Arc::clone(&self.metrics),
            webhooks: self.webhook_engine.clone(),
            emails: self.email_engine.clone(),
            live: Arc::clone(&self.live),
        };
        stops.tasks.spawn(follow::gauges(gauges, stop()));
        let (health, metrics) = (self.health.clone(), Arc::clone(&self.metrics));
        stops.tasks.spawn(follow::readiness(db.clone(), health, metrics, stop()));
        // As long as there is something to ask it.
        let (looked_after, until) = (db.clone(), stops.database.clone());
        stops.watchers.spawn(async move { looked_after.look_after(until).await });
        if db.is_shared() {
            let (settings, context) = (Arc::clone(&self.settings), Arc::clone(self.publishes.context()));
            stops.tasks.spawn(follow::settings_of_other_nodes(Arc::clone(&settings), stop()));
            stops.tasks.spawn(follow::other_nodes(
                db.clone(),
                context,
                Arc::clone(&self.hub),
                Arc::clone(&self.library),
                self.webhook_engine.clone(),
                stop(),
            ));
            stops.tasks.spawn(api_keys::follow(Arc::clone(&self.api_keys), stop()));
            stops.tasks.spawn(tokens::follow(Arc::clone(&tokens.revocations), stop()));
            // The lease must outlive the attempts that a drain waits for.
            stops.watchers.spawn(follow::lease(
                Arc::clone(&self.node),
                db.clone(),
                clock,
                stops.writer.clone(),
            ));
        }
    }

    /// Gives back what was in hand; the last step of a drain.
    pub(super) async fn give_back(&self) {
        if let Err(error) = self.tally.flush(&self.ground.db).await {
            tracing::warn!(%error, "the last statistics of webhooks are lost");
        }
        if let Err(error) = self.keeper.flush().await {
            tracing::warn!(%error, "the last that was noted of the health of webhooks is lost");
        }
        if let Err(error) = self.api_keys.usage.flush(&self.ground.db).await {
            tracing::warn!(%error, "the last uses of API keys are lost");
        }
        let gave = async {
            self.api_keys.give_back_credits().await?;
            self.webhook_engine.release().await?;
            self.email_engine.release().await?;
            self.node.leave(&self.ground.db).await
        };
        if let Err(error) = gave.await {
            tracing::warn!(%error, "deliveries in hand could not be given back; they are taken up when the lease ends");
        }
    }
}

fn node(db: &Db, config: &Config, random: &crate::secret::SharedRandom) -> Node {
    let mut number = [0; 8];
    random.fill(&mut number);
    let id = i64::from_le_bytes(number) & i64::MAX;
    if db.is_shared() { Node::among_others(id, config.lease) } else { Node::alone(id) }
}

/// Gives a new database its default routes and lists, once.
async fn seed(ground: &Ground) -> Result<()> {
    let (ids, now) = (Arc::clone(&ground.ids), ground.machine.clock.now());
    ground
        .db
        .transaction(move |conn| {
            Box::pin(async move {
                if crate::db::revision::mark(conn, "seeded").await? {
                    recipient::seed(conn, now).await?;
                    route::seed(conn, &ids, now).await?;
                }
                if crate::db::revision::mark(conn, "seeded_webhook_health").await? {
                    route::seed_webhook_health(conn, &ids, now).await?;
                }
                Ok(())
            })
        })
        .await
}
