//! Every method of the descriptor with a key that lacks its scope, with one that has nothing else, and with none: a new method
//! is covered without a line here.

use std::collections::BTreeSet;

use switchboard::rpc::methods::Methods;
use switchboard::scope;
use switchboard_client::apikey::v1::{CreateScopeRequest, ListScopesRequest};
use tonic::Code;

use crate::api_keys::{connection, open};
use crate::api_keys_change::{make, new_key};
use crate::harness::{on_both, status};

/// What a key holds at the most.
const SCOPES: usize = 100;

fn methods() -> Methods {
    Methods::from_descriptor(switchboard::pb::DESCRIPTOR).expect("every method has a scope")
}

on_both! {
    async fn every_method_needs_its_own_scope_and_no_other(server: Server) {
        let registered = CreateScopeRequest { name: "orders:read".into(), description: "View orders".into() };
        server.client.api_keys().create_scope(registered).await.unwrap();
        let listed = server.client.api_keys().list_scopes(ListScopesRequest {}).await.unwrap().into_inner().scopes;
        let methods = methods();
        let needed: BTreeSet<&str> = methods.all().map(|method| method.scope).collect();
        let channel = connection(&server).await;
        let mut seen = 0;
        for scope in &needed {
            // Those of this server, of the applications, and the wide ones that do not cover it.
            let others: Vec<&str> =
                listed.iter().map(|other| other.name.as_str()).filter(|other| !scope::covers(other, scope)).collect();
            assert!(others.len() >= needed.len() - 1 && others.contains(&"orders:read"), "{others:?}");
            let mut without = Vec::new();
            for some in others.chunks(SCOPES) {
                without.push(make(&server.client, new_key(some)).await.unwrap().1);
            }
            let (_, just_it) = make(&server.client, new_key(&[scope])).await.unwrap();
            for method in methods.all().filter(|method| method.scope == *scope) {
                seen += 1;
                for key in &without {
                    let refused = open(&channel, Some(key), method.path, b"").await.expect_err(method.path);
                    let details = status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
                    assert_eq!(details.error_info().unwrap().metadata["required_scope"], *scope, "{}", method.path);
                }
                let answer = match open(&channel, Some(&just_it), method.path, b"").await {
                    // A stream is in once it is open: some say nothing until something happens.
                    Ok(mut answer) if !method.streaming => answer.message().await.map(drop),
                    Ok(_) => Ok(()),
                    Err(refused) => Err(refused),
                };
                if let Err(refused) = answer {
                    let gate = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented, Code::Internal];
                    assert!(!gate.contains(&refused.code()), "{}: {refused:?}", method.path);
                }
            }
        }
        assert!(seen > 30 && seen == methods.all().count(), "{seen} methods");
    }

    async fn nobody_gets_in_without_a_key_but_to_health_and_reflection(server: Server = no_limit_of_failed_keys) {
        let channel = connection(&server).await;
        let stranger = switchboard::apikey::key::generate(Default::default(), &switchboard::secret::SystemRandom);
        for method in methods().all() {
            for (key, reason) in [(None, "KEY_MISSING"), (Some(stranger.reveal()), "KEY_INVALID")] {
                let refused = open(&channel, key, method.path, b"").await.expect_err(method.path);
                status::expect(&refused, Code::Unauthenticated, reason);
            }
        }
        for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
            let first = open(&channel, None, path, b"").await.expect(path).message().await.expect(path);
            assert!(first.is_some(), "{path}");
        }
        // `list_services: ""`, field 7.
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let listed = open(&channel, None, path, &[0x3a, 0]).await.unwrap().message().await.unwrap().unwrap();
        let names = String::from_utf8_lossy(&listed).into_owned();
        for service in methods().services() {
            assert!(names.contains(service), "{service} is not served");
        }
    }
}

/// Nobody is turned away unread.
fn no_limit_of_failed_keys(config: &mut switchboard::config::Config) {
    config.set = vec!["security.failed_keys_per_minute=0".into()];
}
