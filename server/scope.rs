//! Scopes: what the holder of a key may do, as `resource:action`.

/// Checks a scope that a key is to hold: `resource:action`, or `resource:*`.
///
/// # Errors
/// What is wrong with it.
pub fn check(scope: &str) -> Result<(), String> {
    let word = |word: &str| {
        let mut bytes = word.bytes();
        (1..=32).contains(&word.len())
            && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    };
    match scope.split_once(':') {
        Some((resource, action)) if resource.split('.').all(word) && (action == "*" || word(action)) => {
            Ok(())
        }
        _ => Err("must be resource:action, such as tickets:read, or resource:* for all actions".into()),
    }
}

/// Whether somebody who holds `held` may do what needs `needed`.
///
/// `x:*` covers `x:y`.  `admin:*` covers everything, `admin:read` every `…:read`, and `admin:write` every `…:write`.
/// Nothing covers a wildcard but the same or a wider one.
pub fn covers(held: &str, needed: &str) -> bool {
    if held == needed || held == "admin:*" {
        return true;
    }
    let (Some((held_resource, held_action)), Some((resource, action))) =
        (held.split_once(':'), needed.split_once(':'))
    else {
        return false;
    };
    if held_action == "*" {
        return held_resource == resource;
    }
    held_resource == "admin" && held_action == action && matches!(action, "read" | "write")
}

/// Whether any of the held scopes covers `needed`.
pub fn any_covers<S: AsRef<str>>(held: &[S], needed: &str) -> bool {
    held.iter().any(|held| covers(held.as_ref(), needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_its_own_resource_only() {
        assert!(covers("inventory:*", "inventory:delete"));
        assert!(covers("inventory:read", "inventory:read"));
        assert!(!covers("inventory:*", "tickets:read"));
        assert!(!covers("inventory:read", "inventory:write"));
        assert!(!covers("inventory:read", "inventory:*"), "a part does not cover the whole");
        assert!(!covers("inventory:*", "inventory.items:read"));
    }

    #[test]
    fn admin_covers_by_action() {
        for needed in ["events:write", "apikeys:*", "admin:*", "email:send"] {
            assert!(covers("admin:*", needed), "{needed}");
        }
        assert!(covers("admin:read", "webhooks:read"));
        assert!(!covers("admin:read", "webhooks:write"));
        assert!(!covers("admin:read", "webhooks:*"));
        assert!(covers("admin:write", "webhooks:write"));
        assert!(!covers("admin:write", "email:send"));
        assert!(!covers("admin:write", "admin:*"));
    }

    #[test]
    fn scopes_have_one_form() {
        for good in ["tickets:read", "a.b:c", "x:*", "biofloc:write", "api-keys:re_ad"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "*",
            "*:*",
            "*:read",
            "tickets",
            "tickets:",
            ":read",
            "Tickets:read",
            "t*:read",
            "a:b:c",
            "a:b*",
            "a b:c",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
