//! Where tokens for SASL OAUTHBEARER come from.

use axum::http::Uri;

use super::error::ConfigError;
use super::read::{Report, Section, text_of};
use super::secret::Secret;
use super::values::{Label, Value, http_url, show_without_user};

/// An endpoint that gives tokens for client credentials (RFC 6749, section 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthConfig {
    /// The endpoint.
    pub token_url: TokenUrl,
    /// Who asks there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Secret,
    /// What the token is to allow; nothing: what the endpoint thinks fit.
    pub scope: Option<String>,
    /// Whom to trust at the endpoint, a file of PEM; nothing: what the system trusts.
    pub ca_location: Option<String>,
}

/// An address that a secret may be sent to: by `https`, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUrl(String);

impl TokenUrl {
    /// The address: safe to log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const THIS_MACHINE: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

impl Value for TokenUrl {
    fn read(text: &str) -> Result<Self, String> {
        let is_safe = |uri: Uri| {
            let is_local = uri.host().is_some_and(|host| THIS_MACHINE.contains(&host));
            uri.scheme_str() == Some("https") || is_local
        };
        match http_url(text).is_some_and(is_safe) {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "must be https://host/path without a user: the client's secret is sent there"
                    .to_owned(),
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
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
) -> Option<Option<OAuthConfig>> {
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
    Some(Some(OAuthConfig {
        token_url: token_url?,
        client_id: client_id?.0,
        client_secret: client_secret?,
        scope: scope?.map(|scope| scope.0),
        ca_location: ca_location?.map(|file| file.0),
    }))
}
