//! The list of scopes.

use std::collections::BTreeMap;

use super::super::scopes::{KNOWN, RegisteredScope};
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::methods::Methods;

/// Those that the server lists whatever applications register, by name.
pub(super) fn own(methods: &Methods) -> BTreeMap<String, pb::Scope> {
    let mut scopes: BTreeMap<String, pb::Scope> = BTreeMap::new();
    for (name, description) in KNOWN {
        scopes.insert(name.into(), scope(name.into(), description.into()));
    }
    for method in methods.all() {
        let (resource, action) = method.scope.split_once(':').unwrap_or_default();
        let one = scopes.entry(method.scope.into()).or_insert_with(|| {
            scope(method.scope.into(), format!("The RPCs of this server that {action} {resource}"))
        });
        one.methods.push(method.path.trim_start_matches('/').to_owned());
        let all = format!("{resource}:*");
        scopes.entry(all.clone()).or_insert_with(|| scope(all, format!("All of {resource}")));
    }
    scopes.values_mut().for_each(|scope| scope.methods.sort());
    scopes
}

/// One that an application registered.
pub(super) fn registered(one: RegisteredScope) -> pb::Scope {
    pb::Scope { registered: true, ..scope(one.name, one.description) }
}

fn scope(name: String, description: String) -> pb::Scope {
    pb::Scope { name, description, ..pb::Scope::default() }
}
