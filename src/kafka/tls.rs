//! Whom a client trusts, and the files that it is given.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// OpenSSL's own variables for what the system trusts.
const STORE: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Properties with which the client shows a certificate of its own.
pub(super) const CERTIFICATE: [&str; 3] = [
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.keystore.location",
];

/// A client's own key, in two forms.
const KEY: [&str; 2] = ["ssl.key.location", "ssl.key.pem"];

/// Properties that name a file.
const FILES: [&str; 5] = [
    "ssl.ca.location",
    "ssl.crl.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
];

/// Properties that say whom to trust.
const TRUST: [&str; 2] = ["ssl.ca.location", "ssl.ca.pem"];

/// Whether connections are encrypted.
pub(crate) fn is_used(config: &ClientConfig) -> bool {
    let protocol = config.get("security.protocol").unwrap_or_default();
    protocol.to_ascii_lowercase().ends_with("ssl")
}

/// Has a client trust what the system trusts, unless it was told whom. OpenSSL is built for no system in particular and
/// does not know where its certificates are; librdkafka looks in the usual places, but not at the variables.
pub(crate) fn trust_the_system(config: &mut ClientConfig) {
    let is_in_variables = STORE.iter().any(|name| std::env::var_os(name).is_some());
    if !is_in_variables {
        probe(config);
    }
}

fn probe(config: &mut ClientConfig) {
    let is_told = TRUST.iter().any(|name| config.get(name).is_some());
    if is_used(config) && !is_told {
        config.set("ssl.ca.location", "probe");
    }
}

/// The certificates of whom to trust: those in a file, or the system's.
pub(super) fn trusted(file: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    match file {
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| format!("reading the certificates in {file:?}: {error}")),
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// The files that a client is made of, by the properties that name them.
pub(super) fn files(config: &ClientConfig) -> impl Iterator<Item = (&'static str, &str)> {
    let files = FILES
        .iter()
        .filter_map(|name| Some((*name, config.get(name)?)));
    files.filter(|(_, file)| *file != "probe")
}

/// Why a client cannot be made. librdkafka does not name a file that it cannot read.
pub(crate) fn refusal(config: &ClientConfig, error: &KafkaError) -> String {
    let unreadable = files(config).find_map(|(name, file)| {
        let found = match std::path::Path::new(file).is_dir() {
            true => std::fs::read_dir(file).err(),
            false => std::fs::File::open(file).err(),
        };
        Some(format!(
            "kafka.properties.{name}: must be a file that can be read, is {file:?}: {}",
            found?
        ))
    });
    unreadable.unwrap_or_else(|| match error {
        KafkaError::ClientCreation(text) => {
            locked_key(config, text).unwrap_or_else(|| without_number(text))
        }
        other => other.to_string(),
    })
}

/// Whether it is the password of the client's key that is wrong: OpenSSL says so in riddles.
fn locked_key(config: &ClientConfig, text: &str) -> Option<String> {
    let is_key = |name: &&&str| text.starts_with(&format!("{name} failed"));
    let key = KEY.iter().find(is_key)?;
    let pem = match *key {
        "ssl.key.location" => std::fs::read_to_string(config.get(key)?).ok()?,
        _ => config.get(key)?.to_owned(),
    };
    let is_other = text.contains("key values mismatch");
    let rule = match config.get("ssl.key.password") {
        _ if is_other || !pem.contains("ENCRYPTED") => return None,
        Some(_) => format!("must be that of {key}, is <redacted>"),
        None => format!("must be set, since {key} is encrypted"),
    };
    Some(format!("kafka.properties.ssl.key.password: {rule}"))
}

/// OpenSSL's texts begin with a number: `ssl.key.location failed: error:05800074:x509 certificate routines::…`.
fn without_number(text: &str) -> String {
    match text.split_once("error:") {
        Some((what, said)) => {
            let (_, said) = said.split_once(':').unwrap_or(("", said));
            format!("{what}{}", said.replace("::", ": "))
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let mut config = ClientConfig::new();
        config.set("ssl.ca.location", "/nowhere/ca.pem");
        let error = KafkaError::ClientCreation(
            "ssl.ca.location failed: error:05880020:x509 certificate routines::BIO lib".to_owned(),
        );
        assert_eq!(
            refusal(&config, &error),
            "kafka.properties.ssl.ca.location: must be a file that can be read, is \"/nowhere/ca.pem\": No such file or directory (os error 2)"
        );
        assert_eq!(
            refusal(&ClientConfig::new(), &error),
            "ssl.ca.location failed: x509 certificate routines: BIO lib"
        );
    }

    #[test]
    fn the_system_is_trusted_where_nobody_else_is_named() {
        let trusts = |properties: &[(&str, &str)]| {
            let mut config = ClientConfig::new();
            for (name, value) in properties {
                config.set(*name, *value);
            }
            probe(&mut config);
            config.get("ssl.ca.location").map(str::to_owned)
        };
        assert_eq!(trusts(&[]), None);
        assert_eq!(
            trusts(&[("security.protocol", "SSL")]).as_deref(),
            Some("probe")
        );
        let told = [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/ca.pem"),
        ];
        assert_eq!(trusts(&told).as_deref(), Some("/ca.pem"));
    }
}
