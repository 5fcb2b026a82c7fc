//! The use cases of settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;

use super::change::{Rules, checked};
use super::definition;
use super::given::Given;
use super::history::{self, Fingerprints, Revision};
use super::store;
use super::values::Values;
use crate::audit::Recorder;
use crate::clock::SharedClock;
use crate::db::keyring::{self, Keyring};
use crate::db::{Db, revision};
use crate::error::{Error, Result, Violations};
use crate::portable::Passphrases;
use crate::rpc::page::Page;
use crate::secret::SharedRandom;

/// The use cases.
pub struct SettingsService {
    pub(super) db: Db,
    pub(super) clock: SharedClock,
    pub(super) passphrases: Passphrases,
    pub(super) rules: Arc<Rules>,
    values: ArcSwap<Values>,
    followers: Mutex<Vec<Follower>>,
    head: watch::Sender<i64>,
}

/// Takes new values.
type Follower = Box<dyn Fn(&Values) + Send>;
/// Says what is wrong with new values, by key, before they are kept.
pub(super) type Check = Box<dyn Fn(&Values) -> Vec<(&'static str, String)> + Send>;
/// As [`Check`], of a change that comes from an address.
pub(super) type CallerCheck = Box<dyn Fn(&Values, IpAddr) -> Vec<(&'static str, String)> + Send>;

impl SettingsService {
    /// Reads the settings; what is given pins some of them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything in it that is no valid value.
    pub async fn open(
        db: Db,
        keyring: &Keyring,
        audit: Recorder,
        clock: SharedClock,
        random: SharedRandom,
        given: &Given,
    ) -> Result<Self> {
        let rules = Rules {
            pins: given.pins()?,
            sealer: keyring.sealer.clone(),
            fingerprints: Fingerprints::new(&keyring.fingerprint_mac),
            checks: Mutex::default(),
            caller_checks: Mutex::default(),
            audit,
        };
        let (values, followers, head) = (ArcSwap::default(), Mutex::default(), watch::Sender::new(0));
        let (rules, passphrases) = (Arc::new(rules), Passphrases::new(random));
        let service = Self { db, clock, passphrases, rules, values, followers, head };
        service.reload().await?;
        Ok(service)
    }

    /// What seals under passphrases, for one at a time of all who want it.
    pub fn passphrases(&self) -> Passphrases {
        self.passphrases.clone()
    }

    /// The values now.
    pub fn values(&self) -> Arc<Values> {
        self.values.load_full()
    }

    /// Gives the values to `follower`, now and whenever they change, before the call that changes them returns.
    pub fn follow(&self, follower: impl Fn(&Values) + Send + 'static) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        follower(&self.values.load());
        followers.push(Box::new(follower));
    }

    /// Asks `check` about every change before it is kept: what the catalogue can not know, such as whether a key can be
    /// used.
    pub fn check_with(&self, check: impl Fn(&Values) -> Vec<(&'static str, String)> + Send + 'static) {
        self.rules.checks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(check));
    }

    /// Asks `check` about every change that comes over the network before it is kept, told the address that it comes from.
    pub fn check_caller_with(
        &self,
        check: impl Fn(&Values, IpAddr) -> Vec<(&'static str, String)> + Send + 'static,
    ) {
        let mut checks = self.rules.caller_checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Box::new(check));
    }

    /// Asks the checks about what the process was given, on its own: what is stored must not keep a server from starting.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every bad value, by flag, variable, or file and line.
    pub fn check_given(&self) -> Result<()> {
        let values = Values::resolve(0, &self.rules.pins, Vec::new(), &self.rules.sealer)?;
        let mut violations = Violations::default();
        let checks = self.rules.checks.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, wrong) in checks.iter().flat_map(|check| check(&values)) {
            if let Some(pin) = self.rules.pins.get(key) {
                violations.add(&pin.source, wrong);
            }
        }
        violations.finish()
    }

    /// The values as they would be with these changes, which are checked and not kept.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every bad one, as `settings[key]`.
    pub fn preview(&self, new: BTreeMap<String, Value>) -> Result<Values> {
        let field = |key: &str| format!("settings[{key}]");
        let mut violations = Violations::default();
        let wanted = checked(new, &mut violations, field);
        violations.finish()?;
        let mut values = Values::clone(&self.values());
        for (&key, value) in &wanted {
            definition::find(key).into_iter().for_each(|known| values.set(known, value.clone()));
        }
        self.rules.judge(&values, field, &wanted.into_keys().collect::<Vec<_>>())?;
        Ok(values)
    }

    /// The newest revisions first, with what they did to one setting, or to all without a key; and the next page's token.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is not of this list.
    pub async fn revisions(&self, key: &str, page: &Page) -> Result<(Vec<Revision>, String)> {
        let before = match &page.after {
            None => None,
            Some(number) => {
                Some(number.parse().map_err(|_| Error::field("page_token", "is not of this list"))?)
            }
        };
        let mut conn = self.db.reader().await?;
        let key = (!key.is_empty()).then_some(key);
        let mut revisions = history::before(&mut conn, before, key, page.limit()).await?;
        let token = page.cut(&mut revisions, |revision| revision.number.to_string());
        Ok((revisions, token))
    }

    /// The revision that this node is at, as it changes.
    pub(super) fn head(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    /// Reads the settings anew, if the database has newer ones.
    ///
    /// # Errors
    /// When they can not be read; the values stay as they are.
    pub async fn reload(&self) -> Result<()> {
        self.read(false).await
    }

    /// Forgets what this node has in memory and reads it anew, as after somebody wrote to the database by hand.
    ///
    /// # Errors
    /// As [`SettingsService::reload`].
    pub async fn clear_cache(&self) -> Result<Arc<Values>> {
        self.read(true).await?;
        Ok(self.values())
    }

    async fn read(&self, always: bool) -> Result<()> {
        let mut conn = self.db.reader().await?;
        // The revision first: settings that change in between are read again, and never missed.
        let revision = revision::current(&mut conn, revision::SETTINGS).await?;
        if !always && self.values.load().revision == revision {
            return Ok(());
        }
        let rows = store::all(&mut conn).await?;
        keyring::refresh(&mut conn, &self.rules.sealer).await?;
        let values = Values::resolve(revision, &self.rules.pins, rows, &self.rules.sealer)?;
        // Two reads may overlap; the older one must not win.
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.values.load().revision;
        if values.revision > known || always && values.revision == known {
            followers.iter().for_each(|follower| follower(&values));
            self.values.store(Arc::new(values));
            self.head.send_replace(revision);
        }
        Ok(())
    }
}
