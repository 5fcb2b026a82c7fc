//! Verifies a webhook as its receiver would, with nothing of the server's own code.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How far a request's time may be from the receiver's, in seconds, as the Standard Webhooks libraries have it.
const TOLERANCE: i64 = 5 * 60;

/// Checks both signatures of a request that arrived at `now`, in seconds since 1970.
///
/// # Errors
/// What is wrong with the request, in words.
pub fn verify(headers: &HeaderMap, body: &[u8], secret: &str, now: i64) -> Result<(), String> {
    if !is_plain_good(body, header(headers, "x-webhook-signature")?, secret) {
        return Err("X-Webhook-Signature does not fit the body".to_owned());
    }
    let id = header(headers, "webhook-id")?;
    let timestamp = header(headers, "webhook-timestamp")?;
    let sent: i64 = timestamp.parse().map_err(|_| "webhook-timestamp is not a number".to_owned())?;
    if now.abs_diff(sent) > TOLERANCE.unsigned_abs() {
        return Err("webhook-timestamp is more than five minutes away".to_owned());
    }
    if !is_standard_good(body, id, timestamp, header(headers, "webhook-signature")?, secret) {
        return Err("webhook-signature does not fit id, time and body".to_owned());
    }
    Ok(())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("the header {name} is missing"))?;
    value.to_str().map_err(|_| format!("the header {name} is not text"))
}

/// What the administrator's guide does in Python: `hmac.compare_digest(f"sha256={expected}", signature)`, where the key
/// is the secret as it is written.
pub fn is_plain_good(body: &[u8], signature: &str, secret: &str) -> bool {
    use std::fmt::Write;
    let mut expected = "sha256=".to_owned();
    for byte in authentication_code(secret.as_bytes(), &[body]) {
        write!(expected, "{byte:02x}").expect("writing to memory");
    }
    expected.as_bytes().ct_eq(signature.as_bytes()).into()
}

/// Standard Webhooks: a list of signatures, one of which must be that of `id.timestamp.body`; the key is what the part
/// of the secret after `whsec_` encodes.
pub fn is_standard_good(body: &[u8], id: &str, timestamp: &str, signatures: &str, secret: &str) -> bool {
    let Some(Ok(key)) = secret.strip_prefix("whsec_").map(|key| BASE64_STANDARD.decode(key)) else {
        return false;
    };
    let code = authentication_code(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    let expected = format!("v1,{}", BASE64_STANDARD.encode(code));
    signatures.split(' ').any(|signature| expected.as_bytes().ct_eq(signature.as_bytes()).into())
}

fn authentication_code(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with Python's hmac module, by the function of the administrator's guide and by hand for the standard one.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const PLAIN: &str = "sha256=80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c";
    const STANDARD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const NOW: i64 = 1_614_265_330;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-webhook-signature", PLAIN.parse().unwrap());
        headers.insert("webhook-id", ID.parse().unwrap());
        headers.insert("webhook-timestamp", NOW.into());
        headers.insert("webhook-signature", STANDARD.parse().unwrap());
        headers
    }

    #[test]
    fn takes_what_python_signed() {
        assert_eq!(verify(&headers(), BODY, SECRET, NOW), Ok(()));
        assert_eq!(verify(&headers(), BODY, SECRET, NOW + 300), Ok(()));
    }

    #[test]
    fn one_good_signature_among_several_is_enough() {
        assert!(is_standard_good(BODY, ID, "1614265330", &format!("v1,AAAA {STANDARD}"), SECRET));
    }

    #[test]
    fn refuses_a_changed_body_another_secret_an_old_request_and_missing_headers() {
        assert!(verify(&headers(), b"{}", SECRET, NOW).is_err());
        assert!(verify(&headers(), BODY, "whsec_AAAA", NOW).is_err());
        assert!(verify(&headers(), BODY, SECRET, NOW + 301).is_err());
        for name in ["x-webhook-signature", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut headers = headers();
            headers.remove(name);
            let fault = verify(&headers, BODY, SECRET, NOW).unwrap_err();
            assert!(fault.contains(name), "{fault}");
            headers.insert(name, "1".parse().unwrap());
            assert!(verify(&headers, BODY, SECRET, NOW).is_err(), "{name}");
        }
    }
}
