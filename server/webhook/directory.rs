//! Every endpoint in memory, ready to use: its URL parsed, its headers made, its keys expanded.
//!
//! The directory has the revision that it was read at.  A publish compares it inside its transaction, an attempt uses
//! whatever is newest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Uri};

use super::client::Client;
use super::clients::Clients;
use super::health::{Chart, Pulse};
use super::mode::DeliveryMode;
use super::model::Webhook;
use super::policy::{RateLimit, Ready, TIMEOUT};
use super::rotation::{self, FormerSecret, former_place};
use super::secret::Key;
use super::signature::Signer;
use super::store;
use super::trust::Trust;
use crate::db::{Conn, keyring, revision};
use crate::delivery::Batching;
use crate::error::Result;
use crate::event::pattern::Pattern;
use crate::secret::{Place, Sealer};

/// How many event types the answers are kept for.
const KEPT_TYPES: usize = 10_000;

/// An endpoint that is ready to use.
pub struct Endpoint {
    /// Its id, and the name of its lane.
    pub id: Arc<str>,
    /// The version that it was read at.
    pub version: i64,
    /// Whether events are sent to it.
    pub active: bool,
    /// Where requests go.
    pub uri: Uri,
    /// Makes its requests.
    pub client: Client,
    /// Its own headers.
    pub headers: HeaderMap,
    /// Signs its requests.
    pub signer: Signer,
    /// How long a request may take.
    pub timeout: Duration,
    /// When a failed request is made again, if it has a policy of its own.
    pub policy: Option<Ready>,
    /// How events get to it.
    pub mode: DeliveryMode,
    /// How many requests go to it, if it has a limit of its own.
    pub rate_limit: Option<RateLimit>,
    /// When a batch is sent, if they get to it so.
    pub batching: Batching,
    /// How it fares, as this node sees it; the same over all revisions.
    pub pulse: Arc<Pulse>,
    patterns: Vec<Pattern>,
    source: Source,
}

/// What an endpoint was made of.  Every change of an endpoint is another version; its secrets are sealed anew by themselves, too.
#[derive(PartialEq)]
struct Source {
    version: i64,
    sealed: Vec<u8>,
    client_key: Option<Vec<u8>>,
    former: Vec<FormerSecret>,
}

/// The endpoints of one revision.
#[derive(Default)]
pub struct Endpoints {
    revision: i64,
    by_id: HashMap<Arc<str>, Arc<Endpoint>>,
    by_age: Vec<Arc<Endpoint>>,
    wanted: Mutex<HashMap<String, Arc<[Arc<Endpoint>]>>>,
}

impl Endpoints {
    /// All of them, oldest first.
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.by_age
    }

    /// The active endpoints that want events of this type and have them sent.
    pub fn wanting(&self, event_type: &str) -> Arc<[Arc<Endpoint>]> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = wanted.get(event_type) {
            return Arc::clone(known);
        }
        let wants = |endpoint: &&Arc<Endpoint>| {
            endpoint.active
                && endpoint.mode != DeliveryMode::Pulled
                && endpoint.patterns.iter().any(|pattern| pattern.matches(event_type))
        };
        let found: Arc<[_]> = self.by_age.iter().filter(wants).cloned().collect();
        if wanted.len() < KEPT_TYPES {
            wanted.insert(event_type.to_owned(), Arc::clone(&found));
        }
        found
    }
}

/// The endpoints, always the newest that this node knows.
pub struct Directory {
    /// What this node has to do about them.
    pub chart: Chart,
    current: ArcSwap<Endpoints>,
    reading: tokio::sync::Mutex<()>,
    sealer: Sealer,
    clients: Arc<Clients>,
}

impl Directory {
    /// An empty directory, whose endpoints get their clients from `clients`.
    pub fn new(sealer: Sealer, clients: Arc<Clients>) -> Arc<Self> {
        Arc::new(Self {
            chart: Chart::default(),
            current: ArcSwap::default(),
            reading: tokio::sync::Mutex::default(),
            sealer,
            clients,
        })
    }

    /// The revision that it was read at.
    pub fn revision(&self) -> i64 {
        self.current.load().revision
    }

    /// The endpoints now.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.current.load_full()
    }

    /// One endpoint.
    pub fn find(&self, id: &str) -> Option<Arc<Endpoint>> {
        self.current.load().by_id.get(id).cloned()
    }

    /// Reads the endpoints anew.
    pub async fn refresh(&self, conn: &mut Conn) -> Result<()> {
        // Many changes at once are read together: who waited here mostly finds that another has read its change too.
        let _one_at_a_time = self.reading.lock().await;
        // The revision first: endpoints that change in between are read again, and never missed.
        let revision = revision::current(conn, revision::SUBSCRIPTIONS).await?;
        if revision == self.revision() {
            return Ok(());
        }
        let rows = store::all(conn).await?;
        let mut former = rotation::store::all(conn).await?;
        keyring::refresh(conn, &self.sealer).await?;
        let known = self.endpoints();
        let by_age: Vec<_> = rows
            .into_iter()
            .filter_map(|mut kept| {
                let source = Source {
                    version: kept.version(),
                    sealed: std::mem::take(&mut kept.sealed),
                    client_key: kept.client_key.take(),
                    former: former.remove(kept.id()).unwrap_or_default(),
                };
                // Mostly one has changed, and the secrets of all the others need not be opened again.
                match known.by_id.get(kept.id()).filter(|known| known.source == source) {
                    Some(known) => Some(Arc::clone(known)),
                    None => self.ready(&kept.into_webhook(), source),
                }
            })
            .collect();
        let by_id = by_age.iter().map(|endpoint| (Arc::clone(&endpoint.id), Arc::clone(endpoint))).collect();
        let read = Arc::new(Endpoints { revision, by_id, by_age, wanted: Mutex::default() });
        // Two refreshes may overlap; the older one must not win.
        self.current
            .rcu(|known| if known.revision > revision { Arc::clone(known) } else { Arc::clone(&read) });
        Ok(())
    }

    /// An endpoint that can not be made ready is left out, and the log says why: the others must go on.
    fn ready(&self, webhook: &Webhook, source: Source) -> Option<Arc<Endpoint>> {
        let key = |place: Place<'_>, sealed: &[u8]| {
            self.sealer.open_text(place, sealed).ok().and_then(|secret| Key::read(&secret).ok())
        };
        let newest = key(secret_place(&webhook.id), &source.sealed);
        let former = source.former.iter().filter_map(|former| {
            let place = former_place(&webhook.id, former.version);
            Some((key(place.as_place(), &former.sealed)?, former.expires_at))
        });
        let signer = newest.map(|newest| Signer::new(newest, former.collect()));
        let mode = webhook.options.delivery_mode;
        let uri = if webhook.url.is_empty() && mode == DeliveryMode::Pulled {
            // Nothing is ever sent there.
            Ok(Uri::default())
        } else {
            webhook.url.parse()
        };
        let (Some(signer), Ok(uri)) = (signer, uri) else {
            tracing::error!(webhook = webhook.id, "the endpoint's secret or URL is unusable");
            return None;
        };
        let trust = Trust::open(webhook, source.client_key.as_deref(), &self.sealer)
            .map_err(|error| error.to_string());
        let client = trust
            .and_then(|trust| self.clients.of(&trust))
            .inspect_err(|reason| {
                tracing::error!(webhook = webhook.id, reason, "the endpoint's certificates are unusable");
            })
            .ok()?;
        let id: Arc<str> = webhook.id.as_str().into();
        let pulse = self.pulse(webhook, &id, &uri);
        Some(Arc::new(Endpoint {
            client,
            id,
            pulse,
            version: webhook.version,
            active: webhook.active,
            uri,
            headers: webhook.header_map(),
            signer,
            timeout: webhook.options.timeout.unwrap_or(TIMEOUT),
            policy: webhook.options.retry_policy.as_ref().map(Ready::from),
            mode,
            rate_limit: webhook.options.rate_limit,
            batching: webhook.options.batching.unwrap_or_default().ready(),
            patterns: webhook.event_types.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
            source,
        }))
    }

    /// What is known of how an endpoint fares outlives its changes, but for those that make it another.
    fn pulse(&self, webhook: &Webhook, id: &Arc<str>, uri: &Uri) -> Arc<Pulse> {
        let Some(before) = self.find(id) else {
            return Pulse::new(Arc::clone(id));
        };
        if before.uri != *uri || (webhook.active && !before.active) {
            before.pulse.forgive();
        }
        Arc::clone(&before.pulse)
    }
}

/// Where an endpoint's secret is kept.
pub(super) fn secret_place(id: &str) -> Place<'_> {
    Place { table: "webhooks", column: "secret", row: id }
}

#[cfg(test)]
mod tests {
    use super::super::guard::{Guard, SystemLookup};
    use super::super::secret::{Signing, choose};
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::db::keyring::Keyring;
    use crate::db::{Db, Target};
    use crate::id::IdGenerator;
    use crate::secret::{KEY_LENGTH, MasterKeys, SecretText, SharedRandom, SystemRandom};

    struct Ground {
        db: Db,
        sealer: Sealer,
        directory: Arc<Directory>,
        _folder: tempfile::TempDir,
    }

    impl Ground {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let db = Db::open(&Target::Sqlite(folder.path().join("test.db"))).await.unwrap();
            db.migrate().await.unwrap();
            let random: SharedRandom = Arc::new(SystemRandom);
            let masters: Arc<dyn MasterKeys> = Arc::new([0; KEY_LENGTH]);
            let ids = IdGenerator::new(Arc::new(ManualClock::new(Timestamp::default())), random.clone());
            let keys = Keyring::open(&db, &masters, &random, &ids, Timestamp::default()).await.unwrap();
            let clients = Clients::new(Guard::default(), Arc::new(SystemLookup::default()), None).unwrap();
            let directory = Directory::new(keys.sealer.clone(), clients);
            Self { db, sealer: keys.sealer, directory, _folder: folder }
        }

        fn sealed(&self, id: &str) -> Vec<u8> {
            let (secret, _) = choose(SecretText::default(), Signing::Hmac, &SystemRandom).unwrap();
            self.sealer.seal(secret_place(id), secret.reveal().as_bytes()).unwrap()
        }

        /// Makes a change, and answers the endpoints after it.
        async fn after<F>(&self, change: F) -> Vec<Arc<Endpoint>>
        where
            F: for<'c> FnOnce(&'c mut Conn) -> futures_util::future::BoxFuture<'c, Result<()>>
                + Send
                + 'static,
        {
            revision::change(&self.db, revision::SUBSCRIPTIONS, change).await.unwrap();
            self.directory.refresh(&mut self.db.reader().await.unwrap()).await.unwrap();
            self.directory.endpoints().all().to_vec()
        }
    }

    fn webhook(id: &str, version: i64) -> Webhook {
        let url = "https://example.com/".into();
        Webhook { id: id.into(), url, active: version == 1, version, ..Webhook::default() }
    }

    #[tokio::test]
    async fn what_did_not_change_is_kept_and_what_did_is_made_anew() {
        let ground = Ground::new().await;
        let secrets = ["a", "b"].map(|id| (id, ground.sealed(id)));
        let first = ground.after(move |conn| {
            Box::pin(async move {
                for (id, sealed) in secrets {
                    store::insert(conn, &webhook(id, 1), sealed).await?;
                }
                Ok(())
            })
        });
        let first = first.await;
        let changed =
            ground.after(|conn| Box::pin(async { store::update(conn, &webhook("b", 2)).await })).await;
        let same =
            |at: usize, one: &[Arc<Endpoint>], other: &[Arc<Endpoint>]| Arc::ptr_eq(&one[at], &other[at]);
        assert!(same(0, &first, &changed) && !same(1, &first, &changed));
        assert!(first[1].active && !changed[1].active);

        let another = ground.sealed("a");
        let rotated =
            ground.after(move |conn| Box::pin(rotation::store::set_secret(conn, "a", another))).await;
        assert!(
            !same(0, &changed, &rotated) && same(1, &changed, &rotated),
            "a secret is a change by itself"
        );
    }
}
