//! What may change under a living client, looked at each second by the thread that polls it: a password, which it is
//! told, and the files of certificates and keys, which librdkafka reads once, so that another must be made of them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::producer::BaseProducer;
use rdkafka::{ClientConfig, ClientContext};

use super::Login;
use super::login::Password;
use super::tls;

/// About as often as a client tries to connect.
const LOOK: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Upkeep {
    password: Option<Password>,
    files: Option<Files>,
    outdated: Outdated,
    looked: Option<Instant>,
}

/// Since when a client is made of files that hold something else now.
#[derive(Debug, Clone, Default)]
pub(super) struct Outdated(Arc<OnceLock<Instant>>);

impl Outdated {
    pub fn since(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

impl Upkeep {
    /// Of a client that is made of this now.
    pub fn new(config: &ClientConfig, login: &Login) -> Upkeep {
        Upkeep {
            password: login.password(),
            files: Files::of(config),
            outdated: Outdated::default(),
            looked: None,
        }
    }

    #[cfg(feature = "relay")]
    pub fn outdated(&self) -> Outdated {
        self.outdated.clone()
    }

    pub fn look<C: ClientContext>(&mut self, client: &Client<C>) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        let now = Instant::now();
        self.looked = Some(now);
        if let Some(password) = &mut self.password {
            password.renew(client);
        }
        if self.outdated.since().is_none()
            && let Some(files) = &mut self.files
            && files.make_another()
        {
            // Nobody else sets it.
            let _ = self.outdated.0.set(now);
        }
    }
}

/// The files that a client is made of.
struct Files {
    config: ClientConfig,
    /// A hash of what they held.
    content: u64,
    /// The same of what no client can be made of.
    refused: Option<u64>,
}

impl Files {
    fn of(config: &ClientConfig) -> Option<Files> {
        let is_any = tls::files(config).next().is_some();
        is_any.then(|| {
            let mut config = config.clone();
            // Nobody is to be connected to by a client that is made to see whether it can be.
            config.remove("bootstrap.servers");
            Files {
                content: content(&config),
                refused: None,
                config,
            }
        })
    }

    /// They hold something else, and a client can be made of it: a key is replaced before or after its certificate,
    /// and what has just been written may be wrong.
    fn make_another(&mut self) -> bool {
        let content = content(&self.config);
        if content == self.content || Some(content) == self.refused {
            return false;
        }
        match self.config.create::<BaseProducer>() {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    error = tls::refusal(&self.config, &error),
                    "kafka's certificates have changed and cannot be used, going on with the old ones"
                );
                self.refused = Some(content);
                false
            }
        }
    }
}

fn content(config: &ClientConfig) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (_, file) in tls::files(config) {
        // One that cannot be read is as good as another content.
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

    use super::*;

    fn certified() -> CertifiedKey<KeyPair> {
        generate_simple_self_signed([]).expect("a certificate")
    }

    #[test]
    fn another_client_is_made_when_certificate_and_key_fit() {
        let name = |what| format!("outboxd-{}-{what}.pem", std::process::id());
        let path = |what| std::env::temp_dir().join(name(what));
        let write = |what, pem: String| std::fs::write(path(what), pem).expect("writing a file");
        let old = certified();
        write("certificate", old.cert.pem());
        write("key", old.signing_key.serialize_pem());
        let mut config = ClientConfig::new();
        config.set("security.protocol", "ssl");
        for what in ["certificate", "key"] {
            let property = format!("ssl.{what}.location");
            config.set(property, path(what).display().to_string());
        }
        let mut files = Files::of(&config).expect("files");
        assert!(!files.make_another(), "nothing has changed");
        let new = certified();
        write("key", new.signing_key.serialize_pem());
        assert!(!files.make_another(), "the key is of no certificate yet");
        write("certificate", new.cert.pem());
        assert!(files.make_another(), "both have changed");
        for what in ["certificate", "key"] {
            std::fs::remove_file(path(what)).expect("removing a file");
        }
        assert!(!files.make_another(), "there is nothing to make one of");
    }
}
