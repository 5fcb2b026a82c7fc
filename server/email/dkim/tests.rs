use proptest::prelude::*;
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::canonical::{body_hash, fields, relaxed_body, split};
use super::*;

/// RFC 8463, appendix A.
const MESSAGE: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
    \r\n\
    Hi.\r\n\
    \r\n\
    We lost the game.  Are you hungry yet?\r\n\
    \r\n\
    Joe.\r\n";
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const SECRET: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const SIGNATURE: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
const VALUE: &str =
    "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";

/// The key of the RFC as PKCS #8.
fn pem() -> String {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&head[..], &STANDARD.decode(SECRET).unwrap()].concat();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

fn relaxed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    relaxed_body(body, |piece| out.extend_from_slice(piece));
    out
}

/// The value of a tag in a signature, without its folding.
fn tag(header: &str, name: &str) -> String {
    let value = header.split_once(':').unwrap().1;
    let tags = value.split(';').map(|tag| tag.split_once('=').unwrap());
    let (_, value) = tags.into_iter().find(|(tag, _)| tag.trim() == name).unwrap();
    value.split_whitespace().collect()
}

/// What a signature with these headers covers, as a verifier puts it together.
fn covered(message: &str, names: &str, signature: &str) -> Vec<u8> {
    let mut left = fields(split(message.as_bytes()).0);
    let mut out = Vec::new();
    for name in names.split(':').map(str::trim) {
        if let Some(at) = left.iter().rposition(|field| field.is(name)) {
            left.remove(at).relaxed(&mut out);
        }
    }
    let (before, _) = signature.rsplit_once("b=").unwrap();
    fields(format!("{before}b=").as_bytes())[0].relaxed(&mut out);
    out.truncate(out.len() - 2);
    out
}

#[test]
fn the_example_of_the_rfc_verifies() {
    let (_, body) = split(MESSAGE.as_bytes());
    assert_eq!(STANDARD.encode(body_hash(body)), tag(SIGNATURE, "bh"));
    let names = tag(SIGNATURE, "h");
    let hash = digest::digest(&SHA256, &covered(MESSAGE, &names, SIGNATURE));
    let key = UnparsedPublicKey::new(&ED25519, STANDARD.decode(PUBLIC).unwrap());
    key.verify(hash.as_ref(), &STANDARD.decode(VALUE).unwrap()).unwrap();
}

#[test]
fn a_signature_names_every_header_once_more_than_there_are() {
    let signer = Signer::new("Football.example.com", "brisbane", &pem()).unwrap();
    let (name, record) = signer.dns_record();
    assert_eq!(name, "brisbane._domainkey.football.example.com");
    assert_eq!(record, format!("v=DKIM1; k=ed25519; p={PUBLIC}"));
    assert!(!signer.is_slow());
    let message = MESSAGE.replacen("From:", "X-Other: 1\r\nfrom : Second <s@example.com>\r\nFrom:", 1);
    let header = sign(&[signer], message.as_bytes(), Timestamp::from_parts(1_528_637_909, 0));
    assert!(header.ends_with("\r\n") && header.split("\r\n").all(|line| line.len() <= 78), "{header}");
    assert_eq!(tag(&header, "t"), "1528637909");
    let names = tag(&header, "h");
    assert!(names.starts_with("from:from:from:to:to:cc:subject:subject:"), "{names}");
    assert!(
        names.contains(":list-unsubscribe:list-unsubscribe-post:") && !names.contains("x-other"),
        "{names}"
    );
    let hash = digest::digest(&SHA256, &covered(&message, &names, header.trim_end()));
    let key = UnparsedPublicKey::new(&ED25519, STANDARD.decode(PUBLIC).unwrap());
    key.verify(hash.as_ref(), &STANDARD.decode(tag(&header, "b")).unwrap()).unwrap();
}

#[test]
fn several_keys_sign_the_same_body_and_rsa_too() {
    let rsa = include_str!("testdata/rsa2048.pem");
    let signers =
        [Signer::new("example.com", "one", &pem()).unwrap(), Signer::new("example.com", "two", rsa).unwrap()];
    assert!(signers[1].is_slow());
    let (_, record) = signers[1].dns_record();
    let info = STANDARD.decode(record.strip_prefix("v=DKIM1; k=rsa; p=").unwrap()).unwrap();
    // The envelope of a 2048-bit key has 24 bytes.
    assert_eq!(info.len(), 294);
    let headers = sign(&signers, MESSAGE.as_bytes(), Timestamp::from_micros(1));
    let (_, second) = headers.split_once("\r\nDKIM-Signature:").unwrap();
    let second = format!("DKIM-Signature:{second}");
    assert_eq!((tag(&second, "a"), tag(&second, "s")), ("rsa-sha256".into(), "two".into()));
    let signed = covered(MESSAGE, &tag(&second, "h"), second.trim_end());
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &info[24..]);
    key.verify(&signed, &STANDARD.decode(tag(&second, "b")).unwrap()).unwrap();
}

#[test]
fn keys_that_can_not_sign_are_refused() {
    let weak = include_str!("testdata/rsa1024.pem");
    let foreign = include_str!("testdata/p256.pem");
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----", weak, foreign] {
        assert!(Signer::new("example.com", "one", bad).is_err(), "{bad}");
    }
    assert!(Signer::new("example.com", "one", include_str!("testdata/rsa2048.pkcs1.pem")).is_ok());
    for (domain, selector) in [
        ("", "one"),
        ("exa mple.com", "one"),
        ("example.com", ""),
        ("example.com", "a b"),
        ("example.com", "a;b"),
        ("example.com", "a..b"),
    ] {
        assert!(Signer::new(domain, selector, &pem()).is_err(), "{domain} {selector}");
    }
}

#[test]
fn a_body_is_relaxed_as_the_rfc_says() {
    for (body, form) in [
        ("", ""),
        ("\r\n\r\n", ""),
        (" \t\r\n", ""),
        (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
        ("\r\na\r\n\r\nb", "\r\na\r\n\r\nb\r\n"),
    ] {
        assert_eq!(relaxed(body.as_bytes()), form.as_bytes(), "{body:?}");
    }
    let mut out = Vec::new();
    fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n").iter().for_each(|field| field.relaxed(&mut out));
    assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
}

proptest! {
    #[test]
    fn a_relaxed_form_is_its_own(body in "([a-z .\t]|\r\n){0,200}", value in "([a-z ;\t]|\r\n ){0,80}") {
        let form = relaxed(body.as_bytes());
        prop_assert_eq!(&relaxed(&form), &form);
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        fields(format!("Name:{value}\r\n").as_bytes())[0].relaxed(&mut once);
        fields(&once)[0].relaxed(&mut twice);
        prop_assert_eq!(once, twice);
    }
}
