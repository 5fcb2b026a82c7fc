//! The scopes that are listed: those of this server, those that come with it for applications, and those that applications
//! register.

mod store;

pub use store::RegisteredScope;

use super::service::ApiKeyService;
use crate::audit::{self, Change};
use crate::error::{Error, Kind, Result, Violations};
use crate::scope;

/// How many an installation registers.
const LIMIT: usize = 1_000;
const DESCRIPTION_LIMIT: usize = 1_024;

/// Scopes of the applications behind this server, and those that cover several of its own.
pub const KNOWN: [(&str, &str); 14] = [
    ("admin:*", "Everything on this server"),
    ("admin:read", "Everything on this server that only reads"),
    ("admin:write", "Everything on this server that writes"),
    ("inventory:*", "All of the inventory"),
    ("inventory:read", "View inventory items"),
    ("inventory:write", "Create and change inventory items"),
    ("inventory:delete", "Delete inventory items"),
    ("tickets:*", "All of the tickets"),
    ("tickets:read", "View tickets"),
    ("tickets:write", "Create and change tickets"),
    ("tickets:delete", "Delete tickets"),
    ("biofloc:*", "All of biofloc"),
    ("biofloc:read", "View biofloc data"),
    ("biofloc:write", "Change biofloc readings"),
];

impl ApiKeyService {
    /// The scopes that applications registered.
    pub async fn registered_scopes(&self) -> Result<Vec<RegisteredScope>> {
        store::all(&mut self.db.reader().await?).await
    }

    /// Registers a scope; `own` are those that the server lists anyway.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when it is listed.
    pub async fn register_scope(
        &self,
        name: String,
        description: String,
        own: impl Fn(&str) -> bool,
    ) -> Result<RegisteredScope> {
        let mut violations = Violations::default();
        violations.check("name", scope::check(&name));
        let length = description.chars().count();
        let described = (1..=DESCRIPTION_LIMIT).contains(&length) && !description.contains('\0');
        violations.require(described, "description", "must have 1 to 1024 characters");
        violations.finish()?;
        if own(&name) {
            let message = format!("there is a scope {name:?} already");
            return Err(Error::new(Kind::AlreadyExists, "ALREADY_EXISTS", message)
                .with("resource", "scope")
                .with("id", name));
        }
        let scope = RegisteredScope { name, description, created_at: self.clock.now() };
        let audit = self.audit.clone();
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    if store::all(conn).await?.len() >= LIMIT {
                        let message = format!("{LIMIT} scopes are registered, and that is the most");
                        return Err(Error::new(Kind::ResourceExhausted, "SCOPE_LIMIT", message));
                    }
                    store::insert(conn, &scope).await?;
                    let after = audit::fields(&serde_json::json!({"description": scope.description}));
                    audit.record(conn, Change::new("scope", &scope.name, "create").to(after)).await?;
                    Ok(scope)
                })
            })
            .await
    }

    /// Takes a scope off the list.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn forget_scope(&self, name: String) -> Result<()> {
        let audit = self.audit.clone();
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    if store::delete(conn, &name).await? {
                        audit.record(conn, Change::new("scope", name, "delete")).await
                    } else {
                        Err(Error::not_found("scope", &name))
                    }
                })
            })
            .await
    }
}
