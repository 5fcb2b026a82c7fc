//! What may be kept, and what becomes of the key.

use super::*;
use crate::error::Violation;
use crate::webhook::policy::Options;

pub(in crate::webhook) const AUTHORITY: &str = include_str!("testdata/authority.pem");
pub(in crate::webhook) const CERTIFICATE: &str = include_str!("testdata/client.pem");
pub(in crate::webhook) const KEY: &str = include_str!("testdata/client.key");
const RSA: &str = include_str!("testdata/rsa.pem");
const RSA_KEY: &str = include_str!("testdata/rsa.key");
const ED25519: &str = include_str!("testdata/ed25519.pem");

fn webhook(url: &str, ca_certificates: &str, client_certificate: &str) -> Webhook {
    let options = Options {
        ca_certificates: ca_certificates.into(),
        client_certificate: client_certificate.into(),
        ..Options::default()
    };
    Webhook {
        id: "wh_1".into(),
        name: "one".into(),
        url: url.into(),
        event_types: vec!["*".into()],
        active: true,
        options,
        version: 1,
        ..Webhook::default()
    }
}

/// What becomes of the key, or the fields that are wrong with what is wrong.
fn checked(webhook: &Webhook, former: &str, key: Option<&str>) -> Result<KeyChange, Vec<(String, String)>> {
    let mut violations = Violations::default();
    let change = check(webhook, former, key.map(SecretText::new), &mut violations);
    let of = |Violation { field, description }: &Violation| {
        (field.trim_start_matches("webhook.").to_owned(), description.clone())
    };
    violations.finish().map_err(|error| error.violations().iter().map(of).collect::<Vec<_>>())?;
    Ok(change)
}

fn refused(webhook: &Webhook, former: &str, key: Option<&str>) -> Vec<(String, String)> {
    checked(webhook, former, key).expect_err("it is refused")
}

const URL: &str = "https://example.com/";

#[test]
fn a_key_comes_and_goes_with_its_certificate() {
    let with = webhook(URL, "", CERTIFICATE);
    let without = webhook(URL, "", "");
    let set = Ok(KeyChange::Set(SecretText::new(KEY)));
    assert_eq!(checked(&with, "", Some(KEY)), set);
    assert_eq!(checked(&with, CERTIFICATE, Some(KEY)), set, "the same certificate, the key anew");
    assert_eq!(checked(&with, RSA, Some(KEY)), set, "another certificate");
    for key in [None, Some("")] {
        assert_eq!(checked(&with, CERTIFICATE, key), Ok(KeyChange::Keep), "the key is never shown");
        assert_eq!(checked(&without, CERTIFICATE, key), Ok(KeyChange::Remove));
        assert_eq!(checked(&without, "", key), Ok(KeyChange::Keep), "there is none");
        for former in ["", RSA] {
            let missing = refused(&with, former, key);
            assert_eq!(missing[0].0, "client_key");
            assert!(missing[0].1.contains("is required"), "{missing:?}");
        }
    }
    assert_eq!(refused(&without, CERTIFICATE, Some(KEY))[0].0, "client_key");
}

#[test]
fn every_form_of_key_is_taken_that_fits_its_certificate() {
    let pairs = [
        (CERTIFICATE, KEY),
        (CERTIFICATE, include_str!("testdata/client.sec1.key")),
        (RSA, RSA_KEY),
        (RSA, include_str!("testdata/rsa.pkcs1.key")),
        (ED25519, include_str!("testdata/ed25519.key")),
    ];
    for (certificate, key) in pairs {
        let checked = checked(&webhook(URL, "", certificate), "", Some(key));
        assert_eq!(checked, Ok(KeyChange::Set(SecretText::new(key))));
        let other = if certificate == RSA { CERTIFICATE } else { RSA };
        let wrong = refused(&webhook(URL, "", other), "", Some(key));
        assert_eq!(wrong, [("client_key".into(), "does not belong to the client_certificate".into())]);
    }
    // A chain has the certificate itself first.
    let chain = format!("{CERTIFICATE}{AUTHORITY}");
    assert!(checked(&webhook(URL, "", &chain), "", Some(KEY)).is_ok());
    let reversed = format!("{AUTHORITY}{CERTIFICATE}");
    assert_eq!(refused(&webhook(URL, "", &reversed), "", Some(KEY))[0].0, "client_key");
}

#[test]
fn what_can_not_be_used_is_told_by_its_field() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let many = AUTHORITY.repeat(21);
    let long = format!("{AUTHORITY}{}", " ".repeat(32 * 1024));
    let with_key = format!("{AUTHORITY}{KEY}");
    for (bad, why) in [
        ("nonsense", "certificates as PEM"),
        (" ", "certificates as PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "has no end"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not base64"),
        (broken, "number 1 can not be"),
        (&format!("{AUTHORITY}{broken}"), "number 2 can not be"),
        (&many, "at most 20"),
        (&long, "at most 32 KiB"),
        (&with_key, "without a private key"),
        (KEY, "without a private key"),
    ] {
        let wrong = refused(&webhook(URL, bad, ""), "", None);
        assert_eq!(wrong[0].0, "ca_certificates");
        assert!(wrong[0].1.contains(why), "{why}: {wrong:?}");
        let wrong = refused(&webhook(URL, "", bad), "", Some(KEY));
        assert_eq!(wrong[0].0, "client_certificate");
        assert!(wrong[0].1.contains(why), "{why}: {wrong:?}");
    }
    for (bad, why) in [
        ("nonsense", "private key as PEM"),
        (CERTIFICATE, "private key as PEM"),
        (include_str!("testdata/encrypted.key"), "must not be encrypted"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "RSA of 2048 bits"),
        (&format!("{KEY}{}", " ".repeat(32 * 1024)), "at most 32 KiB"),
    ] {
        let wrong = refused(&webhook(URL, "", CERTIFICATE), "", Some(bad));
        assert_eq!(wrong[0].0, "client_key");
        assert!(wrong[0].1.contains(why), "{why}: {wrong:?}");
    }
    // What can not be read is not repeated: it may be a key.
    let cut = KEY.replace("-----END", "");
    let wrong = refused(&webhook(URL, "", CERTIFICATE), "", Some(&cut));
    assert!(KEY.lines().all(|line| !wrong[0].1.contains(line)), "{wrong:?}");
}

#[test]
fn only_tls_has_certificates() {
    let plain = webhook("http://example.com/", AUTHORITY, CERTIFICATE);
    let wrong = refused(&plain, "", Some(KEY));
    let https = |field: &str| (field.to_owned(), "needs an https URL".to_owned());
    assert_eq!(wrong, [https("ca_certificates"), https("client_certificate")]);
}
