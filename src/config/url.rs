//! The address of the database, with its password kept out of every message.

use std::fmt;

pub use crate::secret::REDACTED;

/// A `postgres://` URL with one or several hosts. `Debug` and `Display` redact its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    scheme: String,
    /// `user:password`, percent-encoded as it was written.
    userinfo: Option<String>,
    /// `host[:port]`, at least one; a single empty one if `?host=` names a socket.
    hosts: Vec<String>,
    /// What follows the hosts: `/database?parameters`.
    rest: String,
}

impl PostgresUrl {
    /// Reads a URL; the error is the rule it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("must not contain white space (percent-encode it)".to_owned());
        }
        let (scheme, after) = ["postgres", "postgresql"]
            .into_iter()
            .find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?.strip_prefix("://")?)))
            .ok_or("must start with postgres:// or postgresql://")?;
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        // Otherwise a password with an unencoded slash would be taken for host and path, and shown.
        if rest.contains(['@', '#']) {
            return Err("must percent-encode @, #, / and ? in names and passwords".to_owned());
        }
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo.to_owned()), hosts),
            None => (None, authority),
        };
        let url = Self {
            scheme: scheme.to_owned(),
            userinfo,
            hosts: hosts.split(',').map(str::to_owned).collect(),
            rest: rest.to_owned(),
        };
        url.check_parameters()?;
        if !(hosts.is_empty() && url.parameters().any(|(name, _)| name == "host")) {
            url.hosts.iter().try_for_each(|host| check_host(host))?;
        }
        Ok(url)
    }

    /// One URL for each host, in the order in which they are to be tried; at least one.
    pub fn hosts(&self) -> Vec<Self> {
        self.hosts
            .iter()
            .map(|host| Self {
                hosts: vec![host.clone()],
                ..self.clone()
            })
            .collect()
    }

    /// The host or hosts, `host[:port]` separated by commas: safe to log.
    pub fn address(&self) -> String {
        self.hosts.join(",")
    }

    /// The URL with its secrets, for the connection alone.
    pub fn expose(&self) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(userinfo) = &self.userinfo {
            text.push_str(userinfo);
            text.push('@');
        }
        text.push_str(&self.address());
        let (path, query) = self.rest.split_once('?').unwrap_or((&self.rest, ""));
        text.push_str(path);
        // sqlx passes over a parameter that it does not know, and logs its value.
        let known = query
            .split('&')
            .filter(|pair| implied(&parameter(pair).0).is_none());
        for (index, pair) in known.filter(|pair| !pair.is_empty()).enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(pair);
        }
        text
    }

    /// The files of certificates and keys that the parameters name, by the parameter.
    pub fn certificate_files(&self) -> Vec<(String, String)> {
        let is_inline = |value: &str| value.starts_with("-----BEGIN");
        self.parameters()
            .filter(|(name, value)| CERTIFICATES.contains(&name.as_str()) && !is_inline(value))
            .collect()
    }

    fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        let query = self.rest.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(parameter)
    }

    fn check_parameters(&self) -> Result<(), String> {
        let given = |wanted: &str| self.parameters().any(|(name, _)| name == wanted);
        for (name, value) in self.parameters() {
            if let Some(Implied { values, why, .. }) = implied(&name) {
                if !values.contains(&value.as_str()) {
                    let values = values.join(", ");
                    return Err(format!(
                        "must have a {name} of {values}, has {value:?}: {why}"
                    ));
                }
            } else if !PARAMETERS.contains(&name.as_str()) && !name.starts_with("options[") {
                let implied = IMPLIED.iter().map(|implied| implied.name);
                let known: Vec<_> = PARAMETERS.into_iter().chain(implied).collect();
                return Err(format!(
                    "must have no parameters but {}, has {name:?}",
                    known.join(", ")
                ));
            }
            if name == "sslmode" && !SSL_MODES.contains(&value.as_str()) {
                return Err(format!(
                    "must have an sslmode of {}, has {value:?}",
                    SSL_MODES.join(", ")
                ));
            }
        }
        match given("sslcert") == given("sslkey") {
            true => Ok(()),
            false => Err("must have sslcert and sslkey together".to_owned()),
        }
    }
}

/// What sqlx knows, in the spelling of libpq.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
    "application_name",
];

/// A parameter of libpq that sqlx does not know.
struct Implied {
    name: &'static str,
    /// They ask for what is so anyway.
    values: &'static [&'static str],
    /// What makes the others impossible, and what to do instead.
    why: &'static str,
}

const IMPLIED: [Implied; 2] = [
    Implied {
        name: "channel_binding",
        values: &["disable", "prefer"],
        why: "there is none, leave it out and be sure of the server by sslmode=verify-full",
    },
    Implied {
        name: "target_session_attrs",
        values: &["any", "read-write", "primary"],
        why: "outboxd writes, and leaves a server in recovery again",
    },
];

fn implied(name: &str) -> Option<&'static Implied> {
    IMPLIED.iter().find(|implied| implied.name == name)
}

const CERTIFICATES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Name and value.
fn parameter(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (decoded(name), decoded(value))
}

/// The text that a part of the parameters stands for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (byte, after) = match escaped {
            Some(byte) => (byte, &after[2..]),
            None if first == b'+' => (b' ', after),
            None => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn check_host(host: &str) -> Result<(), String> {
    let rule = || "must name its hosts as host or host:port, separated by commas".to_owned();
    let port = match host.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) = bracketed.split_once(']').ok_or_else(rule)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| rule())?;
            match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(rule)?),
            }
        }
        None => {
            let (name, port) = match host.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, None),
            };
            let legal =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._%".contains(&byte) || byte >= 0x80;
            if name.is_empty() || !name.bytes().all(legal) {
                return Err(rule());
            }
            port
        }
    };
    port.is_none_or(is_port).then_some(()).ok_or_else(rule)
}

/// Whether this is a TCP port that can be connected to, 1 to 65535.
pub(super) fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match self
            .userinfo
            .as_deref()
            .map(|userinfo| userinfo.split_once(':'))
        {
            Some(Some((user, _))) => write!(f, "{user}:{REDACTED}@")?,
            Some(None) => write!(f, "{}@", self.userinfo.as_deref().unwrap_or_default())?,
            None => {}
        }
        let path = self.rest.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.address())?;
        let Some((_, query)) = self.rest.split_once('?') else {
            return Ok(());
        };
        for (index, pair) in query.split('&').enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((name, value)) if may_be_secret(name) || value.starts_with("-----") => {
                    write!(f, "{name}={REDACTED}")?;
                }
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

/// A name may itself be percent-encoded (`p%61ssword`): then its value is hidden to be safe.
fn may_be_secret(parameter: &str) -> bool {
    let name = parameter.to_ascii_lowercase();
    name.contains("pass") || name.contains("secret") || name.contains('%')
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}
