//! Usage on the wire.

use std::time::Duration;

use super::super::usage::{EndpointUsage, LogRow, StatusUsage, TopKey, UsageReport};
use super::super::warnings::Warning;
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::convert::{duration, timestamp};

impl From<UsageReport> for pb::GetApiKeyUsageResponse {
    fn from(report: UsageReport) -> Self {
        Self {
            calls: report.total.calls,
            errors: report.total.errors,
            error_rate: report.total.error_rate(),
            endpoints: report.endpoints.into_iter().map(pb::EndpointUsage::from).collect(),
            statuses: report.statuses.into_iter().map(pb::StatusUsage::from).collect(),
            p50_duration: Some(duration(report.durations.quantile(0.5))),
            p99_duration: Some(duration(report.durations.quantile(0.99))),
            last_use_time: report.last_used_at.map(timestamp),
            top_keys: report.top_keys.into_iter().map(pb::TopApiKey::from).collect(),
            dropped_logs: 0,
        }
    }
}

impl From<EndpointUsage> for pb::EndpointUsage {
    fn from(one: EndpointUsage) -> Self {
        let (calls, errors) = (one.usage.calls, one.usage.errors);
        Self { method: one.method, endpoint: one.endpoint, calls, errors, error_rate: one.usage.error_rate() }
    }
}

impl From<StatusUsage> for pb::StatusUsage {
    fn from(one: StatusUsage) -> Self {
        Self { status_class: i32::from(one.class), calls: one.calls }
    }
}

impl From<TopKey> for pb::TopApiKey {
    fn from(one: TopKey) -> Self {
        let (calls, errors) = (one.usage.calls, one.usage.errors);
        Self { api_key_id: one.key_id, calls, errors, error_rate: one.usage.error_rate() }
    }
}

impl From<LogRow> for pb::ApiKeyLog {
    fn from(row: LogRow) -> Self {
        Self {
            id: row.id,
            api_key_id: row.key_id,
            time: Some(timestamp(row.created_at)),
            method: row.method,
            endpoint: row.endpoint,
            status: i32::from(row.status),
            code: row.code,
            ip_address: row.ip_address,
            duration: Some(duration(Duration::from_micros(row.duration_micros.unsigned_abs()))),
        }
    }
}

/// A warning for the wire.
pub(super) fn warning(warning: Warning) -> pb::ApiKeyWarning {
    match warning {
        Warning::TooManyKeys => pb::ApiKeyWarning::TooManyKeys,
        Warning::Unused => pb::ApiKeyWarning::Unused,
        Warning::NewNetwork => pb::ApiKeyWarning::NewNetwork,
        Warning::ErrorBurst => pb::ApiKeyWarning::ErrorBurst,
    }
}
