//! The application: publishes the events, then sends the mails that no event causes.

use switchboard_client::Client;
use switchboard_client::email::v1::SendEmailRequest;
use switchboard_client::event::v1::PublishEventRequest;

use super::arrival::{Arrival, Notes};
use super::events::READER;
use super::failure::{Failure, Result};
use super::plan::Plan;

/// Does all of the plan, one call after the other, so that the order of the events is known.
pub async fn publish(client: &Client, plan: &Plan, notes: &Notes) -> Result<()> {
    for (index, event) in plan.events.iter().enumerate() {
        let request = PublishEventRequest {
            event_type: event.event_type.to_owned(),
            data: event.data.to_owned(),
            actor: event.actor.to_owned(),
            subject: event.subject.to_owned(),
            ..Default::default()
        };
        notes.tell(Arrival::Publishing(index));
        let what = format!("{} could not be published", event.event_type);
        let response = client.events().publish_event(request).await.map_err(Failure::call(&what))?;
        notes.tell(Arrival::Accepted(index, response.into_inner().event_id));
    }
    for (index, mail) in plan.direct.iter().enumerate() {
        let request = SendEmailRequest {
            to: vec![READER.to_owned()],
            template: mail.template.clone(),
            variables: Some(mail.variables.clone()),
            ..Default::default()
        };
        notes.tell(Arrival::Queueing(index));
        let what = format!("{} could not be sent", mail.template);
        let response = client.emails().send_email(request).await.map_err(Failure::call(&what))?;
        notes.tell(Arrival::Queued(index, response.into_inner().email_id));
    }
    Ok(())
}
