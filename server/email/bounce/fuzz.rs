//! Reports.

use super::parse::parse;
use crate::id::{Kind, is_valid};

/// Any mail: it is a report or none, and what it says is bounded.
pub fn bounce(data: &[u8]) {
    let Ok(report) = parse(data) else { return };
    assert!(report.email_ids.len() <= 8 && report.recipients.len() <= 1_000);
    assert!(report.email_ids.iter().all(|id| is_valid(Kind::Email, id)), "{:?}", report.email_ids);
    for recipient in &report.recipients {
        assert!(recipient.addresses.iter().all(|address| address.len() <= 320), "{recipient:?}");
        assert!(recipient.diagnostic.chars().count() <= 1_000, "{recipient:?}");
        let plain = |text: &str| !text.chars().any(|c| c.is_control() && c != '\t');
        assert!(plain(&recipient.diagnostic) && plain(&recipient.status), "{recipient:?}");
        assert!(recipient.addresses.iter().all(|address| plain(address)), "{recipient:?}");
    }
}
