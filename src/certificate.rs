//! What is wrong with a certificate, in words for whoever runs the server that shows it.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

/// The flaw, to follow "the certificate of db.internal".
pub fn flaw(error: &CertificateError) -> String {
    use CertificateError as Error;
    match error {
        Error::Expired => "has expired".to_owned(),
        Error::ExpiredContext { not_after, .. } => {
            format!("has expired, it was valid until {}", date(*not_after))
        }
        Error::NotValidYet => "is not valid yet".to_owned(),
        Error::NotValidYetContext { not_before, .. } => {
            format!("is not valid yet, it will be from {}", date(*not_before))
        }
        Error::NotValidForName => "is for another host".to_owned(),
        Error::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = match names.is_empty() {
                true => "for none".to_owned(),
                false => format!("for {}", names.join(", ")),
            };
            format!(
                "is for another host: {names}, not for {}",
                expected.to_str()
            )
        }
        Error::UnknownIssuer => "is from an authority that is not trusted".to_owned(),
        // One that is its own authority, as it is made for a server in a minute.
        Error::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "is that of an authority, not of a server".to_owned()
        }
        Error::Revoked => "is revoked".to_owned(),
        other => format!("is refused: {other}"),
    }
}

/// A name as rustls shows it, `DnsName("db.internal")`, without what is around it.
fn bare(shown: &str) -> &str {
    let inner = shown
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(shown).trim_matches('"')
}

fn date(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "a time beyond all".to_owned(), |time| time.to_string())
}
