//! Why no broker answers, in words. librdkafka tells each client of what went wrong with each broker, and then that all
//! are down; and what OpenSSL says of a certificate is only that it could not be verified.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::tls;
use super::verdict::Judge;

/// What a client's errors come to.
#[derive(Debug)]
pub(crate) struct Causes {
    judge: Judge,
    shows_certificate: bool,
    /// The brokers to start from, if connections are not encrypted.
    #[cfg(feature = "relay")]
    plain: Option<String>,
    last: Mutex<Option<String>>,
}

/// What an error is to whoever waits for the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// No broker is left, for this reason.
    Down(String),
    /// A broker, or this client, is refused: nothing gets better by waiting.
    Refused(String),
    /// A connection came and went.
    Passing,
}

impl Causes {
    /// `config`: what the clients are made of.
    pub fn new(config: &ClientConfig) -> Causes {
        Causes {
            judge: Judge::new(config),
            shows_certificate: tls::CERTIFICATE
                .iter()
                .any(|name| config.get(name).is_some()),
            #[cfg(feature = "relay")]
            plain: config
                .get("bootstrap.servers")
                .filter(|_| !tls::is_used(config))
                .map(str::to_owned),
            last: Mutex::new(None),
        }
    }

    /// Takes in what a client reports outside of any message. May connect to a broker to look at its certificate, for
    /// some seconds at most.
    pub fn take_in(&self, error: &KafkaError, reason: &str) -> News {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            return News::Down(last.clone().unwrap_or_else(|| reason.to_owned()));
        }
        let cause = self.words(reason);
        tracing::debug!(error.message = %error, error.reason = reason, "kafka client error");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(cause.clone());
        match code {
            // Without one, no connection is even tried.
            _ if reason.starts_with(NO_TOKEN) => News::Down(cause),
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication) => News::Refused(cause),
            _ => News::Passing,
        }
    }

    /// Why nobody has answered. Of a broker that closes the connection librdkafka says nothing, as one does that
    /// expects TLS: whether that is so is found out here, in some seconds at most.
    #[cfg(feature = "relay")]
    pub fn find(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().or_else(|| {
            let mut brokers = self.plain.as_deref()?.split(',');
            let broker = brokers.find(|broker| self.judge.finds_tls(broker))?;
            Some(format!(
                "{broker}: the broker speaks TLS on this port (see security.protocol)"
            ))
        })
    }

    fn words(&self, reason: &str) -> String {
        if let Some(cause) = reason.strip_prefix(NO_TOKEN) {
            return cause.to_owned();
        }
        let (broker, reason) = parts(reason);
        let certificate = || Some(self.judge.verdict(broker?)?.to_string());
        let cause = match in_words(reason) {
            Some(Words::Plain(words)) => words.to_owned(),
            Some(Words::Untrusted) if !self.shows_certificate => NO_CERTIFICATE.to_owned(),
            Some(Words::Untrusted) => {
                "the broker does not trust the client's certificate (see ssl.certificate.location)"
                    .to_owned()
            }
            Some(Words::Unverified) => certificate().unwrap_or_else(|| {
                "the broker's certificate cannot be verified (see ssl.ca.location)".to_owned()
            }),
            None => reason.to_owned(),
        };
        match broker {
            Some(broker) => format!("{broker}: {cause}"),
            None => cause,
        }
    }
}

/// What comes before our own words for why there is no token.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token: ";

/// The address of the broker, if it is about one, and what is said about it: a line begins like
/// `sasl_ssl://host:9093/bootstrap: ` and may end like ` (after 4ms in state SSL_HANDSHAKE)`.
fn parts(reason: &str) -> (Option<&str>, &str) {
    let (broker, reason) = match reason.split_once("://").map(|(_, rest)| rest) {
        Some(rest) => match rest.split_once(": ") {
            Some((name, said)) => (name.split('/').next(), said),
            None => (None, reason),
        },
        None => (None, reason),
    };
    let end = reason.rfind(" (after ").unwrap_or(reason.len());
    (broker, &reason[..end])
}

const NO_CERTIFICATE: &str =
    "the broker asks for a client's certificate (see ssl.certificate.location)";

enum Words {
    Plain(&'static str),
    /// The client's certificate, or that it has none: Java says the same of both.
    Untrusted,
    /// The broker's certificate; why not is still to be found out.
    Unverified,
}

/// What OpenSSL and librdkafka say in riddles.
fn in_words(reason: &str) -> Option<Words> {
    let has = |text| reason.contains(text);
    if has("certificate verify failed") {
        return Some(Words::Unverified);
    }
    let alert = reason.split_once("SSL alert number ").map(|(_, rest)| rest);
    let alert = alert.map(|rest| rest.split(|char: char| !char.is_ascii_digit()).next());
    // Numbers of RFC 8446, section 6.
    let words = match alert.flatten() {
        Some("42" | "43" | "46" | "48") => return Some(Words::Untrusted),
        Some("44") => "the client's certificate is revoked (see ssl.certificate.location)",
        Some("45") => "the client's certificate has expired (see ssl.certificate.location)",
        Some("116") => NO_CERTIFICATE,
        Some("40" | "70" | "71") => {
            "the broker and the client have no version or cipher of TLS in common"
        }
        _ if has("wrong version number") || has("connecting to a PLAINTEXT broker listener?") => {
            "the broker does not speak TLS on this port (see security.protocol)"
        }
        _ => return None,
    };
    Some(Words::Plain(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(reason: &str) -> String {
        Causes::new(&ClientConfig::new()).words(reason)
    }

    #[test]
    fn a_broker_is_named_by_its_address_and_the_time_is_left_out() {
        for (said, expected) in [
            (
                "sasl_ssl://[::1]:9093/bootstrap: Connect to ipv6#[::1]:9093 failed: Connection refused (after 0ms in state CONNECT)",
                "[::1]:9093: Connect to ipv6#[::1]:9093 failed: Connection refused",
            ),
            ("1/1 brokers are down", "1/1 brokers are down"),
        ] {
            assert_eq!(words(said), expected);
        }
    }

    #[test]
    fn alerts_are_told_in_words() {
        let said =
            "ssl://b:9093/1: SSL routines::tlsv13 alert certificate required: SSL alert number 116";
        assert_eq!(words(said), format!("b:9093: {NO_CERTIFICATE}"));
        let said = "ssl://b:9093/1: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 3ms in state APIVERSION_QUERY)";
        assert_eq!(words(said), format!("b:9093: {NO_CERTIFICATE}"));
        let mut config = ClientConfig::new();
        config.set("ssl.certificate.location", "/c.pem");
        assert_eq!(
            Causes::new(&config).words(said),
            "b:9093: the broker does not trust the client's certificate (see ssl.certificate.location)"
        );
    }
}
