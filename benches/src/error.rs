//! Why a measurement failed.

/// A failure in words. The program ends with it, so nobody needs to tell one kind from another.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts these words before the failure's own.
    fn context(self, doing: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: &str) -> Result<T> {
        self.map_err(|error| format!("{doing}: {error}").into())
    }
}
