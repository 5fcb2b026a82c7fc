//! Update masks (AIP-134): which fields an update changes.

use prost_types::FieldMask;

use crate::error::{Error, Result};

/// Which fields to change.
#[derive(Debug)]
pub struct Mask(Option<Vec<String>>);

impl Mask {
    /// Reads a mask; `known` are the fields that can be changed.  `*` means all of them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a field that can not.
    pub fn read(mask: Option<FieldMask>, known: &[&str]) -> Result<Self> {
        let Some(FieldMask { paths }) = mask else {
            return Ok(Self(None));
        };
        if paths.iter().any(|path| path == "*") {
            return Ok(Self(Some(known.iter().map(|&field| field.to_owned()).collect())));
        }
        match paths.iter().find(|path| !known.contains(&path.as_str())) {
            Some(path) => Err(Error::field(
                "update_mask",
                format!("{path:?} can not be changed; these can: {}", known.join(", ")),
            )),
            None => Ok(Self(Some(paths))),
        }
    }

    /// The new value of a field, if it is to be changed: because the mask names it, or, without a mask, because it is
    /// set.
    pub fn take<T: Default + PartialEq>(&self, field: &str, value: T) -> Option<T> {
        let change = match &self.0 {
            Some(paths) => paths.iter().any(|path| path == field),
            None => value != T::default(),
        };
        change.then_some(value)
    }
}

/// The version that an etag asks for; `None` for an empty one.
///
/// # Errors
/// `ABORTED` for one that this server never made.
pub fn version(etag: &str) -> Result<Option<i64>> {
    match etag {
        "" => Ok(None),
        etag => etag.parse().map(Some).map_err(|_| Error::etag_mismatch("")),
    }
}
