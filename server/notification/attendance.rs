//! Who is there, for whoever wants to know.

use crate::rpc::User;

/// Is told when a user comes and goes.
pub trait Attendance: Send + Sync + 'static {
    /// A stream of this user was opened; what is answered is dropped when it ends.
    fn arrived(&self, user: &User) -> Box<dyn Send>;
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unattended;

impl Attendance for Unattended {
    fn arrived(&self, _user: &User) -> Box<dyn Send> {
        Box::new(())
    }
}
