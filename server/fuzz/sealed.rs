//! Sealed secrets.

use super::random;
use crate::secret::{KEY_LENGTH, Place, Ring, RingKey, Sealer, named_by};
use std::sync::Arc;

const HERE: Place<'_> = Place { table: "webhooks", column: "secret", row: "wh_1" };

fn sealer() -> Sealer {
    let key = |of: u8| RingKey::new([of; 8], &[of; KEY_LENGTH]);
    let ring = Ring { revision: 1, active: key(2), retired: vec![key(1)], dropped: vec![key(3)] };
    Sealer::with_ring(ring, Arc::new([0; KEY_LENGTH]), random())
}

/// A sealed value that nobody sealed does not open; what was sealed opens, there and unchanged only.
pub fn sealed_secret(data: &[u8]) {
    let sealer = sealer();
    if let Ok(plain) = sealer.open(HERE, data) {
        // Who has no key can only bring back what there was: with these bytes for its nonce, or as it was kept before keys
        // had names.
        let same = sealer.seal(HERE, &plain).expect("it seals");
        let unnamed = Sealer::new(&[2; KEY_LENGTH], random()).seal(HERE, &plain).expect("it seals");
        assert!(data == same || data == unnamed, "a forged value opens: {data:x?}");
    }
    let Some((&at, plain)) = data.split_first() else { return };
    let sealed = sealer.seal(HERE, plain).expect("it seals");
    assert!(sealed.starts_with(&named_by([2; 8])) && sealer.is_current(&sealed));
    assert_eq!(&*sealer.open(HERE, &sealed).expect("it opens"), plain);
    assert_eq!(sealer.open_text(HERE, &sealed).is_ok(), std::str::from_utf8(plain).is_ok());
    for place in [Place { row: "wh_2", ..HERE }, Place { table: "webhook", ..HERE }] {
        assert!(sealer.open(place, &sealed).is_err(), "it opens in another place");
    }
    let at = usize::from(at) * 31 % sealed.len();
    let mut bent = sealed.clone();
    bent[at] ^= 1 << (at % 8);
    assert!(sealer.open(HERE, &bent).is_err(), "byte {at} can be changed");
    assert!(sealer.open(HERE, &sealed[..at]).is_err(), "it can be cut off at {at}");
}
