//! The ceiling of scopes: whatever is made, changed and replaced in whatever order, nobody gets a scope that its maker does not
//! hold.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use switchboard::apikey::Creator;
use switchboard::scope;
use switchboard_client::Client;
use switchboard_client::apikey::v1::{ApiKey, GetApiKeyRequest, RotateApiKeyRequest};
use tonic::{Code, Status};

use crate::api_keys_change::{make, new_key, update};
use crate::harness::on_both;
use crate::harness::server::Server;

/// Those that cover each other in every way that there is, and one of its own.
const SCOPES: [&str; 14] = [
    "admin:*",
    "admin:read",
    "admin:write",
    "apikeys:*",
    "apikeys:write",
    "apikeys:read",
    "events:*",
    "events:read",
    "events:write",
    "email:send",
    "email:*",
    "tickets:read",
    "tickets:*",
    "events.log:read",
];

fn scopes() -> impl Strategy<Value = Vec<String>> {
    vec(prop::sample::select(&SCOPES[..]), 1..6)
        .prop_map(|scopes| scopes.into_iter().map(ToOwned::to_owned).collect())
}

/// Something that somebody does: the numbers are places among the keys that there are.
#[derive(Debug, Clone)]
enum Step {
    Make { by: usize, scopes: Vec<String> },
    Change { by: usize, of: usize, scopes: Vec<String> },
    Rename { by: usize, of: usize },
    Replace { by: usize, of: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..64_usize;
    prop_oneof![
        3 => (place.clone(), scopes()).prop_map(|(by, scopes)| Step::Make { by, scopes }),
        3 => (place.clone(), place.clone(), scopes()).prop_map(|(by, of, scopes)| Step::Change { by, of, scopes }),
        1 => (place.clone(), place.clone()).prop_map(|(by, of)| Step::Rename { by, of }),
        2 => (place.clone(), place).prop_map(|(by, of)| Step::Replace { by, of }),
    ]
}

proptest! {
    #[test]
    fn what_may_be_given_opens_nothing_that_was_closed(held in scopes(), given in scopes(), needed in prop::sample::select(&SCOPES[..])) {
        let creator = Creator { id: "key_1", scopes: &held };
        let may = creator.may_give(&given).is_ok();
        prop_assert_eq!(may, given.iter().all(|one| scope::any_covers(&held, one)));
        if may && scope::any_covers(&given, needed) {
            prop_assert!(scope::any_covers(&held, needed), "{:?} gave {:?}", held, given);
        }
    }

    #[test]
    fn no_chain_of_makers_gets_beyond_its_first(first in scopes(), wishes in vec((0..64_usize, scopes()), 1..40)) {
        let mut keys = vec![first.clone()];
        for (by, wish) in wishes {
            let maker = keys[by % keys.len()].clone();
            if (Creator { id: "key_1", scopes: &maker }).may_give(&wish).is_ok() {
                keys.push(wish);
            }
        }
        for scope in keys.iter().flatten() {
            prop_assert!(scope::any_covers(&first, scope), "{} of {:?}", scope, first);
        }
    }
}

/// A key and who can use it.
struct Held {
    id: String,
    client: Client,
    scopes: Vec<String>,
}

async fn scopes_of(server: &Server, id: &str) -> Vec<String> {
    let request = GetApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap().scopes
}

fn covered(by: &[String], scopes: &[String]) -> bool {
    scopes.iter().all(|one| scope::any_covers(by, one))
}

fn texts(scopes: &[String]) -> Vec<&str> {
    scopes.iter().map(String::as_str).collect()
}

async fn replace(client: &Client, id: &str) -> Result<(ApiKey, String), Status> {
    let request = RotateApiKeyRequest { api_key_id: id.into(), ..Default::default() };
    let answer = client.api_keys().rotate_api_key(request).await?.into_inner();
    Ok((answer.api_key.unwrap(), answer.key))
}

/// Does what somebody wants to do, asserts that it was allowed just when it had to be, and answers whether it was.
async fn take(server: &Server, keys: &mut Vec<Held>, step: Step) -> bool {
    let count = keys.len();
    let (Step::Make { by, .. }
    | Step::Change { by, .. }
    | Step::Rename { by, .. }
    | Step::Replace { by, .. }) = step;
    let actor = &keys[by % count];
    let (client, held) = (actor.client.clone(), actor.scopes.clone());
    let target = |of: usize| (of % count, keys[of % count].id.clone(), keys[of % count].scopes.clone());
    let may_write = scope::any_covers(&held, "apikeys:write");
    let (allowed, outcome) = match &step {
        Step::Make { scopes, .. } => {
            let made = make(&client, new_key(&texts(scopes))).await;
            (covered(&held, scopes), made.map(|(key, text)| (None, key, Some(text))))
        }
        Step::Change { of, scopes, .. } => {
            let (at, id, _) = target(*of);
            let wish = ApiKey { id, scopes: scopes.clone(), ..Default::default() };
            let changed = update(&client, wish, &["scopes"]).await;
            (covered(&held, scopes), changed.map(|key| (Some(at), key, None)))
        }
        Step::Rename { of, .. } => {
            let (at, id, before) = target(*of);
            let wish = ApiKey { id, name: "renamed".into(), ..Default::default() };
            let renamed = update(&client, wish, &["name"]).await;
            if let Ok(key) = &renamed {
                assert_eq!(key.scopes, before, "a name gives no scope");
            }
            (true, renamed.map(|key| (Some(at), key, None)))
        }
        Step::Replace { of, .. } => {
            let (_, id, before) = target(*of);
            let replaced = replace(&client, &id).await;
            if replaced.as_ref().is_err_and(|refused| refused.code() == Code::FailedPrecondition) {
                // It was replaced before.
                return false;
            }
            (covered(&held, &before), replaced.map(|(key, text)| (None, key, Some(text))))
        }
    };
    match outcome {
        Ok((at, key, text)) => {
            assert!(may_write && allowed, "{step:?} by {held:?} gave {:?}", key.scopes);
            let renamed = matches!(step, Step::Rename { .. });
            assert!(renamed || covered(&held, &key.scopes), "{step:?} by {held:?} gave {:?}", key.scopes);
            match (at, text) {
                (Some(at), _) => keys[at].scopes = key.scopes,
                (None, text) => {
                    let client = server.client_with(&text.unwrap()).await;
                    keys.push(Held { id: key.id, client, scopes: key.scopes });
                }
            }
            true
        }
        Err(refused) => {
            assert_eq!(refused.code(), Code::PermissionDenied, "{step:?}: {refused:?}");
            assert!(!(may_write && allowed), "{step:?} by {held:?} was refused: {refused:?}");
            false
        }
    }
}

on_both! {
    async fn no_key_gets_a_scope_that_its_maker_does_not_hold(server: Server) {
        let mut runner = TestRunner::default();
        let steps = vec(step(), 60).new_tree(&mut runner).unwrap().current();
        let mut keys = Vec::new();
        // Nobody begins with everything, or everybody may have it.
        for scopes in [&["apikeys:write", "events:*", "tickets:read"][..], &["apikeys:*", "admin:read"], &["apikeys:write", "email:send", "events:read"]] {
            let (key, text) = make(&server.client, new_key(scopes)).await.unwrap();
            keys.push(Held { id: key.id, client: server.client_with(&text).await, scopes: key.scopes });
        }
        let first: Vec<String> = keys.iter().flat_map(|key| key.scopes.clone()).collect();
        let mut done = 0;
        for step in steps {
            done += usize::from(take(&server, &mut keys, step).await);
        }
        assert!(done > 0, "something was allowed");
        for key in &keys {
            let now = scopes_of(&server, &key.id).await;
            assert_eq!(now, key.scopes, "what was refused changed nothing");
            assert!(covered(&first, &now), "{now:?} is beyond {first:?}");
        }
    }
}
