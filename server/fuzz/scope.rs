//! Scopes.

use super::texts;
use crate::scope::{any_covers, check, covers};

/// The forms that a scope has, told without the code that is tested.
fn is_scope(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [resource, action] = parts[..] else { return false };
    let word = |word: &str| {
        let letters: Vec<char> = word.chars().collect();
        !letters.is_empty()
            && letters.len() <= 32
            && letters[0].is_ascii_lowercase()
            && letters.iter().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
    };
    resource.split('.').all(word) && (action == "*" || word(action))
}

/// What a scope stands for, told without the code that is tested.
fn stands_for(held: &str, needed: &str) -> bool {
    let part = |text: &str| text.split_once(':').map(|(one, other)| (one.to_owned(), other.to_owned()));
    let (Some((resource, action)), Some((of, to))) = (part(held), part(needed)) else {
        return held == needed;
    };
    let everything = resource == "admin" && action == "*";
    let all_of_it = resource == of && (action == "*" || action == to);
    let by_action = resource == "admin" && (action == "read" || action == "write") && action == to;
    everything || all_of_it || by_action
}

/// Three scopes: which are scopes, and which covers which.
pub fn scope(data: &[u8]) {
    let Some(all) = texts::<3>(data) else { return };
    for text in all {
        assert_eq!(check(text).is_ok(), is_scope(text), "{text:?}");
    }
    let known: Vec<&str> = all.into_iter().filter(|text| is_scope(text)).collect();
    for held in &known {
        assert!(covers(held, held) && covers("admin:*", held));
        for needed in &known {
            assert_eq!(covers(held, needed), stands_for(held, needed), "{held} and {needed}");
            assert_eq!(any_covers(&[held], needed), covers(held, needed));
            // Whoever may do something may do all that is part of it.
            for part in &known {
                let through = covers(held, needed) && covers(needed, part);
                assert!(!through || covers(held, part), "{held}, {needed}, {part}");
            }
            let wildcard = needed.ends_with(":*");
            assert!(!(wildcard && covers(held, needed)) || held.ends_with(":*"), "a part covers the whole");
        }
    }
}
