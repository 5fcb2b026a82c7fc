//! Switchboard: the communication server that an application hands its events to, and that carries them to people and
//! systems.
//!
//! # The three flows
//! ```text
//! request   socket ─▶ rpc (CORS, gRPC-web, gate) ─▶ <capability>/rpc ─▶ <capability>/service ─▶ <capability>/store ─▶ db
//! delivery  service ── one commit ──▶ rows ─▶ delivery (lanes, leases) ─▶ email | webhook attempt
//!                                             └─▶ attempt row + next state (grouped commit)
//! live      commit ─▶ event/log ─▶ event/bus ─▶ notification/stream ─▶ subscriber
//! ```
//!
//! # The house
//! Arrows go one way, and `tests/architecture.rs` holds them: `main ─▶ cli ─▶ app ─▶ capabilities ─▶ event, delivery ─▶ db
//! ─▶ leaf modules`.  Capabilities ([`email`], [`webhook`], [`apikey`], [`settings`], [`notification`]) do not know each
//! other; [`app`] hands one what it needs of another.  Each has the same few files: `rpc` (the wire), `service` (the use
//! cases), `model` (what things are), `store` (the queries), and adapters of its own.

pub mod apikey;
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod delivery;
pub mod email;
pub mod error;
pub mod event;
pub mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod id;
pub mod notification;
pub mod origin;
pub mod pb;
pub mod portable;
pub mod rpc;
pub mod scope;
pub mod secret;
pub mod settings;
pub mod telemetry;
pub mod webhook;
