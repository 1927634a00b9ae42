//! What a client shows to be given tokens.

use ureq::http::Uri;

use crate::secret::Secret;

/// Client credentials (OAuth 2.0, <https://www.rfc-editor.org/rfc/rfc6749#section-4.4>), and where tokens are given
/// for them.
///
/// ```
/// use outboxd::oauth::{ClientCredentials, TokenUrl};
/// use outboxd::secret::Secret;
///
/// # fn main() -> Result<(), String> {
/// let url = TokenUrl::parse("https://idp.example/token")?;
/// let secret = Secret::in_file("/run/secrets/kafka");
/// let mut credentials = ClientCredentials::new(url, "billing", secret);
/// credentials.scope = Some("kafka".to_owned());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The endpoint that gives tokens.
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

impl ClientCredentials {
    /// Without a scope, at an endpoint that the system trusts.
    pub fn new(
        token_url: TokenUrl,
        client_id: impl Into<String>,
        client_secret: Secret,
    ) -> ClientCredentials {
        ClientCredentials {
            token_url,
            client_id: client_id.into(),
            client_secret,
            scope: None,
            ca_location: None,
        }
    }
}

/// An address that a secret may be sent to: by `https`, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUrl(String);

const THIS_MACHINE: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

impl TokenUrl {
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<TokenUrl, String> {
        let is_safe = |uri: Uri| {
            let is_local = uri.host().is_some_and(|host| THIS_MACHINE.contains(&host));
            uri.scheme_str() == Some("https") || is_local
        };
        match http_url(text).is_some_and(is_safe) {
            true => Ok(TokenUrl(text.to_owned())),
            false => Err(
                "must be https://host/path without a user: the client's secret is sent there"
                    .to_owned(),
            ),
        }
    }

    /// The address: safe to log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A URL of http or https, without a user.
pub(crate) fn http_url(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && !text.contains('@')).then_some(uri)
}
