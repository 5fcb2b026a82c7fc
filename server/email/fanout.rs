//! The mails that a publish makes: one for each event, each route that takes it, and each of the route's recipients.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use minijinja::Value;
use serde_json::{Map, Value as Json};

use super::address;
use super::config::SharedConfig;
use super::intake::{Arrival, Intake, Prepared};
use super::library::{self, Library};
use super::model::Mail;
use super::recipient::store as lists;
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter, revision};
use crate::error::Result;
use crate::event::pattern::Pattern;
use crate::event::route::expression::{Expression, Scope};
use crate::event::route::{self, EmailTarget, Recipients, Route, RouteTarget, Target, TargetCheck, Trial};
use crate::event::{Event, Fact, Fanout, Planned};
use crate::id::{IdGenerator, Kind};

/// The email channel, as a publish sees it.
pub struct EmailFanout {
    /// Decides about the mails.
    pub intake: Intake,
    /// The branding in them.
    pub config: SharedConfig,
    /// The templates.
    pub library: Arc<Library>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The routes, compiled.
    pub routes: ArcSwap<Routes>,
}

/// The routes of one revision.
#[derive(Default)]
pub struct Routes {
    revision: i64,
    routes: Vec<Compiled>,
}

/// A route that is ready to use.
struct Compiled {
    id: String,
    pattern: Pattern,
    condition: Option<Expression>,
    template: String,
    recipients: Who,
    variables: Vec<(String, Expression)>,
}

enum Who {
    List(Vec<String>),
    Field(Expression),
}

impl Compiled {
    fn new(route: &Route, target: &EmailTarget, list: Option<Vec<String>>) -> Result<Self, String> {
        let condition =
            if route.condition.is_empty() { None } else { Some(Expression::compile(&route.condition)?) };
        let recipients = match &target.recipients {
            Recipients::List(_) => Who::List(list.unwrap_or_default()),
            Recipients::Field(field) => Who::Field(Expression::compile(&format!("data.{field}"))?),
        };
        let compile = |(name, text): (&String, &String)| Ok((name.clone(), Expression::compile(text)?));
        Ok(Self {
            id: route.id.clone(),
            pattern: Pattern::parse(&route.event_type)?,
            condition,
            template: target.template.clone(),
            recipients,
            variables: target.variables.iter().map(compile).collect::<Result<_, String>>()?,
        })
    }

    fn takes(&self, scope: &Scope) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.is_true(&scope.context))
    }

    /// Who gets a mail; an entry without an address is a mail that will fail, visibly.
    fn recipients(&self, scope: &Scope) -> Vec<Option<String>> {
        match &self.recipients {
            Who::List(addresses) => addresses.iter().cloned().map(Some).collect(),
            Who::Field(expression) => {
                let value = expression.evaluate(&scope.context).ok();
                let address = value.as_ref().and_then(|value| address::parse(value.as_str()?).ok());
                vec![address.map(|mailbox| mailbox.to_string())]
            }
        }
    }

    /// The event's own fields, and over them what the route computes.
    fn variables(&self, scope: &Scope) -> Map<String, Json> {
        let mut variables = scope.data.clone();
        for (name, expression) in &self.variables {
            let value = expression
                .evaluate(&scope.context)
                .ok()
                .filter(|value| !value.is_undefined() && !value.is_none());
            if let Some(value) = value.and_then(|value| serde_json::to_value(&value).ok()) {
                variables.insert(name.clone(), value);
            }
        }
        variables
    }
}

impl EmailFanout {
    async fn read(conn: &mut Conn) -> Result<Routes> {
        // The revision first: routes that change in between are read again, and never missed.
        let revision = revision::current(conn, revision::SUBSCRIPTIONS).await?;
        let lists = lists::all(conn).await?;
        let mut routes = Vec::new();
        for route in route::active(conn).await? {
            let Target::Email(target) = &route.target else { continue };
            let list = match &target.recipients {
                Recipients::List(name) => lists.get(name).cloned(),
                Recipients::Field(_) => None,
            };
            match Compiled::new(&route, target, list) {
                Ok(compiled) => routes.push(compiled),
                // It compiled when it was saved; one bad route must not stop the others.
                Err(error) => tracing::error!(route = route.id, error, "the route can not be used"),
            }
        }
        Ok(Routes { revision, routes })
    }

    fn branding(&self) -> Value {
        let config = self.config.load();
        let branding = &config.branding;
        minijinja::context! {
            company_name => branding.company_name.as_str(),
            site_url => branding.site_url.trim_end_matches('/'),
            support_email => branding.support_email.as_str(),
            logo_url => branding.logo_url.as_deref().unwrap_or_default(),
            colour => branding.colour.as_str(),
        }
    }

    fn mails(&self, route: &Compiled, fact: &Fact, scope: &Scope, mails: &mut Vec<Arc<Mail>>) {
        let variables = route.variables(scope);
        for recipient in route.recipients(scope) {
            let mut variables = variables.clone();
            let name = recipient.as_deref().and_then(address::display_name);
            if let Some(name) = name.filter(|_| !variables.contains_key("user_name")) {
                variables.insert("user_name".into(), name.into());
            }
            mails.push(Arc::new(Mail {
                id: self.ids.next(Kind::Email),
                event_id: Some(fact.id.to_string()),
                route_id: Some(route.id.clone()),
                template: route.template.clone(),
                variables,
                to: recipient.into_iter().collect(),
                created_at: fact.created_at,
                ..Mail::default()
            }));
        }
    }
}

impl Fanout for EmailFanout {
    fn revision(&self) -> i64 {
        self.routes.load().revision
    }

    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        async move {
            let read = Arc::new(Self::read(conn).await?);
            // Two refreshes may overlap; the older one must not win.
            self.routes.rcu(|known| {
                if known.revision > read.revision { Arc::clone(known) } else { Arc::clone(&read) }
            });
            Ok(())
        }
        .boxed()
    }

    fn plan(&self, events: &[Event], now: Timestamp) -> Option<Box<dyn Planned>> {
        let routes = self.routes.load();
        let mut mails = Vec::new();
        let mut branding = None;
        for Event { fact, .. } in events {
            // The payload is read only when a route may want it.
            let mut scope = None;
            for route in routes.routes.iter().filter(|route| route.pattern.matches(&fact.event_type)) {
                if matches!(&route.recipients, Who::List(addresses) if addresses.is_empty()) {
                    continue;
                }
                let branding = branding.get_or_insert_with(|| self.branding());
                let scope = scope.get_or_insert_with(|| Scope::new(fact, branding));
                if route.takes(scope) {
                    self.mails(route, fact, scope, &mut mails);
                }
            }
        }
        if mails.is_empty() {
            return None;
        }
        let arrivals = mails.into_iter().map(Arrival::from).collect();
        let intake = self.intake.clone();
        Some(Box::new(PlannedMails { intake, arrivals, now, prepared: Prepared::default() }))
    }
}

struct PlannedMails {
    intake: Intake,
    arrivals: Vec<Arrival>,
    now: Timestamp,
    prepared: Prepared,
}

impl Planned for PlannedMails {
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> QueryResult<()> {
        self.prepared = self.intake.sqlite(conn, &self.arrivals, self.now)?;
        Ok(())
    }

    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>> {
        async move {
            self.prepared = self.intake.postgres(conn, &self.arrivals, self.now).await?;
            Ok(())
        }
        .boxed()
    }

    fn committed(self: Box<Self>) {
        self.prepared.committed(&self.intake.engine);
    }
}

impl RouteTarget for EmailFanout {
    fn check<'a>(&'a self, conn: &'a mut Conn, target: &'a Target) -> BoxFuture<'a, Result<TargetCheck>> {
        async move {
            let mut wrong = Vec::new();
            let Target::Email(target) = target else { return Ok(wrong) };
            if !library::exists(conn, &target.template).await? {
                wrong.push(("template", format!("there is no template {:?}", target.template)));
            }
            if let Recipients::List(name) = &target.recipients
                && !lists::all(conn).await?.contains_key(name)
            {
                wrong.push(("recipient_list", format!("there is no recipient list {name:?}")));
            }
            Ok(wrong)
        }
        .boxed()
    }

    fn trial<'a>(
        &'a self,
        conn: &'a mut Conn,
        route: &'a Route,
        fact: &'a Fact,
    ) -> BoxFuture<'a, Result<Trial>> {
        async move {
            let Target::Email(target) = &route.target else { return Ok(Trial::default()) };
            let list = match &target.recipients {
                Recipients::List(name) => lists::all(conn).await?.remove(name),
                Recipients::Field(_) => None,
            };
            let compiled = match Compiled::new(route, target, list) {
                Ok(compiled) => compiled,
                Err(explanation) => {
                    return Ok(Trial { explanation, ..Trial::default() });
                }
            };
            let scope = Scope::new(fact, &self.branding());
            if !compiled.takes(&scope) {
                let explanation = format!("the condition is not true: {}", route.condition);
                return Ok(Trial { explanation, ..Trial::default() });
            }
            let variables = compiled.variables(&scope);
            let recipients: Vec<String> = compiled.recipients(&scope).into_iter().flatten().collect();
            let explanation = match self.library.check(&target.template, "", &variables) {
                Err(error) => format!("the template can not be rendered: {error}"),
                Ok(()) if recipients.is_empty() => "nobody would get a mail: there is no address".to_owned(),
                Ok(()) if !route.active => "the route is not active".to_owned(),
                Ok(()) => String::new(),
            };
            Ok(Trial { matched: true, explanation, recipients, variables })
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        Fanout::refresh(self, conn)
    }
}
