//! What the port serves.

use super::super::{Stops, mail};
use super::{Ground, Wired};
use crate::apikey;
use crate::audit::{self, AuditService};
use crate::config::Config;
use crate::email::bounce::BounceService;
use crate::email::library::{LibraryService, rpc::Rpc as TemplateRpc};
use crate::email::links::{self, Links};
use crate::email::queue::QueueService;
use crate::email::recipient::{self, RecipientListService};
use crate::email::retention::EmailTraces;
use crate::email::suppression::{self, SuppressionService};
use crate::email::trial::SmtpTrial;
use crate::email::{self, EmailService};
use crate::error::Result;
use crate::event::EventService;
use crate::event::registry::RegistryService;
use crate::event::route::{Channels, RouteService};
use crate::event::rpc::{EventRpc, RouteRpc};
use crate::notification;
use crate::notification::inbox::{Changed, InboxTraces, UserBelongings};
use crate::notification::presence::PresenceBelongings;
use crate::notification::stream::Valid;
use crate::pb::switchboard as contract;
use crate::portable::{self, Configuration, Portable};
use crate::rpc::{self, Authenticate, MESSAGE_LIMIT, Shared};
use crate::settings;
use crate::webhook::keys::{self, PublishedKeys};
use crate::webhook::pull::Pulls;
use crate::webhook::{self, WebhookService, WebhookTraces};
use axum::Router;
use std::sync::Arc;
use tonic::service::Routes;

impl Wired {
    /// Everything that the port serves.
    pub(in crate::app) async fn router(&self, config: &Config, stops: &Stops) -> Result<Router> {
        let Ground { db, keyring, audit: recorder, machine, ids } = &self.ground;
        let clock = || machine.clock.clone();
        let audit = || recorder.clone();
        let (changed, herald) = (Changed::default(), Arc::clone(&self.inbox.herald));
        let authenticate: Arc<dyn Authenticate> = Arc::clone(&self.users.callers) as _;
        let events = Arc::new(EventService {
            db: db.clone(),
            publishes: self.publishes.clone(),
            registry: Arc::clone(&self.registry),
            bus: Arc::clone(&self.bus),
            hub: Arc::clone(&self.hub),
            traces: Arc::new([
                Arc::new(WebhookTraces),
                Arc::new(EmailTraces),
                Arc::new(InboxTraces { changed: changed.clone() }),
            ]),
            belongings: Arc::new([
                Arc::new(UserBelongings { changed, herald }),
                Arc::new(PresenceBelongings),
            ]),
            audit: audit(),
            ids: Arc::clone(ids),
            clock: clock(),
        });
        // Set once for each server, and this is the only place.
        let _ = self.api_keys.events.set(Arc::clone(&events));
        let registry = || RegistryService {
            db: db.clone(),
            registry: Arc::clone(&self.registry),
            audit: audit(),
            clock: clock(),
        };
        let routes = || RouteService {
            db: db.clone(),
            channels: Channels {
                email: Arc::clone(&self.email_fanout) as _,
                inbox: Arc::clone(&self.inbox_fanout) as _,
            },
            audit: audit(),
            ids: Arc::clone(ids),
            clock: clock(),
        };
        let lists = || RecipientListService {
            db: db.clone(),
            routes: Arc::clone(&self.email_fanout) as _,
            audit: audit(),
            clock: clock(),
        };
        let suppressions = SuppressionService { db: db.clone(), audit: audit(), clock: clock() };
        let webhooks = Arc::new(WebhookService {
            db: db.clone(),
            directory: Arc::clone(&self.directory),
            sealer: keyring.sealer.clone(),
            random: machine.random.clone(),
            rules: self.rules.clone(),
            engine: self.webhook_engine.clone(),
            sender: Arc::clone(&self.sender),
            tally: Arc::clone(&self.tally),
            pulls: Pulls::new(Arc::clone(&self.bus), stops.port.clone()),
            event_types: registry(),
            audit: audit(),
            ids: Arc::clone(ids),
            clock: clock(),
        });
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
            hub: Arc::clone(&self.hub),
            registry: Arc::clone(&self.live),
            valid: Valid::new(Arc::clone(&authenticate), Arc::clone(&self.admission)),
            attendance: Arc::new(Arc::clone(&self.cluster.presence)),
            metrics: Arc::clone(&self.metrics),
            clock: clock(),
        };

        let library = Arc::new(LibraryService {
            db: db.clone(),
            library: Arc::clone(&self.library),
            config: Arc::clone(&self.config),
            audit: audit(),
            clock: clock(),
        });
        let configuration = Arc::new(Configuration {
            db: db.clone(),
            // Each after those that its items may name.
            parts: Arc::new([
                Arc::clone(&self.settings) as Arc<dyn Portable>,
                Arc::new(registry()),
                Arc::new(lists()),
                Arc::clone(&library) as _,
                Arc::new(routes()),
                Arc::clone(&webhooks) as _,
            ]),
            sealer: keyring.sealer.clone(),
            passphrases: self.settings.passphrases(),
            clock: clock(),
        });
        let templates = TemplateRpc(library);
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
        let live = notification::rpc::Rpc {
            source: Arc::new(source),
            inbox: Arc::clone(&self.inbox),
            presence: Arc::clone(&self.cluster.presence),
            elsewhere: self.cluster.elsewhere(),
            tokens: Arc::clone(&self.users.tokens),
        };
        let (asked, admission) = (Arc::clone(&authenticate), Arc::clone(&self.admission));
        let watches = settings::Watches::new(asked, admission, stops.port.clone());
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
                RouteRpc { routes: routes(), events }
            ))
            .add_service(service!(
                webhook,
                webhook_service_server,
                WebhookServiceServer,
                webhook::rpc::Rpc(webhooks)
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
                recipient::rpc::Rpc(lists())
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
                settings,
                configuration_service_server,
                ConfigurationServiceServer,
                portable::rpc::Rpc(configuration)
            ))
            .add_service(service!(
                settings,
                audit_service_server,
                AuditServiceServer,
                audit::rpc::Rpc(AuditService::new(db.clone(), recorder))
            ))
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
            meter: Arc::clone(&self.api_keys) as _,
            admission: Arc::clone(&self.admission),
            metrics: Arc::clone(&self.metrics),
            allowed_origins: config.allow_origin.clone(),
            reflection: config.reflection,
        };
        let published = PublishedKeys { directory: Arc::clone(&self.directory), clock: clock() };
        let public = links::http::routes(recipients).merge(keys::routes(published));
        let api = apikey::verify::http::routes(Arc::clone(&self.api_keys), Arc::clone(&self.admission));
        rpc::router(services, &shared, self.health.clone(), api, public).await
    }
}
