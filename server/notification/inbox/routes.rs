//! Routes that lead to inboxes: each turns an event that it takes into events of type `notification`, one on the topic of
//! each user, which are published with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value as Json;

use super::fanout::InboxFanout;
use super::model::{Content, GENERAL, Priority, USER_LIMIT, check_category};
use super::service::fact;
use super::word;
use crate::db::{Conn, revision};
use crate::error::Result;
use crate::event::pattern::Pattern;
use crate::event::route::expression::{Expression, Scope, Text};
use crate::event::route::{self, InboxTarget, Route, RouteTarget, Target, TargetCheck, Trial};
use crate::event::{Fact, Fanout, topic};
use crate::id::{IdGenerator, Kind};

/// The routes of one revision.
#[derive(Default)]
pub struct Routes {
    revision: i64,
    routes: Vec<Compiled>,
}

/// A route that is ready to use.
struct Compiled {
    pattern: Pattern,
    condition: Option<Expression>,
    user_ids: Vec<String>,
    user_field: Option<Expression>,
    category: String,
    title: Text,
    message: Text,
    priority: Text,
    action_url: Text,
}

impl Compiled {
    fn new(route: &Route, target: &InboxTarget) -> Result<Self, String> {
        let condition =
            if route.condition.is_empty() { None } else { Some(Expression::compile(&route.condition)?) };
        let user_field = match target.user_field.as_str() {
            "" => None,
            field => Some(Expression::compile(&format!("data.{field}"))?),
        };
        Ok(Self {
            pattern: Pattern::parse(&route.event_type)?,
            condition,
            user_ids: target.user_ids.clone(),
            user_field,
            category: if target.category.is_empty() { GENERAL.into() } else { target.category.clone() },
            title: Text::compile(&target.title)?,
            message: Text::compile(&target.message)?,
            priority: Text::compile(&target.priority)?,
            action_url: Text::compile(&target.action_url)?,
        })
    }

    fn takes(&self, scope: &Scope) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.is_true(&scope.context))
    }

    /// Who is told, each once.
    fn users(&self, scope: &Scope) -> Vec<String> {
        let mut users: BTreeSet<String> = self.user_ids.iter().cloned().collect();
        let value = self.user_field.as_ref().and_then(|field| field.evaluate(&scope.context).ok());
        let value = value.and_then(|value| serde_json::to_value(&value).ok()).unwrap_or_default();
        let named = match value {
            Json::Array(many) => many,
            one => vec![one],
        };
        users.extend(named.into_iter().filter_map(|user| match user {
            Json::String(text) => Some(text),
            Json::Number(number) => Some(number.to_string()),
            _ => None,
        }));
        users.retain(|user_id| topic::check_user_id(user_id).is_ok());
        users.into_iter().take(USER_LIMIT).collect()
    }

    fn content(&self, scope: &Scope) -> Content {
        let names = scope.for_texts();
        Content {
            category: self.category.clone(),
            title: self.title.render(&names),
            message: self.message.render(&names),
            priority: Priority::of_word(self.priority.render(&names).trim()),
            action_url: self.action_url.render(&names),
            ..Content::default()
        }
    }
}

/// Whether an event is one for inboxes already; routes leave it alone, so that none answers another.
fn is_for_inboxes(fact: &Fact) -> bool {
    let of_somebody = &*fact.topic == topic::BROADCAST || topic::user(&fact.topic).is_some();
    of_somebody && fact.event_type.starts_with(word::SENT)
}

impl Routes {
    /// Of which revision they are.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn read(conn: &mut Conn) -> Result<Self> {
        // The revision first: routes that change in between are read again, and never missed.
        let revision = revision::current(conn, revision::SUBSCRIPTIONS).await?;
        let mut routes = Vec::new();
        for route in route::active(conn).await? {
            let Target::Inbox(target) = &route.target else { continue };
            match Compiled::new(&route, target) {
                Ok(compiled) => routes.push(compiled),
                // It compiled when it was saved; one bad route must not stop the others.
                Err(error) => tracing::error!(route = route.id, error, "the route can not be used"),
            }
        }
        Ok(Self { revision, routes })
    }

    /// The notifications that follow from events.
    pub(super) fn derive(&self, facts: &[Arc<Fact>], ids: &IdGenerator) -> Vec<Arc<Fact>> {
        let mut derived = Vec::new();
        for source in facts {
            let mut scope = None;
            for route in self.routes.iter().filter(|route| route.pattern.matches(&source.event_type)) {
                if is_for_inboxes(source) {
                    break;
                }
                let scope = scope.get_or_insert_with(|| Scope::of(source));
                if !route.takes(scope) {
                    continue;
                }
                let users = route.users(scope);
                let event_ids: Vec<String> = users.iter().map(|_| ids.next(Kind::Event)).collect();
                let Some(first) = event_ids.first() else { continue };
                let data = word::sent(&word::id_of(first), &route.content(scope), "", None);
                derived.extend(users.iter().zip(event_ids).map(|(user_id, id)| {
                    let topic = topic::of_user(user_id);
                    // What is erased with the event is erased with its subject.
                    let subject =
                        if source.subject.is_empty() { topic.clone() } else { source.subject.clone() };
                    fact(id, word::SENT, topic, subject, data.clone(), source.created_at)
                }));
            }
        }
        derived
    }
}

impl RouteTarget for InboxFanout {
    fn check<'a>(&'a self, _conn: &'a mut Conn, target: &'a Target) -> BoxFuture<'a, Result<TargetCheck>> {
        let mut wrong = Vec::new();
        if let Target::Inbox(target) = target
            && !target.category.is_empty()
            && let Err(error) = check_category(&target.category)
        {
            wrong.push(("category", error));
        }
        async move { Ok(wrong) }.boxed()
    }

    fn trial<'a>(
        &'a self,
        _conn: &'a mut Conn,
        route: &'a Route,
        fact: &'a Fact,
    ) -> BoxFuture<'a, Result<Trial>> {
        async move {
            let Target::Inbox(target) = &route.target else { return Ok(Trial::default()) };
            let no = |explanation: String| Ok(Trial { explanation, ..Trial::default() });
            let compiled = match Compiled::new(route, target) {
                Ok(compiled) => compiled,
                Err(explanation) => return no(explanation),
            };
            if is_for_inboxes(fact) {
                return no("the event is one for inboxes already".into());
            }
            let scope = Scope::of(fact);
            if !compiled.takes(&scope) {
                return no(format!("the condition is not true: {}", route.condition));
            }
            let recipients = compiled.users(&scope);
            let content = compiled.content(&scope);
            let explanation = if recipients.is_empty() {
                "nobody would be told: there is no user".to_owned()
            } else if content.message.trim().is_empty() {
                "the notification would have no text".to_owned()
            } else if !route.active {
                "the route is not active".to_owned()
            } else {
                String::new()
            };
            let texts = [
                ("category", content.category),
                ("title", content.title),
                ("message", content.message),
                ("priority", content.priority.word().to_owned()),
                ("action_url", content.action_url),
            ];
            let variables =
                texts.into_iter().map(|(name, text)| (name.to_owned(), Json::String(text))).collect();
            Ok(Trial { matched: true, explanation, recipients, variables })
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        Fanout::refresh(self, conn)
    }
}
