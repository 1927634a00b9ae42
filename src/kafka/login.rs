//! How clients log in with what may change while they live: tokens, and a password from a file.

use std::error::Error;
use std::ffi::CString;
use std::fmt;

use rdkafka::ClientContext;
use rdkafka::bindings::{
    rd_kafka_error_destroy, rd_kafka_oauthbearer_set_token_failure, rd_kafka_sasl_set_credentials,
};
use rdkafka::client::{Client, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::tokens::Tokens;
use super::{KafkaSetupError, forward_log};
use crate::oauth::ClientCredentials;
use crate::secret::Secret;

/// What the clients of a process have in common. As a client's context it gives tokens to one that is polled.
#[derive(Clone)]
pub(crate) struct Login {
    tokens: Option<Tokens>,
    password: Option<Password>,
}

/// A password from a file, and what a client knows of it.
#[derive(Clone)]
pub(super) struct Password {
    user: String,
    secret: Secret,
    known: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("with_tokens", &self.tokens.is_some())
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Begins to fetch tokens if there are credentials for them. `password`: with its user, if it may change.
    pub fn new(
        credentials: Option<&ClientCredentials>,
        password: Option<(&str, &Secret)>,
    ) -> Login {
        Login {
            tokens: credentials.map(Tokens::of),
            password: password.map(Password::new),
        }
    }

    /// For a client's callback.
    ///
    /// # Errors
    /// Why there is no token.
    pub fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self.tokens.as_ref().ok_or("no token is needed")?;
        Ok(tokens.token()?)
    }

    /// Answers a client that asks for a token.
    pub(super) fn refresh<C: ClientContext>(&self, client: &Client<C>) {
        let Err(error) = self.prepare(client) else {
            return;
        };
        // It has no NUL character, or says nothing.
        let reason = CString::new(error.to_string()).unwrap_or_default();
        // SAFETY: the client lives for as long as it is borrowed, and the text, which is copied, outlives the call.
        unsafe { rd_kafka_oauthbearer_set_token_failure(client.native_ptr(), reason.as_ptr()) };
    }

    /// What a client that lives on is to be told.
    pub(super) fn password(&self) -> Option<Password> {
        self.password.clone()
    }

    /// Gives a client that nobody polls what it logs in with, before it is used; waits some seconds for the first
    /// token. Not to be called where blocking is not allowed.
    ///
    /// # Errors
    /// Why there is no token.
    pub fn prepare<C: ClientContext>(&self, client: &Client<C>) -> Result<(), KafkaSetupError> {
        if let Some(mut password) = self.password() {
            password.renew(client);
        }
        match &self.tokens {
            Some(tokens) => tokens
                .give(client)
                .map_err(|reason| KafkaSetupError::Unreachable { reason }),
            None => Ok(()),
        }
    }
}

impl ClientContext for Login {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error.message = %error, error.reason = reason, "kafka client error");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.token()
    }
}

impl ConsumerContext for Login {}

impl Password {
    fn new((user, secret): (&str, &Secret)) -> Password {
        Password {
            user: user.to_owned(),
            secret: secret.clone(),
            known: None,
        }
    }

    /// Hands the client a password that has changed: the next connection uses it, those that there are stay.
    pub fn renew<C: ClientContext>(&mut self, client: &Client<C>) {
        let current = match self.secret.current() {
            Ok(current) => current,
            Err(error) => {
                // It is being replaced, perhaps; what the client has may still do.
                tracing::debug!(error = %error, "the kafka password cannot be read");
                return;
            }
        };
        if self.known.as_ref() == Some(&current) {
            return;
        }
        // A NUL character is refused in the properties, too.
        let (Ok(user), Ok(password)) = (CString::new(&*self.user), CString::new(&*current)) else {
            return;
        };
        // SAFETY: the client lives for as long as it is borrowed, and both strings, which are copied, outlive the
        // call. It returns nothing or an error that is ours to destroy.
        unsafe {
            let error = rd_kafka_sasl_set_credentials(
                client.native_ptr(),
                user.as_ptr(),
                password.as_ptr(),
            );
            if !error.is_null() {
                rd_kafka_error_destroy(error);
            }
        }
        self.known = Some(current);
    }
}
