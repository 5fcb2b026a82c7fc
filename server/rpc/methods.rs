//! The methods of this server, with the scope that each needs, read from the descriptor.

use std::collections::{BTreeSet, HashMap};

use prost_reflect::{DescriptorPool, Value};

use super::admission::Class;
use crate::error::{Error, Result};

const OPTION: &str = "switchboard.auth.v1.scope";
const BULK: &str = "switchboard.auth.v1.bulk";
/// Packages whose services are this server's own; the others are imports.
const PACKAGES: &str = "switchboard.";

/// One method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// What its caller must hold.
    pub scope: &'static str,
    /// Whether it answers with a stream.
    pub streaming: bool,
    /// Who calls it, when not all can be served.
    pub class: Class,
    /// Its place among all.
    pub number: usize,
}

/// All methods.
#[derive(Debug)]
pub struct Methods {
    by_path: HashMap<&'static str, Method>,
    services: BTreeSet<String>,
}

impl Methods {
    /// Reads the descriptor.
    ///
    /// # Errors
    /// When a method has no scope.
    pub fn from_descriptor(descriptor: &[u8]) -> Result<Self> {
        let pool = DescriptorPool::decode(descriptor).map_err(Error::internal)?;
        let option = pool
            .get_extension_by_name(OPTION)
            .ok_or_else(|| Error::internal("the scope option is missing"))?;
        let bulk =
            pool.get_extension_by_name(BULK).ok_or_else(|| Error::internal("the bulk option is missing"))?;
        let mut methods = Self { by_path: HashMap::new(), services: BTreeSet::new() };
        for service in pool.services().filter(|service| service.package_name().starts_with(PACKAGES)) {
            methods.services.insert(service.full_name().to_owned());
            for method in service.methods() {
                let scope = match method.options().get_extension(&option).as_ref() {
                    Value::String(scope) if crate::scope::check(scope).is_ok() => scope.clone(),
                    other => {
                        return Err(Error::internal(format!(
                            "{} has the scope {other:?}",
                            method.full_name()
                        )));
                    }
                };
                let path = format!("/{}/{}", service.full_name(), method.name());
                // There is a fixed number of them, for as long as the process lives.
                let (path, scope): (&'static str, &'static str) = (path.leak(), scope.leak());
                let class = match method.options().get_extension(&bulk).as_ref() {
                    Value::Bool(true) => Class::Bulk,
                    _ => Class::Administration,
                };
                let (streaming, number) = (method.is_server_streaming(), methods.by_path.len());
                methods.by_path.insert(path, Method { path, scope, streaming, class, number });
            }
        }
        Ok(methods)
    }

    /// The method of a request.
    pub fn find(&self, path: &str) -> Option<&Method> {
        self.by_path.get(path)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Method> {
        self.by_path.values()
    }

    /// The services, by name.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_scope_and_only_servers_stream() {
        let methods = Methods::from_descriptor(crate::pb::DESCRIPTOR).unwrap();
        assert!(methods.all().count() > 30);
        let pool = DescriptorPool::decode(crate::pb::DESCRIPTOR).unwrap();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            // A browser can not stream to a server.
            assert!(!method.is_client_streaming(), "{}", method.full_name());
        }
    }

    #[test]
    fn what_applications_call_in_bulk_is_known() {
        let methods = Methods::from_descriptor(crate::pb::DESCRIPTOR).unwrap();
        let class = |path| methods.find(path).unwrap().class;
        assert_eq!(class("/switchboard.event.v1.EventService/PublishEvent"), Class::Bulk);
        assert_eq!(class("/switchboard.apikey.v1.ApiKeyService/RevokeApiKey"), Class::Administration);
    }

    #[test]
    fn a_method_without_a_scope_is_refused() {
        let proto = r#"
            syntax = "proto3";
            package switchboard.bare.v1;
            import "switchboard/auth/v1/auth.proto";
            message GoRequest {}
            message GoResponse {}
            service BareService { rpc Go(GoRequest) returns (GoResponse); }
        "#;
        let mut pool = DescriptorPool::decode(crate::pb::DESCRIPTOR).unwrap();
        let file = protox_parse(proto);
        pool.add_file_descriptor_proto(file).unwrap();
        let error = Methods::from_descriptor(&pool.encode_to_vec()).unwrap_err();
        assert!(error.to_string().contains("BareService.Go"), "{error}");
    }

    fn protox_parse(source: &str) -> prost_types::FileDescriptorProto {
        let file = protox::file::File::from_source("bare.proto", source).unwrap();
        file.file_descriptor_proto().clone()
    }
}
