//! The settings of live streams and presence.

use super::super::definition::Definition;

/// These.
pub(super) const LIVE: &[Definition] = &[];
