//! The integration tests: one binary, over real sockets, on both databases.

mod api_keys;
mod architecture;
mod bad_input;
mod command_line;
mod crash;
mod deliveries;
mod discovery;
mod emails;
mod harness;
mod live;
mod port;
mod publish;
mod routes;
mod settings;
mod signatures;
mod storage;
mod tables;
mod webhooks;
