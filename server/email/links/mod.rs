//! Links that mails carry: to unsubscribe, and to count opens and clicks.
//!
//! Everything a link does is in the link, signed: nobody can make one up, use one for another purpose, or lead readers to
//! a place that no mail named.  Nothing is looked up to check one, so that links of mails that are long gone still work.

mod agent;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
mod rewrite;
mod token;

pub use rewrite::{add_open_picture, rewrite_links};
pub use token::{Claim, Links, Purpose, list_unsubscribe_headers};
