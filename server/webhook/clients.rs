//! The clients: one that most endpoints share, and one for each kind of trust that others have of their own.
//!
//! A client lives as long as an endpoint uses it.  Endpoints that are read anew with the same trust get the client that
//! they had, with its open connections; what two endpoints have in common is kept once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::RootCertStore;

use super::client::Client;
use super::guard::{Guard, Lookup};
use super::network::{Network, OWN_IDLE, Pool, SHARED_IDLE, tls, with_few_sessions};
use super::proxy::Proxy;
use super::trust::{Fingerprint, Trust, fingerprint};
use crate::error::{Error, Result};

/// Gives each endpoint its client.
pub struct Clients {
    network: Arc<Network>,
    system: Arc<RootCertStore>,
    shared: Client,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    pools: Kept<Pool>,
    /// The system's authorities and an endpoint's: many endpoints of one network have the same.
    roots: Kept<RootCertStore>,
}

impl Clients {
    /// Clients that connect where `guard` permits, to what `lookup` finds, through `proxy`, and trust the system's
    /// certificates.
    ///
    /// # Errors
    /// When the system has no root certificates, or they can not be read.
    pub fn new(guard: Guard, lookup: Arc<dyn Lookup>, proxy: Option<Proxy>) -> Result<Arc<Self>> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let first = found.errors.into_iter().next();
            let text = first.map_or_else(|| "there are none".to_owned(), |error| error.to_string());
            return Err(Error::internal(format!("the system's root certificates can not be used: {text}")));
        }
        let (network, system) = (Arc::new(Network::new(guard, lookup, proxy)), Arc::new(roots));
        let tls = tls(Arc::clone(&system), None).map_err(Error::internal)?;
        let shared = Client(Arc::new(Pool::new(Arc::clone(&network), tls, SHARED_IDLE)));
        Ok(Arc::new(Self { network, system, shared, own: Mutex::default() }))
    }

    /// Has all clients go through another proxy from now on, or through none.
    pub fn set_proxy(&self, proxy: Option<Proxy>) {
        self.network.set_proxy(proxy);
    }

    /// The client for an endpoint with this trust.
    ///
    /// # Errors
    /// What is wrong with what it has.
    pub fn of(&self, trust: &Trust<'_>) -> Result<Client, String> {
        if trust.is_empty() {
            return Ok(self.shared.clone());
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let Own { pools, roots } = &mut *own;
        let pool = pools.get_or(trust.fingerprint(), || {
            let roots = if trust.ca_certificates.is_empty() {
                Arc::clone(&self.system)
            } else {
                roots.get_or(fingerprint(&[trust.ca_certificates]), || {
                    let mut all = RootCertStore::clone(&self.system);
                    trust.add_authorities(&mut all).map(|()| all)
                })?
            };
            let tls = tls(roots, trust.identity()?).map_err(|error| error.to_string())?;
            Ok(Pool::new(Arc::clone(&self.network), with_few_sessions(tls), OWN_IDLE))
        });
        pool.map(Client)
    }
}

/// What is kept while somebody uses it.
struct Kept<T>(HashMap<Fingerprint, Weak<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Kept<T> {
    fn get_or(
        &mut self,
        key: Fingerprint,
        make: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        if let Some(kept) = self.0.get(&key).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        let made = Arc::new(make()?);
        self.0.retain(|_, kept| kept.strong_count() > 0);
        self.0.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::super::guard::SystemLookup;
    use super::super::trust::tests::{AUTHORITY, CERTIFICATE, KEY};
    use super::*;
    use crate::secret::SecretText;

    fn clients() -> Arc<Clients> {
        Clients::new(Guard::default(), Arc::new(SystemLookup::default()), None).unwrap()
    }

    #[test]
    fn endpoints_with_the_same_trust_share_a_client_for_as_long_as_one_uses_it() {
        let clients = clients();
        let same = |one: &Client, other: &Client| Arc::ptr_eq(&one.0, &other.0);
        let none = || clients.of(&Trust::default()).unwrap();
        assert!(same(&none(), &none()), "most have none");
        let with_authority = || Trust { ca_certificates: AUTHORITY, ..Trust::default() };
        let with_both = || Trust {
            client_certificate: CERTIFICATE,
            client_key: SecretText::new(KEY),
            ..with_authority()
        };
        let first = clients.of(&with_authority()).unwrap();
        assert!(same(&first, &clients.of(&with_authority()).unwrap()) && !same(&first, &none()));
        let other = clients.of(&with_both()).unwrap();
        assert!(!same(&first, &other));
        assert_eq!(clients.own.lock().unwrap().roots.0.len(), 1, "the authorities are the same");
        let pools = || clients.own.lock().unwrap().pools.0.len();
        assert_eq!(pools(), 2);
        drop((first, other));
        let again = clients.of(&with_both()).unwrap();
        assert_eq!(pools(), 1, "what nobody uses is forgotten");
        assert!(same(&again, &clients.of(&with_both()).unwrap()));
    }

    #[test]
    fn what_can_not_be_used_makes_no_client() {
        let clients = clients();
        let nonsense = Trust { ca_certificates: "-----BEGIN CERTIFICATE-----\n", ..Trust::default() };
        assert!(clients.of(&nonsense).is_err());
        let without_key = Trust { client_certificate: CERTIFICATE, ..Trust::default() };
        assert!(clients.of(&without_key).is_err());
    }
}
