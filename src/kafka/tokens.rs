//! Tokens for SASL OAUTHBEARER. One thread for the whole process fetches them, early enough that a client which asks
//! need not wait; the clients are given them by librdkafka's callback, or by hand where nobody polls.

use std::ffi::CString;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, OAuthToken};
use rdkafka::types::RDKafkaRespErr;

use super::token_endpoint::{Token, TokenEndpoint};
use crate::oauth::ClientCredentials;
use crate::outage::{Retry, jittered};

/// How long a client waits for the first token: a round trip, and the attempts of a moment's outage.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shortest pause between two tokens, whatever the endpoint says of their time.
const LEAST: Duration = Duration::from_secs(1);

/// The longest pause between two attempts while the endpoint gives none.
const MOST: Duration = Duration::from_secs(30);

/// A token that lives no longer than this is of no use to a connection that is still to be made.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// The tokens of a process.
#[derive(Clone)]
pub(super) struct Tokens {
    keeper: Arc<Keeper>,
}

struct Keeper {
    shared: Arc<Shared>,
    client_id: String,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The last one, and when it ends.
    token: Option<(String, SystemTime)>,
    /// Why there is no newer one.
    error: Option<String>,
    should_stop: bool,
}

impl Shared {
    // Plain values: whole at any moment, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().should_stop = true;
        self.shared.changed.notify_all();
    }
}

impl Tokens {
    /// Begins to fetch. The thread ends with the last clone.
    pub fn of(credentials: &ClientCredentials) -> Tokens {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let endpoint = TokenEndpoint::new(credentials);
        let kept = Arc::clone(&shared);
        let started = thread::Builder::new()
            .name("kafka tokens".to_owned())
            .spawn(move || keep(&kept, &endpoint));
        if let Err(error) = started {
            shared.lock().error = Some(format!("starting a thread for tokens: {error}"));
        }
        let client_id = credentials.client_id.clone();
        Tokens {
            keeper: Arc::new(Keeper { shared, client_id }),
        }
    }

    /// A token that is valid; waits for the first one for some seconds.
    ///
    /// # Errors
    /// Why there is none.
    pub fn token(&self) -> Result<OAuthToken, String> {
        let shared = &self.keeper.shared;
        let is_undecided = |state: &mut State| state.token.is_none() && state.error.is_none();
        let waited = shared
            .changed
            .wait_timeout_while(shared.lock(), PATIENCE, is_undecided);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.token {
            Some((text, end)) if *end > SystemTime::now() + TOO_SHORT => Ok(OAuthToken {
                token: text.clone(),
                principal_name: self.keeper.client_id.clone(),
                lifetime_ms: unix_ms(*end),
            }),
            _ => Err(state.error.clone().unwrap_or_else(|| {
                format!(
                    "the token endpoint has not answered in {} s",
                    PATIENCE.as_secs()
                )
            })),
        }
    }

    /// Gives a token to a client.
    ///
    /// # Errors
    /// Why there is none, or the client does not take it.
    pub fn give<C: ClientContext>(&self, client: &Client<C>) -> Result<(), String> {
        let token = self.token()?;
        let nul = |_| "the token has a NUL character".to_owned();
        let text = CString::new(token.token).map_err(nul)?;
        let principal = CString::new(token.principal_name).map_err(nul)?;
        let mut said = [0_u8; 512];
        // SAFETY: the client lives for as long as it is borrowed, both strings end with NUL and outlive the call,
        // which copies them, and `said` is as long as it is said to be.
        let code = unsafe {
            rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                text.as_ptr(),
                token.lifetime_ms,
                principal.as_ptr(),
                ptr::null_mut(),
                0,
                said.as_mut_ptr().cast(),
                said.len(),
            )
        };
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            _ => {
                let end = said
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(said.len());
                Err(String::from_utf8_lossy(&said[..end]).into_owned())
            }
        }
    }
}

/// Fetches tokens until nobody wants them any more.
fn keep(shared: &Shared, endpoint: &TokenEndpoint) {
    let mut retry = Retry::new(MOST);
    loop {
        let fetched = endpoint.fetch();
        let now = SystemTime::now();
        let mut state = shared.lock();
        let wait = match fetched {
            Ok(Token { text, lifetime }) => {
                retry.reset();
                state.token = Some((text, now + lifetime));
                state.error = None;
                // Well before librdkafka asks, which it does after four fifths.
                jittered(lifetime / 2).max(LEAST)
            }
            Err(error) => {
                let wait = retry.next_wait();
                let holds = state.token.as_ref().is_some_and(|(_, end)| *end > now);
                // Without a token that holds, whoever needs one says so.
                if holds && retry.is_news(&error, std::time::Instant::now()) {
                    tracing::warn!(
                        error,
                        retry_in_ms = wait.as_millis() as u64,
                        "no new token for kafka, the old one still holds"
                    );
                }
                state.error = Some(error);
                wait
            }
        };
        shared.changed.notify_all();
        let waited = shared
            .changed
            .wait_timeout_while(state, wait, |state| !state.should_stop);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.should_stop {
            return;
        }
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
