//! Every range of the registries, and how names are resolved.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use proptest::prelude::*;
use tower::Service;

use super::*;

/// A range, and whether what comes right before and after it is public.
type Row = (&'static str, bool, bool);

/// IANA's IPv4 special-purpose address registry, all of it (as of 2025-10-09), and multicast.
const IPV4: &[Row] = &[
    ("0.0.0.0/8", false, true),
    ("0.0.0.0/32", false, false),
    ("10.0.0.0/8", true, true),
    ("100.64.0.0/10", true, true),
    ("127.0.0.0/8", true, true),
    ("169.254.0.0/16", true, true),
    ("172.16.0.0/12", true, true),
    ("192.0.0.0/24", true, true),
    ("192.0.0.0/29", true, false),
    ("192.0.0.8/32", false, false),
    ("192.0.0.9/32", false, false),
    ("192.0.0.10/32", false, false),
    ("192.0.0.170/32", false, false),
    ("192.0.0.171/32", false, false),
    ("192.0.2.0/24", true, true),
    ("192.31.196.0/24", true, true),
    ("192.52.193.0/24", true, true),
    ("192.88.99.0/24", true, true),
    ("192.88.99.2/32", false, false),
    ("192.168.0.0/16", true, true),
    ("192.175.48.0/24", true, true),
    ("198.18.0.0/15", true, true),
    ("198.51.100.0/24", true, true),
    ("203.0.113.0/24", true, true),
    ("224.0.0.0/4", true, false),
    ("240.0.0.0/4", false, false),
    ("255.255.255.255/32", false, false),
];

/// IANA's IPv6 special-purpose address registry, all of it (as of 2025-10-09) but `::ffff:0:0/96`, whose addresses are
/// judged as the IPv4 ones inside, and site-local, multicast and what is not unicast.
const IPV6: &[Row] = &[
    ("::/128", false, false),
    ("::1/128", false, false),
    ("::/96", false, false),
    ("::ffff:0:0:0/96", false, false),
    ("64:ff9b::/96", false, false),
    ("64:ff9b:1::/48", false, false),
    ("100::/64", false, false),
    ("100:0:0:1::/64", false, false),
    ("::/3", false, true),
    ("2001::/23", true, true),
    ("2001::/32", true, false),
    ("2001:1::1/128", false, false),
    ("2001:1::2/128", false, false),
    ("2001:1::3/128", false, false),
    ("2001:2::/48", false, false),
    ("2001:3::/32", false, false),
    ("2001:4:112::/48", false, false),
    ("2001:10::/28", false, false),
    ("2001:20::/28", false, false),
    ("2001:30::/28", false, false),
    ("2001:db8::/32", true, true),
    ("2002::/16", true, true),
    ("2620:4f:8000::/48", true, true),
    ("3fff::/20", true, true),
    ("4000::/2", true, false),
    ("5f00::/16", false, false),
    ("8000::/1", false, false),
    ("fc00::/7", false, false),
    ("fe80::/10", false, false),
    ("fec0::/10", false, false),
    ("ff00::/8", false, false),
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn guard(networks: &[&str], hosts: &[&str]) -> Guard {
    let networks = networks.iter().map(|range| range.parse().unwrap()).collect();
    let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
    Guard::new(networks).with_hosts(&hosts).unwrap()
}

/// The address so many steps away; `None` beyond the ends.
fn step(address: IpAddr, by: i8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add_signed(by.into())?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add_signed(by.into())?).into(),
    })
}

#[test]
fn every_reserved_range_is_refused_from_its_first_to_its_last_address() {
    let guard = Guard::default();
    for &(range, before_is_public, after_is_public) in IPV4.iter().chain(IPV6) {
        let network: IpNet = range.parse().unwrap();
        let (first, last) = (network.network(), network.broadcast());
        assert!(!guard.permits(first), "{range}: {first}");
        assert!(!guard.permits(last), "{range}: {last}");
        let before = step(first, -1).is_some_and(|before| guard.permits(before));
        let after = step(last, 1).is_some_and(|after| guard.permits(after));
        assert_eq!((before, after), (before_is_public, after_is_public), "the neighbours of {range}");
    }
}

#[test]
fn the_public_internet_is_permitted() {
    let guard = Guard::default();
    for public in
        ["1.1.1.1", "93.184.216.34", "223.255.255.255", "2606:4700::1111", "2a00::1", "2001:4860::8888"]
    {
        assert!(guard.permits(address(public)), "{public}");
    }
}

#[test]
fn well_known_targets_are_refused_in_every_form() {
    let guard = Guard::default();
    for refused in [
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        // Teredo with 127.0.0.1 for the client.
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fe80::5efe:127.0.0.1",
        "fd00:ec2::254",
        "fd20:ce::254",
    ] {
        assert!(!guard.permits(address(refused)), "{refused}");
    }
    assert!(guard.permits(address("::ffff:1.1.1.1")), "a public address in another form");
}

#[test]
fn a_range_can_be_allowed_without_allowing_its_neighbours() {
    let guard = guard(&["127.0.0.0/8", "10.1.0.0/16"], &[]);
    let permits = |text| guard.permits(address(text));
    assert!(permits("127.0.0.1") && permits("10.1.2.3") && permits("::ffff:10.1.2.3"));
    assert!(!permits("10.2.0.1") && !permits("169.254.169.254") && !permits("::1"));
}

#[test]
fn an_allowed_translator_does_not_open_what_lies_behind_it() {
    let translators = ["::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "2002::/16", "2001::/32"];
    let guard = guard(&translators, &[]);
    let permits = |text| guard.permits(address(text));
    for public in ["::1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1", "2001:0:1:2:3:4:fefe:fefe"] {
        assert!(permits(public), "{public}");
    }
    for refused in [
        "::7f00:1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "2001:0:1:2:3:4:80ff:fffe",
    ] {
        assert!(!permits(refused), "{refused}");
    }
    let both = Guard::new(vec!["64:ff9b::/96".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
    assert!(both.permits(address("64:ff9b::10.0.0.1")));
}

#[test]
fn an_allowed_name_may_be_on_a_private_network_and_nowhere_worse() {
    let guard = guard(&[], &["hooks.internal", "*.corp.example"]);
    let privates = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "::ffff:10.0.0.1",
        "::1",
        "fd12::1",
    ];
    for private in privates {
        assert!(guard.permits_name("hooks.internal", address(private)), "{private}");
        assert!(guard.permits_name("a.corp.example", address(private)), "{private}");
        for other in ["corp.example", "hooks.internal.evil.example", "evil.example", ""] {
            assert!(!guard.permits_name(other, address(private)), "{other} and {private}");
        }
        assert!(!guard.permits(address(private)), "{private}");
    }
    for refused in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "64:ff9b::10.0.0.1",
        "2002:a00:1::",
    ] {
        assert!(!guard.permits_name("hooks.internal", address(refused)), "{refused}");
    }
}

#[test]
fn all_hosts_that_are_no_names_are_told() {
    let hosts = ["good.example".to_owned(), "10.0.0.1".into(), "*".into()];
    let error = Guard::default().with_hosts(&hosts).unwrap_err();
    let fields: Vec<_> = error.violations().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["allow_host", "allow_host"]);
}

#[test]
fn ports_of_other_protocols_are_refused_unless_the_host_is_allowed() {
    let guard = guard(&["10.0.0.0/8"], &["hooks.internal"]);
    for port in [0, 1, 22, 25, 53, 110, 143, 465, 587, 993, 2049, 6000, 6667, 10_080] {
        for host in ["example.com", "1.1.1.1", "[2606:4700::1111]"] {
            assert_eq!(guard.check(host, port), Err(Refused::Port(port)), "{host}:{port}");
        }
        for host in ["hooks.internal", "HOOKS.internal.", "10.0.0.1", "[::ffff:10.0.0.1]"] {
            assert_eq!(guard.check(host, port), Ok(()), "{host}:{port}");
        }
        let elsewhere = address("192.168.0.1");
        assert_eq!(guard.check("192.168.0.1", port), Err(Refused::Address(elsewhere)));
    }
    for port in [80, 443, 81, 591, 1024, 3000, 8000, 8080, 8443, 9000, 65_535] {
        assert_eq!(guard.check("example.com", port), Ok(()), "{port}");
    }
    assert_eq!(guard.check_uri(&Uri::from_static("https://example.com/")), Ok(()));
    assert_eq!(guard.check_uri(&Uri::from_static("http://example.com:25/")), Err(Refused::Port(25)));
    let loopback = Refused::Address(address("::1"));
    assert_eq!(guard.check_uri(&Uri::from_static("http://[::1]/")), Err(loopback));
}

/// Answers each name with one list of addresses after the other; the last one repeats.
#[derive(Default)]
struct Scripted(Mutex<HashMap<String, Vec<Vec<&'static str>>>>);

impl Scripted {
    fn new(name: &str, answers: Vec<Vec<&'static str>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(HashMap::from([(name.to_owned(), answers)]))))
    }
}

impl Lookup for Scripted {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let mut names = self.0.lock().unwrap();
        let answers = names.get_mut(&name).expect("a name of the script");
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let found = answer.into_iter().map(|text| SocketAddr::new(address(text), 0)).collect();
        async move { Ok(found) }.boxed()
    }
}

async fn resolve(resolver: &mut GuardedResolver, name: &str) -> Result<Vec<IpAddr>, String> {
    let name: Name = name.parse().unwrap();
    let found = resolver.call(name).await.map_err(|error| error.to_string())?;
    Ok(found.map(|found| found.ip()).collect())
}

#[tokio::test]
async fn a_name_that_changes_its_answer_gains_nothing() {
    let answers = vec![
        vec!["93.184.216.34"],
        vec!["169.254.169.254"],
        vec!["127.0.0.1", "93.184.216.34", "::1"],
        vec![],
    ];
    let lookup = Scripted::new("rebind.example", answers);
    let guard = Guard::default();
    // What is saved is a name, about which nothing is known yet.
    assert_eq!(guard.check("rebind.example", 80), Ok(()));
    let mut resolver = GuardedResolver::new(guard, lookup);
    assert_eq!(resolve(&mut resolver, "rebind.example").await, Ok(vec![address("93.184.216.34")]));
    let refused = Refused::Address(address("169.254.169.254")).to_string();
    assert_eq!(resolve(&mut resolver, "rebind.example").await, Err(refused));
    // Of a mixed answer, only what is permitted is ever tried.
    assert_eq!(resolve(&mut resolver, "rebind.example").await, Ok(vec![address("93.184.216.34")]));
    let error = resolve(&mut resolver, "rebind.example").await.unwrap_err();
    assert!(error.contains("does not resolve"), "{error}");
}

#[tokio::test]
async fn the_systems_answers_are_checked_too() {
    let system = || Arc::new(SystemLookup::default());
    let refused = resolve(&mut GuardedResolver::new(Guard::default(), system()), "localhost").await;
    assert!(refused.unwrap_err().contains("not allowed"));
    for allowed in [guard(&["127.0.0.0/8", "::1/128"], &[]), guard(&[], &["localhost"])] {
        let found = resolve(&mut GuardedResolver::new(allowed, system()), "localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }
}

proptest! {
    #[test]
    fn the_form_of_an_ipv4_address_changes_nothing(bits: u32) {
        let (guard, inner) = (Guard::default(), Ipv4Addr::from(bits));
        prop_assert_eq!(guard.permits(inner.into()), guard.permits(inner.to_ipv6_mapped().into()));
    }

    #[test]
    fn only_global_unicast_is_ever_permitted(bits: u128) {
        let address = Ipv6Addr::from(bits);
        if Guard::default().permits(address.into()) && address.to_ipv4_mapped().is_none() {
            prop_assert_eq!(address.segments()[0] >> 13, 1);
        }
    }
}
