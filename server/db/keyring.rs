//! The keys that seal secrets: made once, kept in `data_keys`, wrapped by a master key that lives outside the database.
//!
//! Opening them proves that the master key is the right one, so that a server with another one refuses to start
//! instead of failing at the first secret.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use zeroize::Zeroizing;

use super::schema::data_keys;
use super::{Conn, Db};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::id::{IdGenerator, Kind as IdKind};
use crate::on;
use crate::secret::{KEY_LENGTH, Place, Sealer, SharedRandom};

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
}

const SEAL: &str = "seal";
const API_KEY_MAC: &str = "api_key_mac";
const LINK_MAC: &str = "link_mac";
const FINGERPRINT_MAC: &str = "fingerprint_mac";
const AUDIT_MAC: &str = "audit_mac";

impl Keyring {
    /// Opens the keys of this database, making them if it has none.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the master key is not the one that wrapped them.
    pub async fn open(
        db: &Db,
        master: &[u8; KEY_LENGTH],
        random: &SharedRandom,
        ids: &IdGenerator,
        now: Timestamp,
    ) -> Result<Self> {
        let wrapper = Sealer::new(master, random.clone());
        let seal = open_key(db, &wrapper, SEAL, random, ids.next(IdKind::DataKey), now).await?;
        let api_key_mac = open_key(db, &wrapper, API_KEY_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let link_mac = open_key(db, &wrapper, LINK_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let fingerprint_mac =
            open_key(db, &wrapper, FINGERPRINT_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let audit_mac = open_key(db, &wrapper, AUDIT_MAC, random, ids.next(IdKind::DataKey), now).await?;
        let sealer = Sealer::new(&seal, random.clone());
        Ok(Self { sealer, api_key_mac, link_mac, fingerprint_mac, audit_mac })
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
    let stored: Vec<u8> = db
        .transaction(move |conn| {
            Box::pin(async move {
                insert_if_missing(conn, id, purpose, wrapped, now).await?;
                let query =
                    data_keys::table.filter(data_keys::purpose.eq(purpose)).select(data_keys::wrapped);
                Ok(on!(conn, |c| query.first(c).await)?)
            })
        })
        .await?;
    let opened = wrapper.open(place(purpose), &stored).map_err(|_| {
        Error::new(
            Kind::FailedPrecondition,
            "MASTER_KEY_WRONG",
            "the master key is not the one that this database was made with: restore the master key file \
             (or SWITCHBOARD_MASTER_KEY) of the server that made it",
        )
    })?;
    let key = <[u8; KEY_LENGTH]>::try_from(opened.as_slice())
        .map_err(|_| Error::internal("a data key is not 32 bytes"))?;
    Ok(Zeroizing::new(key))
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
