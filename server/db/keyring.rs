//! The keys that seal secrets: made once, kept in `data_keys`, wrapped by a master key that lives outside the database.
//!
//! Opening them proves that the master key is the right one, so that a server with another one refuses to start
//! instead of failing at the first secret.
//!
//! The key that seals can be replaced while servers run ([`rotate`]): one is active, the retired ones open what they sealed
//! until everything listed in [`sealed`] is sealed anew.  A change of a secret calls [`refresh`] in its transaction, under
//! the lock of [`revision`](super::revision), so that nothing is ever sealed under a key that was retired before.

pub mod rotate;
pub mod sealed;
pub mod status;

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::schema::data_keys;
use super::{Conn, Db, revision};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::id::{IdGenerator, Kind as IdKind};
use crate::on;
use crate::secret::{KEY_LENGTH, KeyNumber, MasterKeys, Place, Ring, RingKey, Sealer, SharedRandom};

/// The keys in use.
pub struct Keyring {
    /// Seals webhook secrets and secret settings.
    pub sealer: Sealer,
    /// Authenticates API keys.
    pub api_key_mac: Zeroizing<[u8; KEY_LENGTH]>,
    /// Signs the links in mails.
    pub link_mac: Zeroizing<[u8; KEY_LENGTH]>,
    /// Makes fingerprints of secrets.
    pub fingerprint_mac: Zeroizing<[u8; KEY_LENGTH]>,
    /// Chains the entries of the audit log.
    pub audit_mac: Zeroizing<[u8; KEY_LENGTH]>,
    /// Signs the tokens of users.
    pub token_mac: Zeroizing<[u8; KEY_LENGTH]>,
}

const SEAL: &str = "seal";
const API_KEY_MAC: &str = "api_key_mac";
const LINK_MAC: &str = "link_mac";
const FINGERPRINT_MAC: &str = "fingerprint_mac";
const AUDIT_MAC: &str = "audit_mac";
const TOKEN_MAC: &str = "token_mac";

impl Keyring {
    /// Opens the keys of this database, making them if it has none.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when no master key is the one that wrapped them.
    pub async fn open(
        db: &Db,
        masters: &Arc<dyn MasterKeys>,
        random: &SharedRandom,
        ids: &IdGenerator,
        now: Timestamp,
    ) -> Result<Self> {
        let wrapper = wrapper(&rows(&mut db.reader().await?).await?, &**masters, random)?;
        open_key(db, &wrapper, SEAL, random, ids.next(IdKind::DataKey), now).await?;
        let api_key_mac = open_key(db, &wrapper, API_KEY_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let link_mac = open_key(db, &wrapper, LINK_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let fingerprint_mac =
            open_key(db, &wrapper, FINGERPRINT_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let audit_mac = open_key(db, &wrapper, AUDIT_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let token_mac = open_key(db, &wrapper, TOKEN_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let ring = read(&mut db.reader().await?, None, &**masters, random).await?;
        let sealer = Sealer::with_ring(ring, Arc::clone(masters), random.clone());
        Ok(Self { sealer, api_key_mac, link_mac, fingerprint_mac, audit_mac, token_mac })
    }
}

async fn open_key(
    db: &Db,
    wrapper: &Sealer,
    purpose: &'static str,
    random: &SharedRandom,
    id: String,
    now: Timestamp,
) -> Result<Zeroizing<[u8; KEY_LENGTH]>> {
    let mut fresh = Zeroizing::new([0; KEY_LENGTH]);
    random.fill(&mut *fresh);
    let wrapped = wrapper.seal(place(purpose), &*fresh)?;
    // Two nodes may start at once: both try to insert, and both use the row that won.
    let (id, stored): (String, Vec<u8>) = db
        .transaction(move |conn| {
            Box::pin(async move {
                insert_if_missing(conn, id, purpose, wrapped, now).await?;
                let query = data_keys::table
                    .filter(data_keys::purpose.eq(purpose).and(data_keys::retired_at.is_null()))
                    .select((data_keys::id, data_keys::wrapped));
                Ok(on!(conn, |c| query.first(c).await)?)
            })
        })
        .await?;
    unwrap(wrapper, &id, purpose, &stored).ok_or_else(master_key_wrong)
}

async fn insert_if_missing(
    conn: &mut Conn,
    id: String,
    purpose: &str,
    wrapped: Vec<u8>,
    now: Timestamp,
) -> Result<()> {
    let row = (
        data_keys::id.eq(id),
        data_keys::purpose.eq(purpose),
        data_keys::wrapped.eq(wrapped),
        data_keys::created_at.eq(now),
    );
    on!(conn, |c| diesel::insert_into(data_keys::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(())
}

fn place(purpose: &str) -> Place<'_> {
    Place { table: "data_keys", column: "wrapped", row: purpose }
}

/// A row of `data_keys`.
#[derive(Queryable)]
struct DataKeyRow {
    id: String,
    purpose: String,
    wrapped: Vec<u8>,
    created_at: Timestamp,
    retired_at: Option<Timestamp>,
}

impl DataKeyRow {
    fn number(&self) -> KeyNumber {
        number(&self.id)
    }

    fn seals(&self) -> bool {
        self.purpose == SEAL
    }
}

async fn rows(conn: &mut Conn) -> Result<Vec<DataKeyRow>> {
    let query = data_keys::table.order(data_keys::id).select((
        data_keys::id,
        data_keys::purpose,
        data_keys::wrapped,
        data_keys::created_at,
        data_keys::retired_at,
    ));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// What sealed values call the key with this id.
fn number(id: &str) -> KeyNumber {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(id.as_bytes()));
    [a, b, c, d, e, f, g, h]
}

/// Unwraps a key.  Those of the first start are bound to their purpose, and those that came later to their id.
fn unwrap(wrapper: &Sealer, id: &str, purpose: &str, wrapped: &[u8]) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    let opened = wrapper.open(place(id), wrapped).or_else(|_| wrapper.open(place(purpose), wrapped)).ok()?;
    <[u8; KEY_LENGTH]>::try_from(opened.as_slice()).ok().map(Zeroizing::new)
}

fn master_key_wrong() -> Error {
    Error::new(
        Kind::FailedPrecondition,
        "MASTER_KEY_WRONG",
        "the master key is not the one that this database was made with: restore the master key file \
         (or SWITCHBOARD_MASTER_KEY) of the server that made it",
    )
}

/// The master key that unwraps these keys: all are wrapped by one.
fn wrapper(rows: &[DataKeyRow], masters: &dyn MasterKeys, random: &SharedRandom) -> Result<Sealer> {
    // The file may be replaced between the reading of the one and of the other.
    for _ in 0..2 {
        for key in masters.candidates()? {
            let wrapper = Sealer::new(&key, random.clone());
            if rows.iter().all(|row| unwrap(&wrapper, &row.id, &row.purpose, &row.wrapped).is_some()) {
                if !rows.is_empty() {
                    masters.opened(&key);
                }
                return Ok(wrapper);
            }
        }
    }
    Err(master_key_wrong())
}

/// Reads the keys that seal; those in `known` are not unwrapped again.
async fn read(
    conn: &mut Conn,
    known: Option<&Ring>,
    masters: &dyn MasterKeys,
    random: &SharedRandom,
) -> Result<Ring> {
    // The revision first: keys that change in between are read again, and never missed.
    let revision = revision::current(conn, revision::DATA_KEYS).await?;
    let rows = rows(conn).await?;
    let mut unwrapped = None;
    let (mut active, mut retired) = (None, Vec::new());
    for row in rows.iter().filter(|row| row.seals()) {
        let key = match known.and_then(|known| known.find(row.number())) {
            Some(key) => key.clone(),
            None => {
                let wrapper = match &unwrapped {
                    Some(wrapper) => wrapper,
                    None => unwrapped.insert(wrapper(&rows, masters, random)?),
                };
                let key = unwrap(wrapper, &row.id, SEAL, &row.wrapped).ok_or_else(master_key_wrong)?;
                RingKey::new(row.number(), &key)
            }
        };
        match row.retired_at {
            None => active = Some(key),
            Some(_) => retired.push(key),
        }
    }
    let active = active.ok_or_else(|| Error::internal("no data key is active"))?;
    let listed = |key: &RingKey| rows.iter().any(|row| Some(row.number()) == key.number());
    let former = known.map(|known| [&known.active].into_iter().chain(&known.retired));
    let dropped = former.into_iter().flatten().filter(|key| !listed(key)).cloned().collect();
    Ok(Ring { revision, active, retired, dropped })
}

/// Finds the right master key among those that there are by now.
///
/// # Errors
/// `FAILED_PRECONDITION` when none is.
pub async fn confirm_master(db: &Db, sealer: &Sealer) -> Result<()> {
    let masters = sealer.masters().ok_or_else(master_key_wrong)?;
    wrapper(&rows(&mut db.reader().await?).await?, &**masters, &sealer.random()).map(drop)
}

/// Whether one of these master keys is the one that wrapped the keys of the database.
///
/// # Errors
/// When a master key or the database can not be read.
pub async fn is_opened_by(db: &Db, masters: &dyn MasterKeys, random: &SharedRandom) -> Result<bool> {
    match wrapper(&rows(&mut db.reader().await?).await?, masters, random) {
        Ok(_) => Ok(true),
        Err(error) if error.reason() == master_key_wrong().reason() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes up keys that were made or dropped since the sealer knows of them: before sealing, in the transaction of the
/// change; before opening, after the values were read.
///
/// # Errors
/// `FAILED_PRECONDITION` when the master key was replaced meanwhile and this process can not know the new one.
pub async fn refresh(conn: &mut Conn, sealer: &Sealer) -> Result<()> {
    let (ring, Some(masters)) = (sealer.ring(), sealer.masters()) else { return Ok(()) };
    if revision::current(conn, revision::DATA_KEYS).await? != ring.revision {
        sealer.renew(read(conn, Some(&ring), &**masters, &sealer.random()).await?);
    }
    Ok(())
}
