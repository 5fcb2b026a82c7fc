//! Between the contract's types and the server's.

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number, Value as Json};

use crate::clock::Timestamp;
use crate::delivery::State;
use crate::delivery::order::PARKED;
use crate::pb::switchboard::delivery::v1::DeliveryState;

/// The greatest whole number that a protobuf number (a double) holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;
const DEPTH_LIMIT: usize = 64;

/// A time for the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds(), nanos: time.nanos_of_second() }
}

/// A time from the wire.
pub fn from_timestamp(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_parts(time.seconds, time.nanos)
}

/// A duration for the wire.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

/// A duration from the wire; `None` for a negative one.
pub fn from_duration(duration: prost_types::Duration) -> Option<Duration> {
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, u32::try_from(duration.nanos).ok()?))
}

/// A state for the wire.
pub fn state(state: Option<State>) -> DeliveryState {
    match state {
        None => DeliveryState::Unspecified,
        Some(State::Scheduled) => DeliveryState::Scheduled,
        Some(State::Pending) => DeliveryState::Pending,
        Some(State::Sending) => DeliveryState::Sending,
        Some(State::Retrying) => DeliveryState::Retrying,
        Some(State::Succeeded) => DeliveryState::Succeeded,
        Some(State::Failed) => DeliveryState::Failed,
        Some(State::Cancelled) => DeliveryState::Cancelled,
        Some(State::Held) => DeliveryState::Held,
        Some(State::Unknown) => DeliveryState::Unknown,
    }
}

/// The states of a filter; `UNSPECIFIED` means any.
pub fn states(filter: impl Iterator<Item = DeliveryState>) -> Vec<State> {
    let wanted: Vec<_> = filter.collect();
    if wanted.contains(&DeliveryState::Unspecified) {
        return Vec::new();
    }
    State::ALL.into_iter().filter(|&known| wanted.contains(&state(Some(known)))).collect()
}

/// When the next attempt is due, for a delivery that waits.
pub fn next_attempt(state: Option<State>, at: Timestamp) -> Option<prost_types::Timestamp> {
    state.is_some_and(|state| state.is_waiting() && at < PARKED).then(|| timestamp(at))
}

/// JSON from a struct; whole numbers become integers.
pub fn json(fields: Struct) -> Map<String, Json> {
    fields.fields.into_iter().map(|(name, value)| (name, json_value(value, 0))).collect()
}

/// JSON from a value.
pub fn json_value(value: Value, depth: usize) -> Json {
    if depth > DEPTH_LIMIT {
        return Json::Null;
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() <= EXACT => {
            Json::from(value as i64)
        }
        Some(Kind::NumberValue(value)) => Number::from_f64(value).map_or(Json::Null, Json::Number),
        Some(Kind::ListValue(list)) => {
            Json::Array(list.values.into_iter().map(|value| json_value(value, depth + 1)).collect())
        }
        Some(Kind::StructValue(fields)) => {
            let field = |(name, value)| (name, json_value(value, depth + 1));
            Json::Object(fields.fields.into_iter().map(field).collect())
        }
    }
}

/// A struct from JSON.
pub fn from_json(fields: Map<String, Json>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, from_json_value(value))).collect() }
}

/// A value from JSON.
pub fn from_json_value(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(from_json_value).collect() })
        }
        Json::Object(fields) => Kind::StructValue(from_json(fields)),
    };
    Value { kind: Some(kind) }
}
