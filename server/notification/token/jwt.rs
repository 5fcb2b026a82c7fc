//! The compact form of a JWT (RFC 7519; RFC 7515, 3.1), taken apart and not yet believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The greatest token, in bytes: what still fits beside other headers everywhere.
pub const LIMIT: usize = 8 * 1024;

/// The three parts of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact<'a> {
    /// What is signed: the header and the claims with the dot between.
    pub signed: &'a str,
    /// The header, encoded.
    pub header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Compact<'a> {
    /// Takes a token apart; `None` for a text that has not the form of one, of whatever size.
    pub fn split(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        [header, claims, signature].into_iter().all(is_part).then_some(Self {
            signed,
            header,
            claims,
            signature,
        })
    }

    /// The header's bytes; `None` when it is not encoded in the one way that there is.
    pub fn header_bytes(&self) -> Option<Vec<u8>> {
        decode(self.header)
    }

    /// The bytes of the claims.
    pub fn claims_bytes(&self) -> Option<Vec<u8>> {
        decode(self.claims)
    }

    /// The bytes of the signature.
    pub fn signature_bytes(&self) -> Option<Vec<u8>> {
        decode(self.signature)
    }
}

/// Encodes a part.
pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a part: without padding, and without bits that mean nothing, so that two texts are never one token.
pub(super) fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_of_base64url() {
        let token = Compact::split("YQ.Yg.Yw").unwrap();
        assert_eq!((token.signed, token.header), ("YQ.Yg", "YQ"));
        assert_eq!(token.claims_bytes().unwrap(), b"b");
        assert_eq!(token.signature_bytes().unwrap(), b"c");
        for other in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.",
            ".b.c",
            "a..c",
            "a.b.c.d",
            "a.b.c=",
            "a.b+.c",
            "a b.c.d",
            "ä.b.c",
            "swb_0aBcDeFgHiJ_0aBc",
            "a.b.c\n",
        ] {
            assert_eq!(Compact::split(other), None, "{other:?}");
        }
    }

    #[test]
    fn one_value_has_one_form() {
        assert_eq!(decode("Yw").unwrap(), b"c");
        for other in ["Yx", "Yw=", "Yw==", "Y", "Y w"] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }
}
