//! A Kafka that lets nobody in without a certificate or a password, but for the tests' own listener.

use anyhow::{Context as _, Result};
use outboxd::local::free_port;

use super::certificates::{Authority, Certified};
use super::kafka::{LocalKafka, Setup};
use super::tokens::{AUDIENCE, TokenIssuer};

/// Who logs in, and with what.
pub const USER: &str = "relay";
pub const PASSWORD: &str = "planted-sasl-password";

/// The host of every certificate that is right.
pub const HOST: &str = "127.0.0.1";

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Tls,
    /// Only with a client's certificate of the authority.
    MutualTls,
    /// With a name and a password, by PLAIN or SCRAM-SHA-256 and 512.
    Sasl,
    /// SCRAM-SHA-512 alone.
    Scram,
    /// With tokens that [`TokenIssuer`] has signed.
    Token,
    /// The broker's certificate has expired.
    Expired,
    /// The broker's certificate is for `other.example`.
    Misnamed,
}

use Listener::{Expired, Misnamed, MutualTls, Sasl, Scram, Tls, Token};

const LISTENERS: [(Listener, &str, &str); 7] = [
    (Tls, "TLS", "SSL"),
    (MutualTls, "MUTUAL", "SSL"),
    (Sasl, "LOGIN", "SASL_SSL"),
    (Scram, "SCRAM", "SASL_SSL"),
    (Token, "TOKEN", "SASL_SSL"),
    (Expired, "EXPIRED", "SSL"),
    (Misnamed, "MISNAMED", "SSL"),
];

/// See the module's documentation.
pub struct SecuredKafka {
    pub broker: LocalKafka,
    pub authority: Authority,
    /// A client's certificate, from the authority.
    pub client: Certified,
    /// Whose tokens the broker takes.
    pub issuer: TokenIssuer,
    ports: Vec<(Listener, u16)>,
}

impl SecuredKafka {
    pub async fn start() -> Result<SecuredKafka> {
        let authority = Authority::new("tls-authority");
        let good = authority.certify("broker", &[HOST]);
        let expired = authority.certify_long_ago("expired", &[HOST]);
        let misnamed = authority.certify("misnamed", &["other.example"]);
        let mut listen = "BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}".to_owned();
        let mut advertise = "BROKER://127.0.0.1:{port}".to_owned();
        let mut protocols = "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        let mut properties = Vec::new();
        let mut ports = Vec::new();
        for (listener, name, protocol) in LISTENERS {
            let port = free_port().context("a free port")?;
            ports.push((listener, port));
            let address = format!(",{name}://{HOST}:{port}");
            listen.push_str(&address);
            advertise.push_str(&address);
            protocols.push_str(&format!(",{name}:{protocol}"));
            let certificate = match listener {
                Expired => &expired,
                Misnamed => &misnamed,
                _ => &good,
            };
            let name = format!("listener.name.{}", name.to_lowercase());
            properties.extend([
                (format!("{name}.ssl.keystore.type"), "PEM".to_owned()),
                (
                    format!("{name}.ssl.keystore.location"),
                    certificate.both.clone(),
                ),
                (format!("{name}.ssl.truststore.type"), "PEM".to_owned()),
                (format!("{name}.ssl.truststore.location"), authority.ca()),
            ]);
        }
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"
        );
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let issuer = TokenIssuer::new();
        let keys = format!(
            "file://{}",
            authority.write("jwks.json", &issuer.public_keys())
        );
        let allowed = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}");
        let more = [
            ("listeners", listen.as_str()),
            ("advertised.listeners", &advertise),
            ("listener.security.protocol.map", &protocols),
            ("listener.name.mutual.ssl.client.auth", "required"),
            (
                "listener.name.login.sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            ),
            ("listener.name.login.plain.sasl.jaas.config", &plain),
            ("listener.name.login.scram-sha-256.sasl.jaas.config", scram),
            ("listener.name.login.scram-sha-512.sasl.jaas.config", scram),
            (
                "listener.name.scram.sasl.enabled.mechanisms",
                "SCRAM-SHA-512",
            ),
            ("listener.name.scram.scram-sha-512.sasl.jaas.config", scram),
            ("listener.name.token.sasl.enabled.mechanisms", "OAUTHBEARER"),
            (
                "listener.name.token.oauthbearer.sasl.jaas.config",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
            ),
            (
                "listener.name.token.oauthbearer.sasl.server.callback.handler.class",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
            ),
            // Kafka 4.1 reads tokens by default, and does not verify them.
            (
                "sasl.oauthbearer.jwt.validator.class",
                "org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator",
            ),
            ("sasl.oauthbearer.jwks.endpoint.url", &keys),
            ("sasl.oauthbearer.expected.audience", AUDIENCE),
            // A session ends with its token.
            (
                "listener.name.token.oauthbearer.connections.max.reauth.ms",
                "60000",
            ),
        ];
        let mut all: Vec<(&str, &str)> = more.to_vec();
        all.extend(properties.iter().map(|(name, value)| (&**name, &**value)));
        let user = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
        let (short, long) = (user("SCRAM-SHA-256"), user("SCRAM-SHA-512"));
        let broker = LocalKafka::start_as(Setup {
            properties: &all,
            format: &["--add-scram", &short, "--add-scram", &long],
            java: &[&allowed],
        })
        .await?;
        Ok(SecuredKafka {
            client: authority.certify("client", &[]),
            broker,
            authority,
            issuer,
            ports,
        })
    }

    /// The address of a listener.
    pub fn address(&self, listener: Listener) -> String {
        let found = self.ports.iter().find(|(of, _)| *of == listener);
        format!("{HOST}:{}", found.expect("every listener has a port").1)
    }
}
