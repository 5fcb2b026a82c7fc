//! The wiring: which part gets which.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tonic::service::Routes;

use super::{Machine, Stops, files, follow, mail, webhooks};
use crate::apikey::{self, ApiKeyService, Verifier};
use crate::config::Config;
use crate::db::Db;
use crate::db::group::{Lane, Writer};
use crate::db::keyring::Keyring;
use crate::delivery::engine::Parts;
use crate::delivery::{Engine, Limits, Node};
use crate::email::activity::{ActivityContext, ActivityWrite};
use crate::email::bounce::BounceService;
use crate::email::intake::Intake;
use crate::email::library::{Library, LibraryService, rpc::Rpc as TemplateRpc};
use crate::email::links::{self, Links};
use crate::email::queue::QueueService;
use crate::email::recipient::{self, RecipientListService};
use crate::email::smtp::SmtpTransport;
use crate::email::suppression::{self, SuppressionService};
use crate::email::trial::SmtpTrial;
use crate::email::{self, Composer, EmailChannel, EmailFanout, EmailService, EnqueueWrite, SharedConfig};
use crate::error::Result;
use crate::event::bus::Bus;
use crate::event::registry::{Registry, RegistryService};
use crate::event::route::{self, RouteService};
use crate::event::rpc::{EventRpc, RouteRpc};
use crate::event::{self, EventService, Fanout, PublishContext, PublishWrite};
use crate::id::IdGenerator;
use crate::notification;
use crate::pb;
use crate::pb::switchboard as contract;
use crate::rpc::http::Health;
use crate::rpc::methods::Methods;
use crate::rpc::{self, Authenticate, MESSAGE_LIMIT, Shared};
use crate::settings::{self, SettingsService};
use crate::telemetry::Metrics;
use crate::webhook::keys::{self, PublishedKeys};
use crate::webhook::stats::Tally;
use crate::webhook::{
    self, Defaults, Directory, Guard, Rules, Sender, WebhookChannel, WebhookFanout, WebhookService,
};

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
    /// The time and randomness.
    pub machine: Machine,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
}

impl Ground {
    /// Opens the database, brings it up to date and opens its keys.
    pub async fn open(config: &Config, machine: Machine) -> Result<Self> {
        let master = files::master_key(config, &machine.random)?;
        let db = Db::open(&config.database).await?;
        for migration in db.migrate().await? {
            tracing::info!(migration, "the database was brought up to date");
        }
        let ids = Arc::new(IdGenerator::new(machine.clock.clone(), machine.random.clone()));
        let keyring = Keyring::open(&db, &master, &machine.random, &ids, machine.clock.now()).await?;
        Ok(Self { db, keyring, machine, ids })
    }

    /// The API keys of this database.
    pub fn api_keys(&self) -> Arc<ApiKeyService> {
        let clock = self.machine.clock.clone();
        let verifier =
            Arc::new(Verifier::new(self.db.clone(), self.keyring.api_key_mac.clone(), clock.clone()));
        let (db, ids, random) = (self.db.clone(), Arc::clone(&self.ids), self.machine.random.clone());
        Arc::new(ApiKeyService { db, verifier, random, ids, clock })
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
    settings: Arc<SettingsService>,
    config: SharedConfig,
    transport: Arc<SmtpTransport>,
    library: Arc<Library>,
    directory: Arc<Directory>,
    email_fanout: Arc<EmailFanout>,
    registry: Arc<Registry>,
    bus: Arc<Bus>,
    publishes: Lane<PublishWrite>,
    enqueues: Lane<EnqueueWrite>,
    activities: Lane<ActivityWrite>,
    rules: Rules,
    defaults: Arc<Defaults>,
    sender: Arc<Sender>,
    tally: Arc<Tally>,
}

impl Wired {
    pub(super) async fn new(ground: Ground, config: &Config, stops: &Stops) -> Result<Self> {
        let Ground { db, keyring, machine, ids } = &ground;
        let (clock, random) = (machine.clock.clone(), machine.random.clone());
        let mut number = [0; 8];
        random.fill(&mut number);
        event::log::create(db, i64::from_le_bytes(number)).await?;
        seed(&ground).await?;

        let given = settings::Given {
            flags: config.set.clone(),
            environment: config.environment.clone(),
            file: config.file.clone(),
        };
        let settings =
            SettingsService::open(db.clone(), keyring, clock.clone(), random.clone(), &given).await?;
        let settings = Arc::new(settings);
        settings.check_with(mail::check);
        settings.check_with(webhooks::check);
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
        let directory = Directory::new(keyring.sealer.clone());
        let defaults = Defaults::new(webhooks::settings(&settings.values()));
        let (guard, lookup) = (rules.guard.clone(), Arc::clone(&machine.lookup));
        let sender = Sender::new(guard, lookup, Arc::clone(&defaults), clock.clone())?;
        let tally = Arc::new(Tally::default());
        let channel = WebhookChannel {
            directory: Arc::clone(&directory),
            sender: Arc::clone(&sender),
            tally: Arc::clone(&tally),
            db: db.clone(),
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
        let fanouts: Vec<Arc<dyn Fanout>> =
            vec![Arc::new(webhook_fanout), Arc::clone(&email_fanout) as Arc<dyn Fanout>];
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

        writer.start(&stops.writers, &stops.writer);
        webhook_engine.start().await?;
        email_engine.start().await?;
        let wired = Self {
            node,
            api_keys: ground.api_keys(),
            metrics,
            health: Health::default(),
            methods: Arc::new(Methods::from_descriptor(pb::DESCRIPTOR)?),
            webhook_engine,
            email_engine,
            settings,
            config: email_config,
            transport,
            library,
            directory,
            email_fanout,
            registry,
            bus,
            publishes,
            enqueues,
            activities,
            rules,
            defaults,
            sender,
            tally,
            ground,
        };
        wired.follow(stops);
        Ok(wired)
    }

    /// Starts what keeps this node up to date.
    fn follow(&self, stops: &Stops) {
        let stop = || stops.delivery.clone();
        let db = &self.ground.db;
        stops.tasks.spawn(Arc::clone(&self.bus).run(stop()));
        let (config, transport) = (Arc::clone(&self.config), Arc::clone(&self.transport));
        let emails = self.email_engine.clone();
        let (registry, defaults) = (Arc::clone(&self.registry), Arc::clone(&self.defaults));
        let webhooks = self.webhook_engine.clone();
        follow::settings(&self.settings, config, transport, emails, registry, defaults, webhooks);
        let clock = self.ground.machine.clock.clone();
        stops.tasks.spawn(follow::housekeeping(db.clone(), clock.clone(), stop()));
        stops.tasks.spawn(follow::tally(Arc::clone(&self.tally), db.clone(), stop()));
        let gauges = follow::Gauges {
            metrics: Arc::clone(&self.metrics),
            webhooks: self.webhook_engine.clone(),
            emails: self.email_engine.clone(),
            bus: Arc::clone(&self.bus),
        };
        stops.tasks.spawn(follow::gauges(gauges, stop()));
        if db.is_shared() {
            let (settings, context) = (Arc::clone(&self.settings), Arc::clone(self.publishes.context()));
            stops.tasks.spawn(follow::settings_of_other_nodes(Arc::clone(&settings), stop()));
            stops.tasks.spawn(follow::other_nodes(
                db.clone(),
                context,
                Arc::clone(&self.library),
                self.webhook_engine.clone(),
                stop(),
            ));
            // The lease must outlive the attempts that a drain waits for.
            tokio::spawn(follow::lease(Arc::clone(&self.node), db.clone(), clock, stops.writer.clone()));
        }
    }

    /// Everything that the port serves.
    pub(super) async fn router(&self, config: &Config, stops: &Stops) -> Result<Router> {
        let Ground { db, keyring, machine, ids } = &self.ground;
        let clock = || machine.clock.clone();
        let authenticate: Arc<dyn Authenticate> = Arc::clone(&self.api_keys.verifier) as _;
        let events = Arc::new(EventService {
            db: db.clone(),
            publishes: self.publishes.clone(),
            registry: Arc::clone(&self.registry),
            bus: Arc::clone(&self.bus),
            ids: Arc::clone(ids),
            clock: clock(),
        });
        let registry =
            || RegistryService { db: db.clone(), registry: Arc::clone(&self.registry), clock: clock() };
        let routes = RouteService {
            db: db.clone(),
            email: Arc::clone(&self.email_fanout) as _,
            ids: Arc::clone(ids),
            clock: clock(),
        };
        let lists = RecipientListService {
            db: db.clone(),
            routes: Arc::clone(&self.email_fanout) as _,
            clock: clock(),
        };
        let suppressions = SuppressionService { db: db.clone(), clock: clock() };
        let webhooks = WebhookService {
            db: db.clone(),
            directory: Arc::clone(&self.directory),
            sealer: keyring.sealer.clone(),
            random: machine.random.clone(),
            rules: self.rules.clone(),
            engine: self.webhook_engine.clone(),
            sender: Arc::clone(&self.sender),
            tally: Arc::clone(&self.tally),
            event_types: registry(),
            ids: Arc::clone(ids),
            clock: clock(),
        };
        let queue = QueueService {
            db: db.clone(),
            engine: self.email_engine.clone(),
            transport: Arc::clone(&self.transport) as _,
            config: Arc::clone(&self.config),
            clock: clock(),
        };
        let emails = EmailService {
            enqueue: self.enqueues.clone(),
            library: Arc::clone(&self.library),
            ids: Arc::clone(ids),
            clock: clock(),
        };
        let source = notification::stream::Source {
            db: db.clone(),
            bus: Arc::clone(&self.bus),
            authenticate: Arc::clone(&authenticate),
            clock: clock(),
            stop: stops.port.clone(),
        };

        let templates = TemplateRpc(Arc::new(LibraryService {
            db: db.clone(),
            library: Arc::clone(&self.library),
            config: Arc::clone(&self.config),
            clock: clock(),
        }));
        let bounces = BounceService { db: db.clone(), ids: Arc::clone(ids), clock: clock() };
        let settings = Arc::clone(&self.settings);
        let preview = move |new| mail::preview(&settings, new);
        let trial = SmtpTrial { preview: Arc::new(preview), ids: Arc::clone(ids), clock: clock() };
        let emails = email::rpc::Rpc {
            emails: Arc::new(emails),
            queue: Arc::new(queue),
            trial: Arc::new(trial),
            bounces: Arc::new(bounces),
        };
        let keys = apikey::rpc::Rpc { keys: Arc::clone(&self.api_keys), methods: Arc::clone(&self.methods) };
        let live = notification::rpc::Rpc { source, metrics: Arc::clone(&self.metrics) };
        let watches = settings::Watches::new(Arc::clone(&authenticate), stops.port.clone());
        let settings_rpc = settings::rpc::Rpc { settings: Arc::clone(&self.settings), watches };
        macro_rules! service {
            ($package:ident, $module:ident, $server:ident, $service:expr) => {
                service!($package, $module, $server, $service, MESSAGE_LIMIT)
            };
            ($package:ident, $module:ident, $server:ident, $service:expr, $limit:expr) => {
                contract::$package::v1::$module::$server::new($service).max_decoding_message_size($limit)
            };
        }
        let event_rpc = EventRpc { events: Arc::clone(&events), registry: registry() };
        let services = Routes::new(service!(event, event_service_server, EventServiceServer, event_rpc))
            .add_service(service!(
                event,
                route_service_server,
                RouteServiceServer,
                RouteRpc { routes, events }
            ))
            .add_service(service!(
                webhook,
                webhook_service_server,
                WebhookServiceServer,
                webhook::rpc::Rpc(Arc::new(webhooks))
            ))
            .add_service(service!(
                email,
                email_service_server,
                EmailServiceServer,
                emails,
                email::rpc::MESSAGE_LIMIT
            ))
            .add_service(service!(email, template_service_server, TemplateServiceServer, templates))
            .add_service(service!(
                email,
                recipient_list_service_server,
                RecipientListServiceServer,
                recipient::rpc::Rpc(lists)
            ))
            .add_service(service!(
                email,
                suppression_service_server,
                SuppressionServiceServer,
                suppression::rpc::Rpc(suppressions)
            ))
            .add_service(service!(apikey, api_key_service_server, ApiKeyServiceServer, keys))
            .add_service(service!(settings, settings_service_server, SettingsServiceServer, settings_rpc))
            .add_service(service!(
                notification,
                notification_service_server,
                NotificationServiceServer,
                live
            ));
        let recipients = links::http::Recipients {
            links: Links::new(&keyring.link_mac, ""),
            activities: self.activities.clone(),
            config: Arc::clone(&self.config),
            ids: Arc::clone(ids),
            clock: clock(),
        };
        let shared = Shared {
            authenticate,
            metrics: Arc::clone(&self.metrics),
            allowed_origins: config.allow_origin.clone(),
            reflection: config.reflection,
        };
        let published = PublishedKeys { directory: Arc::clone(&self.directory), clock: clock() };
        let pages = links::http::routes(recipients).merge(keys::routes(published));
        rpc::router(services, &shared, self.health.clone(), pages).await
    }

    /// Gives back what was in hand; the last step of a drain.
    pub(super) async fn give_back(&self) {
        if let Err(error) = self.tally.flush(&self.ground.db).await {
            tracing::warn!(%error, "the last statistics of webhooks are lost");
        }
        let gave = async {
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
                Ok(())
            })
        })
        .await
}
