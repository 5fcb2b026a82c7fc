//! The public keys of an identity provider (RFC 7517), and the three algorithms that there are.
//!
//! A key says by its kind which algorithm it is for.  None of them takes a secret, so that a public key can never be used as
//! one, and `none` is no algorithm here.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

use super::super::jwt::decode;

/// How many keys of a provider are taken.
const KEYS: usize = 100;
pub(super) const ID_LIMIT: usize = 256;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1_024;
const COORDINATE: usize = 32;

/// How a token is signed (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Whether it signed this.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        }
        .is_ok()
    }
}

/// The keys of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set of keys.  Those that are for something else, or of another kind, are passed over, as the standard has it.
    ///
    /// # Errors
    /// When it is no set, or has no key that a token could be verified with.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Set = serde_json::from_slice(text).map_err(|error| format!("no set of keys: {error}"))?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(read).take(KEYS).collect();
        if keys.is_empty() {
            return Err("there is no key for RS256, ES256 or EdDSA among the keys".into());
        }
        Ok(Self(keys))
    }

    /// The keys that a token can be signed with that names this one; without a name, the only one that there is.
    pub fn find<'a>(&'a self, algorithm: Algorithm, id: Option<&'a str>) -> Vec<&'a Key> {
        let mut found: Vec<&Key> = self
            .0
            .iter()
            .filter(|key| key.algorithm() == algorithm && (id.is_none() || key.id.as_deref() == id))
            .collect();
        if id.is_none() && found.len() > 1 {
            found.clear();
        }
        found
    }
}

fn read(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    let named = jwk.kid.as_ref().is_none_or(|id| id.len() <= ID_LIMIT);
    if !(signs && verifies && named) {
        return None;
    }
    let part = |text: &Option<String>| decode(text.as_deref()?);
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None) => {
            let n: Vec<u8> = part(&jwk.n)?.into_iter().skip_while(|&byte| byte == 0).collect();
            let e = part(&jwk.e)?.into_iter().skip_while(|&byte| byte == 0).collect();
            MODULUS.contains(&n.len()).then_some(Material::Rsa { n, e })?
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (part(&jwk.x)?, part(&jwk.y)?);
            (x.len() == COORDINATE && y.len() == COORDINATE)
                .then(|| Material::P256([&[4], x.as_slice(), y.as_slice()].concat()))?
        }
        ("OKP", Some("Ed25519")) => {
            let x = part(&jwk.x)?;
            (x.len() == COORDINATE).then_some(Material::Ed25519(x))?
        }
        _ => return None,
    };
    let key = Key { id: jwk.kid, material };
    // A key that is for another algorithm of its kind, such as RS512, is for none of these.
    jwk.alg.is_none_or(|alg| Algorithm::named(&alg) == Some(key.algorithm())).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, A.3.
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const P256_SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const P256_SIGNATURE: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// RFC 8037, A.2 and A.4.
    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED_SIGNED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const ED_SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    fn keys(keys: &[&str]) -> Result<Keys, String> {
        Keys::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    /// A key with more in it.
    fn with(key: &str, more: &str) -> String {
        format!("{{{more},{}", &key[1..])
    }

    #[test]
    fn the_signatures_of_the_standards_verify() {
        let keys = keys(&[P256, ED]).unwrap();
        for (algorithm, signed, signature) in
            [(Algorithm::Es256, P256_SIGNED, P256_SIGNATURE), (Algorithm::EdDsa, ED_SIGNED, ED_SIGNATURE)]
        {
            let [key] = keys.find(algorithm, None)[..] else { panic!("one key of each kind") };
            let mut signature = decode(signature).unwrap();
            assert!(key.signed(signed.as_bytes(), &signature), "{algorithm:?}");
            assert!(!key.signed(&signed.as_bytes()[1..], &signature));
            signature[7] ^= 1;
            assert!(!key.signed(signed.as_bytes(), &signature));
            assert!(!key.signed(signed.as_bytes(), b""));
        }
        assert!(keys.find(Algorithm::Rs256, None).is_empty());
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        for more in [
            r#""use":"enc""#,
            r#""key_ops":["encrypt"]"#,
            r#""alg":"ES384""#,
            r#""alg":"HS256""#,
            r#""kid":7"#,
        ] {
            assert!(keys(&[&with(P256, more)]).is_err(), "{more}");
        }
        for more in [r#""use":"sig""#, r#""key_ops":["verify"]"#, r#""alg":"ES256""#, r#""x5c":["a"]"#] {
            assert!(keys(&[&with(P256, more)]).is_ok(), "{more}");
        }
        for other in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            "{}",
            "7",
        ] {
            assert!(keys(&[other]).is_err(), "{other}");
            assert_eq!(keys(&[other, ED]).unwrap().0.len(), 1, "{other}");
        }
        for none in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(Keys::parse(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn a_name_is_a_name_and_nothing_else() {
        let (a, b) = (with(ED, r#""kid":"a""#), with(ED, r#""kid":"b""#));
        let keys = keys(&[&a, &b, P256]).unwrap();
        let count = |id| keys.find(Algorithm::EdDsa, id).len();
        assert_eq!((count(Some("a")), count(Some("b"))), (1, 1));
        for other in ["", "A", "a ", "../a", "a\0", "file:///dev/null", "' OR 1=1"] {
            assert_eq!(count(Some(other)), 0, "{other}");
        }
        assert_eq!(count(None), 0, "nobody says which of the two");
        assert!(keys.find(Algorithm::Es256, Some("a")).is_empty(), "a key is of one kind");
    }
}
