//! What the settings say about mail, without asking anybody else.

use std::net::IpAddr;

use super::finding::Finding;
use super::sheet::Sheet;

/// Everything that the settings tell.
pub(super) fn findings(sheet: &Sheet) -> Vec<Finding> {
    let mut findings = vec![sending(sheet)];
    findings.extend(sheet.providers().into_iter().filter_map(|prefix| protection(sheet, prefix)));
    findings.push(sender(sheet));
    findings.extend(dkim(sheet));
    findings.push(site(sheet));
    findings.push(unsubscribing(sheet));
    findings.push(limit(sheet));
    findings
}

fn sending(sheet: &Sheet) -> Finding {
    let providers = sheet.providers().len();
    if providers == 0 {
        return Finding::warning("sending", "no SMTP server is set: mails are captured, and nothing leaves")
            .with("to send, set email.smtp_host (SMTP_HOST) or email.smtp_preset, and the login");
    }
    if sheet.is_on("email.capture") {
        return Finding::warning("sending", "email.capture is on: mails are captured, and nothing leaves")
            .with("to send, turn it off");
    }
    let servers = if providers == 1 { "1 SMTP server".into() } else { format!("{providers} SMTP servers") };
    Finding::good("sending", format!("mails go out by {servers}"))
}

/// A connection that anybody on the way can read.
fn protection(sheet: &Sheet, prefix: &str) -> Option<Finding> {
    let host = sheet.text(&format!("{prefix}_host"));
    let bare = sheet.text(&format!("{prefix}_tls")) == "none" && !is_loopback(host);
    bare.then(|| {
        let login =
            if sheet.text(&format!("{prefix}_user")).is_empty() { "mails" } else { "the login and mails" };
        Finding::warning("protection", format!("{prefix}_tls is none: {login} travel to {host} in the clear"))
            .with("set it to starttls (port 587) or implicit (port 465)")
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// Whether a domain is one of those that nobody has (RFC 2606).
fn is_example(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    let last = domain.rsplit('.').next().unwrap_or_default();
    ["test", "example", "invalid", "localhost"].contains(&last)
        || ["example.com", "example.net", "example.org"]
            .iter()
            .any(|name| domain.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

fn sender(sheet: &Sheet) -> Finding {
    let address = sheet.text("email.from_address");
    if sheet.is_default("email.from_address") || is_example(domain(address)) {
        let what = format!("mails are from {address}, which is only an example");
        return Finding::warning("sender", what)
            .with("set email.from_address (FROM_EMAIL) to an address of your own domain");
    }
    let user = sheet.text("email.smtp_user");
    if user.contains('@') && !domain(user).eq_ignore_ascii_case(domain(address)) {
        return Finding::warning("sender", format!("mails are from {address}, and the login is {user}"))
            .with(
                "many servers take only the login's own addresses, and SPF must allow them for this domain",
            );
    }
    Finding::good("sender", format!("mails are from {} <{address}>", sheet.text("email.from_name")))
}

fn dkim(sheet: &Sheet) -> Vec<Finding> {
    let from = domain(sheet.text("email.from_address"));
    let set = sheet.text("email.dkim_domain");
    let signer = if set.is_empty() { from } else { set };
    let keys = [
        ("email.dkim_private_key", "email.dkim_selector"),
        ("email.dkim_second_private_key", "email.dkim_second_selector"),
    ];
    let mut findings: Vec<_> = keys
        .iter()
        .filter(|(key, _)| sheet.has_secret(key))
        .map(|(key, selector)| {
            let name = format!("{}._domainkey.{signer}", sheet.text(selector));
            Finding::good("dkim", format!("mails are signed for {signer} ({key})"))
                .with(format!("the public key must be in the DNS as the TXT record {name}"))
        })
        .collect();
    if findings.is_empty() {
        let missing = Finding::warning(
            "dkim",
            "mails are not signed: large providers refuse such mail, or call it spam",
        )
        .with("make a key with `openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048`, set it as")
        .with(format!("email.dkim_private_key, and publish its public half at <selector>._domainkey.{from}"));
        findings.push(missing);
    } else if !is_aligned(signer, from) {
        let what =
            format!("mails are from {from} and signed for {signer}: DMARC does not count such a signature");
        findings.push(
            Finding::warning("dkim", what).with("set email.dkim_domain to the sender's domain, or empty"),
        );
    }
    findings
}

/// Whether one domain is the other or above it, as DMARC wants it (RFC 7489, section 3.1.1).
fn is_aligned(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    one == other || one.ends_with(&format!(".{other}")) || other.ends_with(&format!(".{one}"))
}

fn site(sheet: &Sheet) -> Finding {
    let url = sheet.text("general.site_url");
    if sheet.is_default("general.site_url") {
        return Finding::warning("site", format!("mails link to {url}, which no recipient reaches"))
            .with("set general.site_url (SITE_URL)");
    }
    Finding::good("site", format!("mails link to {url}"))
}

fn unsubscribing(sheet: &Sheet) -> Finding {
    let url = sheet.text("email.public_url");
    if url.is_empty() {
        return Finding::warning(
            "unsubscribe",
            "recipients can not reach this server: no mail can be unsubscribed from",
        )
        .with("set email.public_url (EMAIL_PUBLIC_URL); mail to many needs it, and tracking does");
    }
    if !url.starts_with("https://") {
        return Finding::warning(
            "unsubscribe",
            format!("the links to unsubscribe lead to {url}, without TLS"),
        )
        .with("one-click unsubscribe (RFC 8058) needs https: put a proxy with TLS in front");
    }
    Finding::good("unsubscribe", format!("the links to unsubscribe lead to {url}"))
}

fn limit(sheet: &Sheet) -> Finding {
    match sheet.number("email.hourly_limit") {
        0.0 => Finding::good("limit", "no limit to the mails of an hour"),
        limit => {
            Finding::good("limit", format!("{limit} mails an hour go out at most; mail beyond it waits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_domains_are_known_and_others_are_not() {
        for domain in ["example.com", "mail.example.org", "a.test", "localhost", "EXAMPLE.net"] {
            assert!(is_example(domain), "{domain}");
        }
        for domain in ["myexample.com", "pumps.io", "test.io"] {
            assert!(!is_example(domain), "{domain}");
        }
    }

    #[test]
    fn loopback_and_alignment_are_told() {
        assert!(is_loopback("localhost") && is_loopback("127.0.0.5") && is_loopback("::1"));
        assert!(!is_loopback("mail.pumps.io") && !is_loopback("10.0.0.1"));
        assert!(is_aligned("pumps.io", "mail.pumps.io") && is_aligned("a.pumps.io", "pumps.io"));
        assert!(!is_aligned("pumps.io", "mypumps.io"));
    }
}
