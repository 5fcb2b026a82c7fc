//! The wire: RouteService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::error::{Error, Result as ServerResult, Violations};
use crate::event::route::{
    EmailTarget, InboxTarget, Recipients, Route, RouteChange, RouteService, Target, Trial,
};
use crate::event::{EventService, Fact, NewEvent, topic};
use crate::pb::switchboard::event::v1 as pb;
use crate::rpc::convert::{from_json, timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;

/// RouteService.
pub struct RouteRpc {
    /// Routes.
    pub routes: RouteService,
    /// Checks the events to try.
    pub events: Arc<EventService>,
}

pub(super) const CHANGEABLE: [&str; 6] = ["name", "event_type", "condition", "active", "email", "inbox"];

#[tonic::async_trait]
impl pb::route_service_server::RouteService for RouteRpc {
    async fn create_route(
        &self,
        request: Request<pb::CreateRouteRequest>,
    ) -> Result<Response<pb::CreateRouteResponse>, Status> {
        let pb::CreateRouteRequest { route, inactive } = request.into_inner();
        let route = route.ok_or_else(|| Error::field("route", "is required"))?;
        let change = RouteChange {
            name: Some(route.name),
            event_type: Some(route.event_type),
            condition: Some(route.condition),
            active: Some(!inactive),
            target: route.target.map(target).transpose()?,
            version: None,
        };
        let route = self.routes.create(change).await?;
        Ok(Response::new(pb::CreateRouteResponse { route: Some(route.into()) }))
    }

    async fn get_route(
        &self,
        request: Request<pb::GetRouteRequest>,
    ) -> Result<Response<pb::GetRouteResponse>, Status> {
        let route = self.routes.get(&request.get_ref().route_id).await?;
        Ok(Response::new(pb::GetRouteResponse { route: Some(route.into()) }))
    }

    async fn list_routes(
        &self,
        request: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let pb::ListRoutesRequest { page_size, page_token } = request.into_inner();
        let page = Page::read("routes", page_size, &page_token, &[])?;
        let mut routes =
            self.routes.list(page.after.as_deref().unwrap_or_default(), page.limit() as i64).await?;
        let next_page_token = page.cut(&mut routes, |route| route.id.clone());
        let routes = routes.into_iter().map(pb::Route::from).collect();
        Ok(Response::new(pb::ListRoutesResponse { routes, next_page_token }))
    }

    async fn update_route(
        &self,
        request: Request<pb::UpdateRouteRequest>,
    ) -> Result<Response<pb::UpdateRouteResponse>, Status> {
        let pb::UpdateRouteRequest { route, update_mask } = request.into_inner();
        let route = route.ok_or_else(|| Error::field("route", "is required"))?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let change = RouteChange {
            name: mask.take("name", route.name),
            event_type: mask.take("event_type", route.event_type),
            condition: mask.take("condition", route.condition),
            active: mask.take("active", route.active),
            target: changed_target(&mask, route.target)?,
            version: mask::version(&route.etag)?,
        };
        let route = self.routes.update(route.id, change).await?;
        Ok(Response::new(pb::UpdateRouteResponse { route: Some(route.into()) }))
    }

    async fn delete_route(
        &self,
        request: Request<pb::DeleteRouteRequest>,
    ) -> Result<Response<pb::DeleteRouteResponse>, Status> {
        self.routes.delete(request.into_inner().route_id).await?;
        Ok(Response::new(pb::DeleteRouteResponse {}))
    }

    async fn test_route(
        &self,
        request: Request<pb::TestRouteRequest>,
    ) -> Result<Response<pb::TestRouteResponse>, Status> {
        let pb::TestRouteRequest { route_id, event } = request.into_inner();
        let event = NewEvent::from(event.ok_or_else(|| Error::field("event", "is required"))?);
        let mut violations = Violations::default();
        self.events.check(&event, &mut violations, &|field| format!("event.{field}"));
        violations.finish()?;
        let fact = Fact {
            id: "evt_test".into(),
            event_type: event.event_type.into(),
            data: if event.data.is_empty() { "{}".into() } else { event.data },
            actor: event.actor,
            subject: event.subject,
            // As when it is published.
            topic: if event.topic.is_empty() { topic::DEFAULT.into() } else { event.topic.into() },
            created_at: self.events.clock.now(),
        };
        let Trial { matched, explanation, recipients, variables } =
            self.routes.trial(&route_id, &fact).await?;
        let variables = Some(from_json(variables));
        Ok(Response::new(pb::TestRouteResponse { matched, explanation, recipients, variables }))
    }
}

/// The new target, if the mask wants one: a route goes to one place, and what it is changed to takes the place of what it was.
pub(super) fn changed_target(mask: &Mask, new: Option<pb::route::Target>) -> ServerResult<Option<Target>> {
    let is_email = matches!(new, Some(pb::route::Target::Email(_)));
    let (email, inbox) = (new.clone().filter(|_| is_email), new.filter(|_| !is_email));
    let changed = [("email", mask.take("email", email)), ("inbox", mask.take("inbox", inbox))];
    if let Some((_, Some(Some(new)))) = changed.iter().find(|(_, taken)| matches!(taken, Some(Some(_)))) {
        return target(new.clone()).map(Some);
    }
    match changed.iter().find(|(_, taken)| taken.is_some()) {
        Some((name, _)) => Err(Error::field(format!("route.{name}"), "is required")),
        None => Ok(None),
    }
}

pub(super) fn target(target: pb::route::Target) -> ServerResult<Target> {
    let email = match target {
        pb::route::Target::Email(email) => email,
        pb::route::Target::Inbox(inbox) => return Ok(Target::Inbox(inbox.into())),
    };
    let recipients = match email.recipients {
        Some(pb::email_target::Recipients::RecipientList(list)) => Recipients::List(list),
        Some(pb::email_target::Recipients::RecipientField(field)) => Recipients::Field(field),
        None => {
            let what = "set recipient_list or recipient_field";
            return Err(Error::field("route.email", what));
        }
    };
    let variables = email.variables.into_iter().collect();
    Ok(Target::Email(EmailTarget { template: email.template, recipients, variables }))
}

impl From<pb::InboxTarget> for InboxTarget {
    fn from(target: pb::InboxTarget) -> Self {
        let pb::InboxTarget { user_ids, user_field, category, title, message, priority, action_url } = target;
        Self { user_ids, user_field, category, title, message, priority, action_url }
    }
}

impl From<InboxTarget> for pb::InboxTarget {
    fn from(target: InboxTarget) -> Self {
        let InboxTarget { user_ids, user_field, category, title, message, priority, action_url } = target;
        Self { user_ids, user_field, category, title, message, priority, action_url }
    }
}

impl From<EmailTarget> for pb::EmailTarget {
    fn from(target: EmailTarget) -> Self {
        let recipients = match target.recipients {
            Recipients::List(list) => pb::email_target::Recipients::RecipientList(list),
            Recipients::Field(field) => pb::email_target::Recipients::RecipientField(field),
        };
        let variables = target.variables.into_iter().collect();
        Self { template: target.template, recipients: Some(recipients), variables }
    }
}

impl From<Route> for pb::Route {
    fn from(route: Route) -> Self {
        let target = match route.target {
            Target::Email(target) => pb::route::Target::Email(target.into()),
            Target::Inbox(target) => pb::route::Target::Inbox(target.into()),
        };
        Self {
            id: route.id,
            name: route.name,
            event_type: route.event_type,
            condition: route.condition,
            active: route.active,
            target: Some(target),
            etag: route.version.to_string(),
            create_time: Some(timestamp(route.created_at)),
            update_time: Some(timestamp(route.updated_at)),
        }
    }
}
