//! Why a server and outboxd do not agree on a TLS connection.

use rustls::{AlertDescription, CertificateError, Error};

use crate::certificate::flaw;

/// What is wrong with the certificate of `host`, or with ours; none: it is something else.
pub(super) fn problem(error: &sqlx::Error, host: &str) -> Option<String> {
    let sqlx::Error::Io(error) = error else {
        return None;
    };
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => {
            let hint = match error {
                CertificateError::UnknownIssuer => " (sslrootcert names one that is)",
                _ => "",
            };
            Some(format!("the certificate of {host} {}{hint}", flaw(error)))
        }
        Error::AlertReceived(alert) => of_client(*alert)
            .map(|problem| format!("{host} refuses the client's certificate (sslcert): {problem}")),
        _ => None,
    }
}

/// What a server's alert says about the certificate that it was shown, or was not.
fn of_client(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "it does not trust the authority",
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => "it wants one",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => "it does not accept it",
        _ => return None,
    })
}
