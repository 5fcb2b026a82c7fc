//! Where requests go, what they are signed with, and when they are made again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use url::{Host, Url};

use super::guard::Guard;
use super::model::{check_url, normal_url};
use super::policy::parse_schedule;
use super::secret::{Key, Signing, choose, generate};
use super::signature::Signer;
use crate::cli::demo::signature::{is_plain_good, is_standard_good};
use crate::clock::Timestamp;
use crate::fuzz::{SameRandom, texts};
use crate::secret::SecretText;

/// Addresses that nobody outside may be led to, told without the tables that are tested.
pub(super) fn is_inside(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| {
        let [a, b, c, _] = address.octets();
        a == 0
            || a == 10
            || a == 127
            || a >= 224
            || (a == 100 && (64..128).contains(&b))
            || (a == 169 && b == 254)
            || (a == 172 && (16..32).contains(&b))
            || (a == 192 && b == 168)
            || (a == 192 && b == 0 && (c == 0 || c == 2))
            || (a == 198 && (b == 18 || b == 19 || (b == 51 && c == 100)))
            || (a == 203 && b == 0 && c == 113)
    };
    match address.to_canonical() {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            let inner = |high: u16, low: u16| v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
            let carries_inside = match address.segments() {
                [0, 0, 0, 0, 0, 0, y, z] | [0, 0, 0, 0, 0xffff, 0, y, z] => inner(y, z),
                [0x64, 0xff9b, 0, 0, 0, 0, y, z] => inner(y, z),
                [0x2002, y, z, ..] => inner(y, z),
                [0x2001, 0, .., y, z] => inner(!y, !z),
                _ => false,
            };
            let [first, second, ..] = address.segments();
            address.is_loopback()
                || address.is_unspecified()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || first & 0xff00 == 0xff00
                || (first == 0x2001 && second == 0xdb8)
                || carries_inside
        }
    }
}

/// A URL of an endpoint and an address: what is let through leads outside, however it is written.
pub fn url_guard(data: &[u8]) {
    let Some([text, address]) = texts(data) else { return };
    let guard = Guard::default();
    if let Ok(address) = address.parse::<IpAddr>() {
        assert!(!(guard.permits(address) && is_inside(address)), "{address} is let through");
        if let IpAddr::V4(v4) = address {
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            assert_eq!(guard.permits(mapped), guard.permits(address), "{address} and {mapped}");
        }
        let open = Guard::new(vec![address.into()]);
        assert!(open.permits(address) || is_inside(address), "what is allowed is let through: {address}");
    }
    let Ok(url) = check_url(text, &guard, false) else { return };
    assert_eq!(check_url(text, &guard, true).is_ok(), url.scheme() == "https");
    assert!(
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    );
    let address = match url.host().expect("it has a host") {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(name) => name.trim_matches(['[', ']', '.']).parse::<IpAddr>().ok(),
    };
    assert!(!address.is_some_and(is_inside), "{text:?} leads to {address:?}");
    let port = url.port_or_known_default().expect("it has a port");
    assert!(
        ![0, 22, 25, 53, 110, 143, 389, 465, 587, 993, 6667].contains(&port),
        "{text:?} leads to port {port}"
    );

    // What is kept is written in one form, is let through again, and means the same to whoever connects.
    let kept = normal_url(text);
    assert_eq!(normal_url(&kept), kept);
    let again = check_url(&kept, &guard, false);
    assert_eq!(again.as_ref(), Ok(&url), "{kept:?}");
    let uri: Uri =
        kept.parse().unwrap_or_else(|error| panic!("{kept:?} is kept and no request can be made: {error}"));
    assert_eq!(uri.host(), url.host_str(), "{kept:?} means different hosts");
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    assert_eq!(uri.port_u16().unwrap_or(default), port, "{kept:?} means different ports");
    // And to the system, which reads addresses in more forms than there are in URLs.
    let bare = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let read = bare.parse::<Ipv4Addr>().map(IpAddr::V4).or_else(|_| bare.parse::<Ipv6Addr>().map(IpAddr::V6));
    assert!(!read.is_ok_and(is_inside), "{kept:?}");
    let with_port = format!("{}:{port}", uri.host().unwrap_or_default()).parse::<SocketAddr>();
    assert!(!with_port.is_ok_and(|address| is_inside(address.ip())), "{kept:?}");
    assert!(Url::parse(&kept).is_ok_and(|url| url.fragment().is_none()));
}

/// A secret of the caller's own.
pub fn webhook_secret(data: &[u8]) {
    let Some([text]) = texts(data) else { return };
    let secret = SecretText::new(text);
    let key = match Key::read(&secret) {
        Ok(key) => key,
        Err(wrong) => {
            // What is wrong with a secret is told without the secret.
            assert!(text.len() < 8 || !wrong.contains(text), "{wrong}");
            return;
        }
    };
    let (prefix, encoded) = text.split_once('_').expect("a secret has a prefix");
    let bytes = STANDARD.decode(encoded).expect("a secret is base64");
    assert_eq!(STANDARD.encode(&bytes), encoded, "a secret has one form");
    match key.signing() {
        Signing::Hmac => assert!(prefix == "whsec" && (24..=64).contains(&bytes.len())),
        Signing::Ed25519 => assert!(prefix == "whsk" && matches!(bytes.len(), 32 | 64)),
    }
    assert_eq!(key.public_bytes().is_some(), key.signing() == Signing::Ed25519);
    assert!(!key.public_text().contains(encoded), "the public key is not the secret");
    for signing in [Signing::Hmac, Signing::Ed25519] {
        let chosen = choose(secret.clone(), signing, &SameRandom(1));
        assert_eq!(chosen.is_ok(), signing == key.signing());
    }
}

/// A body and the headers that somebody sends with it: only what the server signed is good.
pub fn webhook_signature(data: &[u8]) {
    let Some([plain, standard, id, body]) = texts(data) else { return };
    let (secret, now) = (generate(Signing::Hmac, &SameRandom(3)), Timestamp::from_parts(1_700_000_000, 0));
    let key = |secret: &SecretText| Key::read(secret).expect("it was made here");
    let signer = Signer::new(key(&secret), Vec::new());
    let (time, text) = (now.seconds().to_string(), secret.reveal());
    let own = [
        signer.plain(body.as_bytes(), now).expect("the key is shared"),
        signer.standard(id, body.as_bytes(), now),
    ];
    assert!(is_plain_good(body.as_bytes(), &own[0], text));
    assert!(is_standard_good(body.as_bytes(), id, &time, &own[1], text));
    assert_eq!(is_plain_good(body.as_bytes(), plain, text), plain == own[0], "{plain:?}");
    let among = standard.split(' ').any(|one| one == own[1]);
    assert_eq!(is_standard_good(body.as_bytes(), id, &time, standard, text), among, "{standard:?}");
    // Of two secrets that sign, each receiver finds its own.
    let former = generate(Signing::Hmac, &SameRandom(4));
    let both = Signer::new(key(&secret), vec![(key(&former), Timestamp::from_parts(1_700_000_001, 0))]);
    let both = both.standard(id, body.as_bytes(), now);
    for secret in [&secret, &former] {
        assert!(is_standard_good(body.as_bytes(), id, &time, &both, secret.reveal()));
    }
    assert!(both.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
}

/// The setting that says when a request is made again.
pub fn retry_schedule(data: &[u8]) {
    let Some([text]) = texts(data) else { return };
    let Ok(schedule) = parse_schedule(text) else { return };
    assert!(schedule.len() <= 20);
    assert!(
        schedule
            .iter()
            .all(|wait| (1..=7 * 24 * 3_600).contains(&wait.as_secs()) && wait.subsec_nanos() == 0)
    );
    let written: Vec<String> = schedule.iter().map(|wait| format!("{}s", wait.as_secs())).collect();
    assert_eq!(parse_schedule(&written.join(",")), Ok(schedule));
}
