//! Watches the mail queue: a captured mail goes nowhere, so somebody has to look.

use std::collections::HashSet;
use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{GetEmailRequest, ListEmailsRequest};

use super::arrival::{Arrival, Notes};
use super::failure::{Failure, Result};

/// Between two looks while the demo waits for its mails.
const SOON: Duration = Duration::from_millis(50);
/// Between two looks afterwards: a key has 10 000 requests an hour by default.
const LATER: Duration = Duration::from_secs(2);
/// The longest page that the server gives.
const PAGE: i32 = 500;

/// States from which a mail does not move any more.
const FINAL: [DeliveryState; 4] =
    [DeliveryState::Succeeded, DeliveryState::Failed, DeliveryState::Cancelled, DeliveryState::Unknown];

/// Tells of each mail once, when it is in its final state.  Looks often for the time of `eager`, then seldom.
pub async fn watch(client: Client, notes: Notes, eager: Duration) {
    let mut told = HashSet::new();
    loop {
        if let Err(failure) = look(&client, &notes, &mut told).await {
            return notes.tell(Arrival::Trouble(format!("email: {failure}")));
        }
        tokio::time::sleep(if notes.elapsed() < eager { SOON } else { LATER }).await;
    }
}

async fn look(client: &Client, notes: &Notes, told: &mut HashSet<String>) -> Result<()> {
    let failed = || Failure::call("the mail queue could not be read");
    let request = ListEmailsRequest {
        states: FINAL.iter().map(|state| i32::from(*state)).collect(),
        page_size: PAGE,
        ..Default::default()
    };
    let listed = client.emails().list_emails(request).await.map_err(failed())?.into_inner().emails;
    // The queue has the newest first, the timeline the oldest.
    for email in listed.into_iter().rev().filter(|email| !told.contains(&email.id)).collect::<Vec<_>>() {
        let request = GetEmailRequest { email_id: email.id.clone() };
        let mail = client.emails().get_email(request).await.map_err(failed())?.into_inner();
        notes.tell(Arrival::Mail(Box::new(mail)));
        told.insert(email.id);
    }
    Ok(())
}
