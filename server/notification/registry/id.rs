//! Names of streams: `sub_`, the node that has the stream, and 128 random bits.

use crate::secret::SharedRandom;

const PREFIX: &str = "sub_";
/// As in other ids: without letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const NODE: usize = 13;
const SECRET: usize = 26;

/// A new name.
pub(super) fn new(node: i64, random: &SharedRandom) -> String {
    let mut secret = [0; 16];
    random.fill(&mut secret);
    let mut id = String::with_capacity(PREFIX.len() + NODE + SECRET);
    id.push_str(PREFIX);
    push(&mut id, u128::from(node as u64), NODE);
    push(&mut id, u128::from_le_bytes(secret), SECRET);
    id
}

/// The node that a stream is on, if the name is one.
pub fn node_of(id: &str) -> Option<i64> {
    let rest = id.strip_prefix(PREFIX)?;
    if rest.len() != NODE + SECRET || !rest.bytes().all(|byte| DIGITS.contains(&byte)) {
        return None;
    }
    let value = rest.bytes().take(NODE).try_fold(0_u128, |value, byte| {
        let digit = DIGITS.iter().position(|&known| known == byte)?;
        Some(value << 5 | digit as u128)
    })?;
    Some(u64::try_from(value).ok()? as i64)
}

fn push(text: &mut String, value: u128, digits: usize) {
    for place in (0..digits).rev() {
        let digit = (value >> (5 * place)) & 31;
        text.push(char::from(DIGITS[digit as usize]));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::secret::SystemRandom;

    proptest! {
        #[test]
        fn a_name_says_its_node(node: i64) {
            let id = new(node, &(Arc::new(SystemRandom) as SharedRandom));
            prop_assert_eq!(node_of(&id), Some(node), "{}", id);
        }

        #[test]
        fn other_text_is_no_name_and_no_panic(text in "(sub_)?[0-9a-z]{0,40}") {
            prop_assert!(node_of(&text).is_none() || text.len() == PREFIX.len() + NODE + SECRET);
        }
    }

    #[test]
    fn names_differ() {
        let random: SharedRandom = Arc::new(SystemRandom);
        assert_ne!(new(1, &random), new(1, &random));
        assert_eq!(node_of("sub_"), None);
        assert_eq!(node_of(&format!("sub_{}", "z".repeat(39))), None, "no number of a node");
    }
}
