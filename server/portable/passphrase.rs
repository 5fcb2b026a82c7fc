//! Sealing under a passphrase: Argon2id makes the key, XChaCha20-Poly1305 seals.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::{KEY_LENGTH, Place, Sealer, SharedRandom};

const SHORTEST: usize = 12;
const LONGEST: usize = 1_024;
const KDF: &str = "argon2id";
const CIPHER: &str = "xchacha20-poly1305";
const SALT_LENGTH: usize = 16;
/// What RFC 9106, section 4, recommends where memory is short, with one lane, because nothing here computes several at
/// once.
const MEMORY_KIB: u32 = 64 * 1024;
const ITERATIONS: u32 = 3;
/// What a document may ask for: its numbers are a stranger's.
const MEMORY_LIMIT_KIB: u32 = 256 * 1024;
const ITERATIONS_LIMIT: u32 = 16;
const PARALLELISM_LIMIT: u32 = 8;

/// Sealed bytes, with all that is needed to open them but the passphrase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    kdf: String,
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
    salt: String,
    cipher: String,
    sealed: String,
}

/// Seals and opens: off the threads that serve, and one at a time, because it needs much memory.
#[derive(Clone)]
pub struct Passphrases {
    random: SharedRandom,
    turn: Arc<Semaphore>,
}

impl Passphrases {
    /// With this randomness.
    pub fn new(random: SharedRandom) -> Self {
        Self { random, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Whether something is to be sealed under it: an empty one says no.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for one that is too short.
    pub fn is_given(passphrase: &str) -> Result<bool> {
        let length = passphrase.chars().count();
        if length > 0 && !(SHORTEST..=LONGEST).contains(&length) {
            return Err(Error::field("passphrase", "must have 12 to 1024 characters, or be empty"));
        }
        Ok(length > 0)
    }

    /// Seals; `context` is authenticated with it.
    ///
    /// # Errors
    /// When the work fails.
    pub async fn seal(&self, passphrase: &str, context: String, plain: Zeroizing<Vec<u8>>) -> Result<Sealed> {
        let passphrase = Zeroizing::new(passphrase.to_owned());
        self.run(move |random| seal(&passphrase, &context, &plain, random)).await
    }

    /// Opens what was sealed with the same passphrase and context.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it does not open.
    pub async fn open(
        &self,
        passphrase: String,
        context: String,
        sealed: Sealed,
    ) -> Result<Zeroizing<Vec<u8>>> {
        if passphrase.is_empty() {
            let wrong = "must be given: the document has sealed secrets (or skip them)";
            return Err(Error::field("passphrase", wrong));
        }
        let passphrase = Zeroizing::new(passphrase);
        let opened = self.run(move |random| open(&passphrase, &context, &sealed, random)).await?;
        opened.ok_or_else(|| {
            let wrong = "does not open the secrets: it is wrong, or the document was changed";
            Error::field("passphrase", wrong)
        })
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SharedRandom) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(Error::internal)?;
        let random = self.random.clone();
        let work = move || {
            let _turn = turn;
            work(&random)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// Seals; `context` is authenticated with it.  Takes a good part of a second, and 64 MiB.
fn seal(passphrase: &str, context: &str, plain: &[u8], random: &SharedRandom) -> Result<Sealed> {
    let mut salt = [0; SALT_LENGTH];
    random.fill(&mut salt);
    let params = Params::new(MEMORY_KIB, ITERATIONS, 1, Some(KEY_LENGTH)).map_err(internal)?;
    let key = key(passphrase, &salt, params)?;
    let sealed = Sealer::new(&key, random.clone()).seal(place(context), plain)?;
    Ok(Sealed {
        kdf: KDF.into(),
        memory_kib: MEMORY_KIB,
        iterations: ITERATIONS,
        parallelism: 1,
        salt: STANDARD.encode(salt),
        cipher: CIPHER.into(),
        sealed: STANDARD.encode(sealed),
    })
}

/// Opens what [`seal`] made; `None` when the passphrase or the context is another one, or the bytes were changed.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not of this form.
fn open(
    passphrase: &str,
    context: &str,
    sealed: &Sealed,
    random: &SharedRandom,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let refuse = |what: &str| Err(Error::field("document.secrets", what));
    if sealed.kdf != KDF || sealed.cipher != CIPHER {
        return refuse("are not sealed with argon2id and xchacha20-poly1305");
    }
    if sealed.memory_kib > MEMORY_LIMIT_KIB
        || sealed.iterations > ITERATIONS_LIMIT
        || sealed.parallelism > PARALLELISM_LIMIT
    {
        return refuse("ask for more work than this server does: at most 256 MiB, 16 iterations, 8 lanes");
    }
    let (Ok(salt), Ok(bytes)) = (STANDARD.decode(&sealed.salt), STANDARD.decode(&sealed.sealed)) else {
        return refuse("are not base64");
    };
    let params = Params::new(sealed.memory_kib, sealed.iterations, sealed.parallelism, Some(KEY_LENGTH));
    let (Ok(params), true) = (params, (8..=64).contains(&salt.len())) else {
        return refuse("have no valid parameters of argon2id");
    };
    let key = key(passphrase, &salt, params)?;
    Ok(Sealer::new(&key, random.clone()).open(place(context), &bytes).ok())
}

#[cfg(any(test, fuzzing))]
impl Sealed {
    /// What asks for more work than this server does is refused before any of it is done.
    pub(super) fn fuzz(&self) {
        let too_much = self.memory_kib > MEMORY_LIMIT_KIB
            || self.iterations > ITERATIONS_LIMIT
            || self.parallelism > PARALLELISM_LIMIT;
        let cheap = self.memory_kib <= 64 && self.iterations <= 2;
        if too_much || cheap {
            let opened = open("a long passphrase", "here", self, &crate::fuzz::random());
            assert!(!too_much || opened.is_err());
            assert!(!matches!(opened, Ok(Some(_))), "what nobody sealed opens");
        }
    }
}

fn key(passphrase: &str, salt: &[u8], params: Params) -> Result<Zeroizing<[u8; KEY_LENGTH]>> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(internal)?;
    Ok(key)
}

fn internal(error: argon2::Error) -> Error {
    Error::internal(error.to_string())
}

fn place(context: &str) -> Place<'_> {
    Place { table: "export", column: "secrets", row: context }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemRandom;

    #[test]
    fn it_opens_with_the_same_passphrase_and_context_only() {
        let random: SharedRandom = Arc::new(SystemRandom);
        let sealed = seal("a long passphrase", "here", b"hunter2", &random).unwrap();
        let again = seal("a long passphrase", "here", b"hunter2", &random).unwrap();
        assert!(sealed.salt != again.salt && sealed.sealed != again.sealed);
        let opened = |passphrase: &str, context: &str, sealed: &Sealed| {
            open(passphrase, context, sealed, &random).unwrap().map(|plain| plain.to_vec())
        };
        assert_eq!(opened("a long passphrase", "here", &sealed).as_deref(), Some(&b"hunter2"[..]));
        assert_eq!(opened("a long passphrasf", "here", &sealed), None);
        assert_eq!(opened("a long passphrase", "there", &sealed), None);
        let other = Sealed { salt: again.salt.clone(), ..sealed.clone() };
        assert_eq!(opened("a long passphrase", "here", &other), None);
        let other = Sealed { iterations: sealed.iterations - 1, ..sealed.clone() };
        assert_eq!(opened("a long passphrase", "here", &other), None);

        let refused = |sealed: Sealed| open("a long passphrase", "here", &sealed, &random).is_err();
        assert!(refused(Sealed { memory_kib: u32::MAX, ..sealed.clone() }));
        assert!(
            refused(Sealed { iterations: 17, ..sealed.clone() })
                && refused(Sealed { iterations: 0, ..sealed.clone() })
        );
        assert!(
            refused(Sealed { parallelism: 0, ..sealed.clone() })
                && refused(Sealed { memory_kib: 0, ..sealed.clone() })
        );
        assert!(refused(Sealed { kdf: "scrypt".into(), ..sealed.clone() }));
        assert!(
            refused(Sealed { salt: "?".into(), ..sealed.clone() })
                && refused(Sealed { salt: String::new(), ..sealed })
        );
    }
}
