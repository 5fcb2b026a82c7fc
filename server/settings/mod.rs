//! Settings: what an administrator can change while the server runs.
//!
//! The [`catalogue`] says what can be set.  A value comes from what the process was [given](Given) at its start (then it
//! is pinned), from the database, or from the catalogue.  Whoever depends on settings follows [`SettingsService::follow`]; a change has
//! effect on this node before the call that made it returns, and on others within a second.

pub mod catalogue;
mod change;
pub mod definition;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod given;
pub mod history;
mod portable;
pub mod rpc;
mod service;
mod store;
mod values;
mod watch;

pub use change::Terms;
pub use given::Given;
pub use service::SettingsService;
pub use values::{Origin, Values};
pub use watch::Watches;
