//! Pages of a list: how many, and from where.
//!
//! A page token holds the key of the last row, and a fingerprint of the filters: a token is good for the query that it
//! came from and for no other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

const DEFAULT_SIZE: usize = 50;
const SIZE_LIMIT: usize = 500;

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    size: usize,
    filters: u32,
    /// The key of the last row of the page before.
    pub after: Option<String>,
}

impl Page {
    /// Reads what the caller asked for; a token is bound to the list's name and to the filters of the query.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a negative size, and for a token of another query.
    pub fn read(
        list: &str,
        page_size: i32,
        page_token: &str,
        filters: &[&dyn std::fmt::Debug],
    ) -> Result<Self> {
        let size = match usize::try_from(page_size) {
            Err(_) => return Err(Error::field("page_size", "must not be negative")),
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(SIZE_LIMIT),
        };
        let filters = crc32fast::hash(format!("{list}{filters:?}").as_bytes());
        let after = match page_token {
            "" => None,
            token => Some(decode(token, filters).ok_or_else(|| {
                Error::field("page_token", "is not a next_page_token of a list with the same filters")
            })?),
        };
        Ok(Self { size, filters, after })
    }

    /// How many rows to ask for: one more than the page holds, to know whether there is a next one.
    pub fn limit(&self) -> usize {
        self.size + 1
    }

    /// A token that goes on after `key`.
    pub fn token(&self, key: &str) -> String {
        encode(key, self.filters)
    }

    /// Cuts the rows to the page, and answers the token of the next one.
    pub fn cut<T>(&self, rows: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        if rows.len() <= self.size {
            return String::new();
        }
        rows.truncate(self.size);
        rows.last().map(|last| self.token(&key(last))).unwrap_or_default()
    }
}

fn encode(key: &str, filters: u32) -> String {
    let mut bytes = filters.to_be_bytes().to_vec();
    bytes.extend_from_slice(key.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(token: &str, filters: u32) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (found, key) = bytes.split_first_chunk()?;
    let key = String::from_utf8(key.to_vec()).ok()?;
    (u32::from_be_bytes(*found) == filters && !key.contains('\0')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_end() {
        let all: Vec<u32> = (0..7).collect();
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let page = Page::read("list", 3, &token, &[&"a"]).unwrap();
            let from = page.after.as_ref().map_or(0, |key| key.parse::<usize>().unwrap() + 1);
            let mut rows: Vec<u32> = all[from..].iter().take(page.limit()).copied().collect();
            token = page.cut(&mut rows, u32::to_string);
            seen.extend(rows);
            if token.is_empty() {
                break;
            }
            assert!(Page::read("list", 3, &token, &[&"b"]).is_err(), "the token is for other filters");
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn bad_pages_are_refused() {
        assert!(Page::read("list", -1, "", &[]).is_err());
        assert!(Page::read("list", 0, "no token", &[]).is_err());
        assert_eq!(Page::read("list", 100_000, "", &[]).unwrap().limit(), SIZE_LIMIT + 1);
    }
}
