//! The use cases of routes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::expression::{Expression, Text};
use super::{EmailTarget, InboxTarget, Recipients, Route, Target, store};
use crate::audit::{self, Change, Recorder};
use crate::clock::SharedClock;
use crate::db::{Conn, Db, revision};
use crate::error::{Error, Result, Violations};
use crate::event::model::Fact;
use crate::event::pattern::Pattern;
use crate::event::topic;
use crate::id::{IdGenerator, Kind as IdKind};

const NAME_LIMIT: usize = 128;
const VARIABLE_LIMIT: usize = 50;
const USER_LIMIT: usize = 100;

/// What to change of a route; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct RouteChange {
    pub name: Option<String>,
    pub event_type: Option<String>,
    pub condition: Option<String>,
    pub active: Option<bool>,
    pub target: Option<Target>,
    pub version: Option<i64>,
}

/// What a route would do with an event.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// Whether the route takes it.
    pub matched: bool,
    /// Why not, or what is wrong with the message.
    pub explanation: String,
    /// Who would get it.
    pub recipients: Vec<String>,
    /// What the template would get.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// What a channel knows of its targets.
pub trait RouteTarget: Send + Sync + 'static {
    /// Checks a target of its kind against what there is: that its template and its list exist.
    fn check<'a>(&'a self, conn: &'a mut Conn, target: &'a Target) -> BoxFuture<'a, Result<TargetCheck>>;

    /// What a route would do with an event that it takes.
    fn trial<'a>(
        &'a self,
        conn: &'a mut Conn,
        route: &'a Route,
        fact: &'a Fact,
    ) -> BoxFuture<'a, Result<Trial>>;

    /// Reads the routes anew.
    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>>;
}

/// What is wrong with a target: fields below the target, each with what is wrong.
pub type TargetCheck = Vec<(&'static str, String)>;

/// The channels that routes lead to.
#[derive(Clone)]
pub struct Channels {
    /// Mails.
    pub email: Arc<dyn RouteTarget>,
    /// Inboxes.
    pub inbox: Arc<dyn RouteTarget>,
}

impl Channels {
    fn of(&self, target: &Target) -> &dyn RouteTarget {
        match target {
            Target::Email(_) => &*self.email,
            Target::Inbox(_) => &*self.inbox,
        }
    }
}

/// The use cases.
pub struct RouteService {
    /// The database.
    pub db: Db,
    /// The channels that routes lead to.
    pub channels: Channels,
    /// Records what is changed.
    pub audit: Recorder,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl RouteService {
    /// Adds a route.
    pub async fn create(&self, change: RouteChange) -> Result<Route> {
        let now = self.clock.now();
        let Some(target) = change.target.clone() else {
            return Err(Error::field("route.target", "is required: set email or inbox"));
        };
        let route = Route {
            id: self.ids.next(IdKind::Route),
            name: change.name.unwrap_or_default(),
            event_type: change.event_type.unwrap_or_default(),
            condition: change.condition.unwrap_or_default(),
            active: change.active.unwrap_or(true),
            target,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let (channels, audit) = (self.channels.clone(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                check(conn, &channels, &route).await?;
                store::insert(conn, &route).await?;
                audit.record(conn, Change::new("route", &route.id, "create").to(audited(&route))).await?;
                Ok(route)
            })
        })
        .await
    }

    /// One route.
    pub async fn get(&self, id: &str) -> Result<Route> {
        store::find(&mut self.db.reader().await?, id).await
    }

    /// Routes after an id.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Vec<Route>> {
        store::after(&mut self.db.reader().await?, after, limit).await
    }

    /// Changes a route.
    pub async fn update(&self, id: String, change: RouteChange) -> Result<Route> {
        let (now, channels, audit) = (self.clock.now(), self.channels.clone(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                let mut route = store::find(conn, &id).await?;
                if change.version.is_some_and(|version| version != route.version) {
                    return Err(Error::etag_mismatch(route.version.to_string()));
                }
                let entry = Change::new("route", &route.id, "update").from(audited(&route));
                route.name = change.name.unwrap_or(route.name);
                route.event_type = change.event_type.unwrap_or(route.event_type);
                route.condition = change.condition.unwrap_or(route.condition);
                route.active = change.active.unwrap_or(route.active);
                route.target = change.target.unwrap_or(route.target);
                route.version += 1;
                route.updated_at = now;
                check(conn, &channels, &route).await?;
                store::update(conn, &route).await?;
                audit.record(conn, entry.to(audited(&route))).await?;
                Ok(route)
            })
        })
        .await
    }

    /// Removes a route.
    pub async fn delete(&self, id: String) -> Result<()> {
        let audit = self.audit.clone();
        self.changed(move |conn| {
            Box::pin(async move {
                let route = store::find(conn, &id).await?;
                store::delete(conn, &id).await?;
                audit.record(conn, Change::new("route", id, "delete").from(audited(&route))).await
            })
        })
        .await
    }

    /// Says what a route would do with an event.
    pub async fn trial(&self, id: &str, fact: &Fact) -> Result<Trial> {
        let mut conn = self.db.reader().await?;
        let route = store::find(&mut conn, id).await?;
        let pattern = Pattern::parse(&route.event_type).map_err(Error::internal)?;
        if !pattern.matches(&fact.event_type) {
            let explanation = format!("the route takes {pattern}, and the event is {}", fact.event_type);
            return Ok(Trial { explanation, ..Trial::default() });
        }
        self.channels.of(&route.target).trial(&mut conn, &route, fact).await
    }

    async fn changed<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let done = revision::change(&self.db, revision::SUBSCRIPTIONS, work).await?;
        // The change is made: that it can not be read at once must not be told as if it were not.  The next publish
        // compares the revision anyway.
        let refreshed = async {
            let mut conn = self.db.reader().await?;
            self.channels.email.refresh(&mut conn).await?;
            self.channels.inbox.refresh(&mut conn).await
        };
        if let Err(error) = refreshed.await {
            tracing::warn!(%error, "a change was made and could not be read; the next publish reads it");
        }
        Ok(done)
    }
}

/// A route as the audit log tells it.
pub(super) fn audited(route: &Route) -> Map<String, Value> {
    audit::fields(&json!({
        "name": route.name,
        "event_type": route.event_type,
        "condition": route.condition,
        "active": route.active,
        "target": route.target,
    }))
}

/// Checks a route against itself and against what there is.
pub(super) async fn check(conn: &mut Conn, channels: &Channels, route: &Route) -> Result<()> {
    let mut violations = Violations::default();
    let name_ok =
        (1..=NAME_LIMIT).contains(&route.name.chars().count()) && !route.name.chars().any(char::is_control);
    violations.require(name_ok, "route.name", "must have 1 to 128 characters, without control characters");
    violations.check("route.event_type", Pattern::parse(&route.event_type));
    if !route.condition.is_empty() {
        violations.check("route.condition", Expression::compile(&route.condition));
    }
    let name = match &route.target {
        Target::Email(target) => {
            check_email(&mut violations, target);
            "email"
        }
        Target::Inbox(target) => {
            check_inbox(&mut violations, target);
            "inbox"
        }
    };
    for (field, description) in channels.of(&route.target).check(conn, &route.target).await? {
        violations.add(format!("route.{name}.{field}"), description);
    }
    violations.finish()
}

fn check_email(violations: &mut Violations, target: &EmailTarget) {
    violations.require(
        target.variables.len() <= VARIABLE_LIMIT,
        "route.email.variables",
        "must have at most 50 entries",
    );
    for (name, text) in &target.variables {
        violations.check(&format!("route.email.variables[{name}]"), Expression::compile(text));
    }
    if let Recipients::Field(field) = &target.recipients {
        violations.check("route.email.recipient_field", Expression::compile(&format!("data.{field}")));
    }
}

fn check_inbox(violations: &mut Violations, target: &InboxTarget) {
    let some = !target.user_ids.is_empty() || !target.user_field.is_empty();
    violations.require(some, "route.inbox.user_ids", "or user_field must be set");
    violations.require(
        target.user_ids.len() <= USER_LIMIT,
        "route.inbox.user_ids",
        "must have at most 100 entries",
    );
    for (index, user_id) in target.user_ids.iter().enumerate() {
        violations.check(&format!("route.inbox.user_ids[{index}]"), topic::check_user_id(user_id));
    }
    if !target.user_field.is_empty() {
        let expression = Expression::compile(&format!("data.{}", target.user_field));
        violations.check("route.inbox.user_field", expression);
    }
    violations.require(!target.message.trim().is_empty(), "route.inbox.message", "is required");
    let texts = [
        ("title", &target.title),
        ("message", &target.message),
        ("priority", &target.priority),
        ("action_url", &target.action_url),
    ];
    for (field, text) in texts {
        violations.check(&format!("route.inbox.{field}"), Text::compile(text));
    }
}
