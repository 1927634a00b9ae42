//! How the client is to connect and to log in: what its security properties need of each other. librdkafka passes over
//! those that do not take part, and would connect without encryption, or without logging in.

use std::collections::BTreeMap;

use super::{
    error::ConfigError,
    read::{Report, join},
    words::one_of,
};

const PROTOCOL: &str = "security.protocol";
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

const MECHANISM: &str = "sasl.mechanism";
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", TOKENS];

/// The mechanism that takes tokens.
pub(super) const TOKENS: &str = "OAUTHBEARER";

/// A client's certificate and its key, each in two forms.
const CERTIFICATE: [&str; 2] = ["ssl.certificate.location", "ssl.certificate.pem"];
const KEY: [&str; 2] = ["ssl.key.location", "ssl.key.pem"];

/// Checks `[kafka.properties]`, whose path is given.
pub(super) fn check(report: &mut Report, path: &str, properties: &BTreeMap<String, String>) {
    let mut rules = Rules {
        report,
        path,
        properties,
    };
    let Some(protocol) = rules.protocol() else {
        return;
    };
    if protocol.ends_with("ssl") {
        rules.pair(&CERTIFICATE, &KEY);
        rules.pair(&KEY, &CERTIFICATE);
    } else {
        rules.without_effect("ssl.", &protocol, "ssl");
    }
    if protocol.starts_with("sasl") {
        rules.login();
    } else {
        rules.without_effect("sasl.", &protocol, "sasl_ssl");
    }
}

struct Rules<'r, 'f> {
    report: &'r mut Report<'f>,
    path: &'r str,
    properties: &'r BTreeMap<String, String>,
}

impl Rules<'_, '_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    fn is_set(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    fn refuse(&mut self, name: &str, rule: impl Into<String>, value: &str) {
        let field = join(self.path, name);
        self.report.refuse(field, rule, format!("{value:?}"));
    }

    fn missing(&mut self, name: &str, how: String) {
        let field = join(self.path, name);
        self.report.errors.push(ConfigError::Missing { field, how });
    }

    fn protocol(&mut self) -> Option<String> {
        let value = self.get(PROTOCOL).unwrap_or("plaintext").to_owned();
        let protocol = value.to_ascii_lowercase();
        if PROTOCOLS.contains(&&*protocol) {
            return Some(protocol);
        }
        self.refuse(PROTOCOL, one_of(&PROTOCOLS), &value);
        None
    }

    /// Refuses what the protocol has no use for.
    fn without_effect(&mut self, family: &str, protocol: &str, wanted: &str) {
        let names = self.properties.keys();
        for name in names.filter(|name| name.starts_with(family)) {
            let conflict =
                format!("has no effect with {PROTOCOL} {protocol:?} (did you mean {wanted:?}?)");
            self.report.errors.push(ConfigError::Contradictory {
                field: join(self.path, name),
                conflict,
            });
        }
    }

    /// Of two things that are nothing without each other.
    fn pair(&mut self, given: &[&str], needed: &[&str]) {
        if let Some(name) = given.iter().find(|name| self.is_set(&[name]))
            && !self.is_set(needed)
        {
            self.missing(needed[0], format!("{name} is"));
        }
    }

    fn login(&mut self) {
        let mechanism = self.get(MECHANISM).or(self.get("sasl.mechanisms"));
        let Some(mechanism) = mechanism.map(str::to_owned) else {
            let protocol = self.get(PROTOCOL).unwrap_or_default();
            let how = format!("{PROTOCOL} is {protocol:?}; it {}", one_of(&MECHANISMS));
            return self.missing(MECHANISM, how);
        };
        if !MECHANISMS.contains(&&*mechanism) {
            let rule = one_of(&MECHANISMS);
            let rule = match mechanism.to_ascii_uppercase().as_str() {
                "GSSAPI" => format!("{rule} (Kerberos is not built)"),
                "AWS_MSK_IAM" => format!("{rule} (the IAM mechanism of AWS is not built)"),
                _ => rule,
            };
            return self.refuse(MECHANISM, rule, &mechanism);
        }
        for name in ["sasl.username", "sasl.password"] {
            if mechanism == TOKENS {
                if self.get(name).is_some() {
                    let conflict = format!("has no effect with {MECHANISM} {mechanism:?}");
                    let field = join(self.path, name);
                    self.report
                        .errors
                        .push(ConfigError::Contradictory { field, conflict });
                }
            } else if self.get(name).is_none_or(str::is_empty) {
                self.missing(name, format!("{MECHANISM} is {mechanism:?}"));
            }
        }
    }
}
