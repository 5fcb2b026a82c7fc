//! What an administrator would set up before events flow: recipients, a webhook endpoint, a live stream.

use switchboard_client::Client;
use switchboard_client::email::v1::{
    GetTemplateRequest, ListTemplatesRequest, RecipientList, UpdateRecipientListRequest,
};
use switchboard_client::notification::v1::SubscribeRequest;
use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook};
use tokio::task::JoinSet;

use super::arrival::{Arrival, Notes};
use super::events::{EVENTS, LISTS, TEMPLATES, shows};
use super::failure::{Failure, Result};
use super::plan::{DirectMail, Plan};
use super::receiver::Receiver;
use crate::secret::SecretText;

/// Puts the addresses on the seeded recipient lists.
pub async fn fill_recipient_lists(client: &Client) -> Result<()> {
    for (name, addresses) in LISTS {
        let list = RecipientList {
            name: (*name).to_owned(),
            // One entry with commas: the server is to take it apart.
            addresses: vec![(*addresses).to_owned()],
            ..Default::default()
        };
        let request = UpdateRecipientListRequest {
            recipient_list: Some(list),
            update_mask: Some(prost_types::FieldMask { paths: vec!["addresses".to_owned()] }),
        };
        let failed = Failure::call("the recipient list could not be filled");
        client.recipient_lists().update_recipient_list(request).await.map_err(failed)?;
    }
    Ok(())
}

/// Makes an endpoint for all events, and tells the receiver its secret.  Answers the endpoint's id.
pub async fn create_webhook(client: &Client, receiver: &Receiver) -> Result<String> {
    let webhook = Webhook {
        name: "Demo receiver".to_owned(),
        url: receiver.url(),
        event_types: vec!["*".to_owned()],
        description: "Checks both signatures of every request.".to_owned(),
        ..Default::default()
    };
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    let failed = Failure::call("the webhook endpoint could not be made");
    let response = client.webhooks().create_webhook(request).await.map_err(failed)?.into_inner();
    receiver.trust(SecretText::new(response.secret));
    Ok(response.webhook.unwrap_or_default().id)
}

/// Opens a live stream of all events, and answers when the server has opened it.
pub async fn subscribe(client: &Client, background: &mut JoinSet<()>, notes: Notes) -> Result<()> {
    let request = SubscribeRequest { event_types: vec!["*".to_owned()], ..Default::default() };
    let failed = || Failure::call("the live stream could not be opened");
    let mut stream = client.notifications().subscribe(request).await.map_err(failed())?.into_inner();
    let first = stream.message().await.map_err(failed())?.unwrap_or_default();
    if first.opened.is_none() {
        return Err(Failure::new("the live stream could not be opened", "its first message does not say so"));
    }
    background.spawn(async move {
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return notes.tell(Arrival::Trouble("live: the stream ended".to_owned())),
                Err(status) => {
                    return notes
                        .tell(Arrival::Trouble(format!("live: the stream broke: {}", status.message())));
                }
            };
            if message.resync.is_some() {
                notes.tell(Arrival::Trouble("live: the server says that the stream has a gap".to_owned()));
            }
            for event in message.events {
                notes.tell(Arrival::Live(event));
            }
        }
    });
    Ok(())
}

/// Reads the templates, and plans a mail of its own for each that no event shows.
pub async fn plan(client: &Client, webhook_id: String) -> Result<Plan> {
    let failed = || Failure::call("the templates could not be read");
    let listed = client.templates().list_templates(ListTemplatesRequest {}).await.map_err(failed())?;
    let names: Vec<String> =
        listed.into_inner().templates.into_iter().map(|template| template.name).collect();
    let missing: Vec<&str> =
        TEMPLATES.iter().filter(|name| !names.iter().any(|listed| listed == *name)).copied().collect();
    if !missing.is_empty() {
        return Err(Failure::new("the server lacks templates", missing.join(", ")));
    }
    let mut direct = Vec::new();
    for name in names.into_iter().filter(|name| !shows(name)) {
        let request = GetTemplateRequest { name: name.clone(), ..Default::default() };
        let template =
            client.templates().get_template(request).await.map_err(failed())?.into_inner().template;
        direct.push(DirectMail::from_samples(name, template.unwrap_or_default().variables));
    }
    Ok(Plan { webhook_id, events: EVENTS, direct })
}
