//! What is wrong with a broker's certificate. OpenSSL has refused it by then, and librdkafka does not hand on why; so
//! somebody else looks at it who does say.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection, RootCertStore};

use super::tls;
use crate::certificate::flaw;

/// How long a broker that took a connection a moment ago may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the certificates of brokers.
#[derive(Debug)]
pub(super) struct Judge {
    /// A file; nothing: what the system trusts.
    ca_location: Option<String>,
}

/// Why a certificate is refused.
#[derive(Debug)]
pub(super) struct Verdict(CertificateError);

impl Judge {
    pub fn new(config: &ClientConfig) -> Judge {
        let location = config.get("ssl.ca.location");
        Judge {
            ca_location: location.filter(|name| *name != "probe").map(str::to_owned),
        }
    }

    /// What is wrong with the certificate of the broker at `host:port`; nothing if none is seen that is wrong.
    pub fn verdict(&self, address: &str) -> Option<Verdict> {
        match self.shake_hands(address)? {
            Err(rustls::Error::InvalidCertificate(error)) => Some(Verdict(error)),
            _ => None,
        }
    }

    /// Whether TLS is spoken at `host:port`.
    #[cfg(feature = "relay")]
    pub fn finds_tls(&self, address: &str) -> bool {
        use rustls::Error::{AlertReceived, InvalidCertificate};
        let met = self.shake_hands(address);
        met.is_some_and(|met| matches!(met, Ok(()) | Err(AlertReceived(_) | InvalidCertificate(_))))
    }

    /// Nothing if it does not come to that.
    fn shake_hands(&self, address: &str) -> Option<Result<(), rustls::Error>> {
        let (host, _) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
        let mut stream = address
            .to_socket_addrs()
            .ok()?
            .find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        match client.complete_io(&mut stream) {
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(error
                .get_ref()?
                .downcast_ref::<rustls::Error>()?
                .clone())),
        }
    }

    fn roots(&self) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(tls::trusted(self.ca_location.as_deref()).ok()?);
        Some(roots)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker's certificate {}", flaw(&self.0))?;
        match self.0 {
            CertificateError::UnknownIssuer => f.write_str(" (see ssl.ca.location)"),
            _ => Ok(()),
        }
    }
}
