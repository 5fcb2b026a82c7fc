//! Templates at run time: texts that are kept in the database, in place of the compiled ones or beside them.
//!
//! ```text
//! a text is saved: service -> validate -> lexer (tags and their words, bounded) -> grammar (which tags, filters and
//!     names) -> engine (compiles) -> renders the samples -> store, with a version -> Library reads it anew
//! a mail is rendered: Library -> the closest language -> compiled (engine, then links) -> Rendered, or, when a text in
//!     place of a compiled one fails, the compiled one
//! ```
//!
//! Guarantees: a text that was saved names nothing unknown; values are escaped wherever HTML prints them and are never
//! read as a template; a link from a value is of the usual kinds; a rendering ends, is bounded, and does not panic.

mod catalogue;
mod compiled;
mod engine;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grammar;
mod lexer;
mod links;
mod locale;
mod model;
mod portable;
mod preview;
pub mod rpc;
mod save;
mod service;
mod store;
mod validate;
mod value;

pub use catalogue::Library;
#[cfg(any(test, fuzzing))]
pub(super) use fuzz::check_declaration;
pub use model::{Stored, Template, Text, Variable, Version};
pub use preview::{Preview, PreviewOf};
pub use service::{LibraryService, TemplateChange};
pub use store::exists;

/// What a mail has beside the variables of its template.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras<'a> {
    /// The line that mail programs show after the subject, in place of the template's; empty for the template's.
    pub preheader: &'a str,
    /// Where the recipient can unsubscribe.
    pub unsubscribe_url: Option<&'a str>,
}
