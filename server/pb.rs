//! The generated contract.

#![expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// The descriptor of every service, with comments and options.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

use std::fmt;

impl fmt::Debug for switchboard::webhook::v1::CreateWebhookResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateWebhookResponse").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::apikey::v1::CreateApiKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateApiKeyResponse").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::apikey::v1::RotateApiKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateApiKeyResponse").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::apikey::v1::VerifyApiKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyApiKeyRequest").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::settings::v1::UpdateSettingsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateSettingsRequest").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::settings::v1::ExportSettingsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportSettingsRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::settings::v1::ImportSettingsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportSettingsRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::settings::v1::ExportConfigurationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportConfigurationRequest").field("sections", &self.sections).finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::settings::v1::ImportConfigurationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportConfigurationRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for switchboard::email::v1::TestSmtpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSmtpRequest").field("settings", &self.settings.keys()).finish_non_exhaustive()
    }
}
