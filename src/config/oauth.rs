//! Where tokens for SASL OAUTHBEARER come from.

use super::error::ConfigError;
use super::read::{Report, Section, text_of};
use super::values::{Label, Value, show_without_user};
use crate::oauth::{ClientCredentials, TokenUrl};
use crate::secret::Secret;

impl Value for TokenUrl {
    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }

    fn show_malformed(text: &str) -> String {
        show_without_user(text)
    }
}

const OPTIONS: [&str; 5] = [
    "token_url",
    "client_id",
    "client_secret",
    "scope",
    "ca_location",
];

/// Reads `[kafka.oauth]`. `is_used`: the client logs in with tokens; none if that could not be read.
pub(super) fn read(
    mut section: Section,
    is_used: Option<bool>,
    report: &mut Report,
) -> Option<Option<ClientCredentials>> {
    if is_used != Some(true) {
        for key in OPTIONS {
            let found = section.whole(key);
            let is_set =
                found.is_some_and(|value| text_of(&value).is_none_or(|text| !text.is_empty()));
            if is_set && is_used.is_some() {
                report.errors.push(ConfigError::Contradictory {
                    field: section.field(key),
                    conflict: "has no effect without sasl.mechanism \"OAUTHBEARER\"".to_owned(),
                });
            }
        }
        section.finish(report);
        return Some(None);
    }
    let token_url = section.required::<TokenUrl>(report, "token_url");
    let client_id = section.required::<Label>(report, "client_id");
    let client_secret = section.required::<Secret>(report, "client_secret");
    let scope = section.optional::<Label>(report, "scope");
    let ca_location = section.optional::<Label>(report, "ca_location");
    section.finish(report);
    Some(Some(ClientCredentials {
        token_url: token_url?,
        client_id: client_id?.0,
        client_secret: client_secret?,
        scope: scope?.map(|scope| scope.0),
        ca_location: ca_location?.map(|file| file.0),
    }))
}
