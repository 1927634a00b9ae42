//! The endpoint that gives tokens for client credentials: <https://www.rfc-editor.org/rfc/rfc6749#section-4.4>.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::tls;
use crate::oauth::ClientCredentials;

/// One request with everything that belongs to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a token lives of which the endpoint does not say how long (`expires_in` is recommended, not required).
const USUAL_LIFETIME: u64 = 300;

/// An answer is a token and some words.
const MAX_BYTES: u64 = 1 << 20;

/// The longest that a token is taken to live: it is fetched anew more often than necessary, at worst.
const MAX_LIFETIME: u64 = 24 * 60 * 60;

/// A token and its end.
#[derive(Clone)]
pub(super) struct Token {
    pub text: String,
    pub lifetime: Duration,
}

/// Where tokens are asked for, and with what.
pub(super) struct TokenEndpoint(ClientCredentials);

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds; some endpoints write the number as text.
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl TokenEndpoint {
    pub fn new(credentials: &ClientCredentials) -> TokenEndpoint {
        TokenEndpoint(credentials.clone())
    }

    /// Asks for a token. The client's secret, and whom to trust, are read anew if they are in files.
    ///
    /// # Errors
    /// Why there is none, with the endpoint's address; never with a secret or what the endpoint says in its own words.
    pub fn fetch(&self) -> Result<Token, String> {
        let url = self.0.token_url.as_str();
        self.ask()
            .map_err(|error| format!("no token from {url}: {error}"))
    }

    fn ask(&self) -> Result<Token, String> {
        let ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scope,
            ca_location,
        } = &self.0;
        let secret = client_secret.current();
        let secret = secret.map_err(|error| error.to_string())?;
        // RFC 6749, section 2.3.1: both are encoded as form values first.
        let credentials = format!("{}:{}", form_encoded(client_id), form_encoded(&secret));
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = agent(ca_location.as_deref())?.post(token_url.as_str());
        let request = request
            .header(
                "authorization",
                format!("Basic {}", STANDARD.encode(credentials)),
            )
            .header("accept", "application/json");
        let mut response = request.send_form(form).map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_BYTES)
            .read_to_string();
        let body = body.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(match serde_json::from_str::<Refusal>(&body) {
                Ok(Refusal { error }) if is_code(&error) => format!("status {status}, {error}"),
                _ => format!("status {status}"),
            });
        }
        // The error of the parser can quote what it read.
        let answer: Answer = serde_json::from_str(&body)
            .map_err(|_| "its answer is no JSON object with an access_token".to_owned())?;
        let seconds = answer.expires_in.and_then(|seconds| match seconds {
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        });
        Ok(Token {
            text: answer.access_token,
            lifetime: Duration::from_secs(seconds.unwrap_or(USUAL_LIFETIME).min(MAX_LIFETIME)),
        })
    }
}

/// Made for each request: there is one an hour or so, and the files may have changed.
fn agent(ca_location: Option<&str>) -> Result<Agent, String> {
    let roots = tls::trusted(ca_location)?;
    let roots: Vec<Certificate<'_>> = roots
        .iter()
        .map(|root: &CertificateDer<'_>| Certificate::from_der(root).to_owned())
        .collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        // The credentials are for this address.
        .max_redirects(0)
        .build();
    Ok(config.into())
}

/// Whether an error is one of those that RFC 6749 has (section 5.2) or could have, and not somebody's prose.
fn is_code(error: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (1..=64).contains(&error.len()) && error.bytes().all(legal)
}

/// `application/x-www-form-urlencoded`.
fn form_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_as_a_form_has_them() {
        assert_eq!(form_encoded("a b/+&ü"), "a+b%2F%2B%26%C3%BC");
    }

    #[test]
    fn only_an_error_s_code_is_repeated() {
        assert!(is_code("invalid_client"));
        for prose in ["", "the secret hunter2 is wrong", "Bearer", "a\nb"] {
            assert!(!is_code(prose), "{prose}");
        }
    }
}
