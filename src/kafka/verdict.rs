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
        use CertificateError as Error;
        f.write_str("the broker's certificate ")?;
        match &self.0 {
            Error::Expired | Error::ExpiredContext { .. } => f.write_str("has expired"),
            Error::NotValidYet | Error::NotValidYetContext { .. } => {
                f.write_str("is not valid yet")
            }
            Error::UnknownIssuer => {
                f.write_str("is from an authority that is not trusted (see ssl.ca.location)")
            }
            Error::NotValidForName => f.write_str("is for another host"),
            Error::NotValidForNameContext {
                expected,
                presented,
            } => {
                let hosts: Vec<&str> = presented.iter().map(|host| bare(host)).collect();
                let (hosts, wanted) = (hosts.join(", "), expected.to_str());
                write!(f, "is for another host: for {hosts}, not for {wanted}")
            }
            other => write!(f, "is refused: {other}"),
        }
    }
}

/// `other.example` of `DnsName("other.example")`, which is how rustls lists names.
fn bare(host: &str) -> &str {
    let inner = host.split_once('(').map_or(host, |(_, inner)| inner);
    inner.trim_matches(['"', ')'])
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn names_are_listed_without_their_kind() {
        assert_eq!(bare("DnsName(\"other.example\")"), "other.example");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("other.example"), "other.example");
    }
}
