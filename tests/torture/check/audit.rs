//! Administration: each change has one entry in the audit log, and a revoked key stays revoked.

use std::collections::{BTreeMap, HashMap};

use super::{Bounds, Guarantee, Run, Verdict};
use crate::torture::journal::{Asked, Moment, milliseconds};

/// A change of a setting.
#[derive(Default)]
struct Change {
    asked: bool,
    acknowledged: bool,
    entries: usize,
}

pub(super) fn check(run: &Run<'_>, bounds: &Bounds, verdict: &mut Verdict) {
    let mut changes: BTreeMap<u64, Change> = BTreeMap::new();
    let mut revoked: HashMap<&str, Moment> = HashMap::new();
    for entry in run.asked {
        match entry {
            Asked::Change { number } => changes.entry(*number).or_default().asked = true,
            Asked::Changed { number } => changes.entry(*number).or_default().acknowledged = true,
            Asked::Audited { number } => changes.entry(*number).or_default().entries += 1,
            Asked::Revoked { key, at } => {
                revoked.insert(key, *at);
            }
            Asked::Verified { key, began, valid: true } => {
                if let Some(late) = revoked.get(key.as_str()).and_then(|at| began.checked_sub(*at))
                    && late >= bounds.revoked
                {
                    let late = milliseconds(late);
                    verdict.add(Guarantee::G5, format!("{key} is valid {late} ms after it was revoked"));
                }
            }
            _ => {}
        }
    }
    for (number, Change { asked, acknowledged, entries }) in &changes {
        // Whether a change was made whose answer did not come, only its entry says.
        let right = if *acknowledged { *entries == 1 } else { *entries <= 1 };
        if !asked || !right {
            let said = if *acknowledged { "acknowledged" } else { "not acknowledged" };
            verdict.add(Guarantee::G4, format!("change {number}, {said}, has {entries} entries"));
        }
    }
    verdict.figures.changes = changes.values().filter(|change| change.acknowledged).count();
    verdict.figures.revocations = revoked.len();
}
