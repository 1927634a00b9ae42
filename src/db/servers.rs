//! Where connections go: what the configuration says of it now, and why one could not be made.

use std::fs::File;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{DbError, certificate, pooler_hint};
use crate::config::{PostgresUrl, SecretFile};

/// The servers that one option names.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    url: PostgresUrl,
    /// Where the URL is from: what it holds may change.
    file: Option<SecretFile>,
    pooled: bool,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub options: PgConnectOptions,
    /// The files of certificates that its URL names, by the parameter.
    files: Vec<(String, String)>,
}

impl Servers {
    /// # Errors
    /// When the URL has a value that sqlx does not understand.
    pub fn new(
        url: &PostgresUrl,
        file: Option<&SecretFile>,
        pooled: bool,
    ) -> Result<Servers, DbError> {
        let servers = Servers {
            url: url.clone(),
            file: file.cloned(),
            pooled,
        };
        servers.of(url)?;
        Ok(servers)
    }

    /// In the order in which they are tried. The file is read for each connection: that is a few microseconds beside
    /// a handshake, and nobody has to be told when a password changes.
    ///
    /// # Errors
    /// When the file cannot be read, or what it holds is no URL.
    pub fn now(&self) -> Result<Vec<Server>, DbError> {
        match &self.file {
            None => self.of(&self.url),
            Some(file) => self.of(&file.read_url().map_err(DbError::Secret)?),
        }
    }

    /// Those whose certificate is not verified though the way to them is a network, `host` and sslmode.
    ///
    /// # Errors
    /// As [`Servers::now`].
    pub fn unverified(&self) -> Result<Vec<(String, &'static str)>, DbError> {
        let servers = self.now()?.into_iter();
        Ok(servers.filter_map(|server| server.unverified()).collect())
    }

    fn of(&self, url: &PostgresUrl) -> Result<Vec<Server>, DbError> {
        url.hosts()
            .iter()
            .map(|host| Server::new(host, self.pooled))
            .collect()
    }
}

impl Server {
    fn new(url: &PostgresUrl, pooled: bool) -> Result<Server, DbError> {
        let options = PgConnectOptions::from_str(&url.expose())
            .map_err(|source| DbError::Connect { hint: "", source })?
            .disable_statement_logging();
        Ok(Server {
            options: match pooled {
                // PgBouncer refuses `extra_float_digits` and loses named statements.
                true => options.extra_float_digits(None).statement_cache_capacity(0),
                false => options,
            },
            files: url.certificate_files(),
        })
    }

    /// Why it could not be connected to.
    pub fn failed(&self, source: sqlx::Error) -> DbError {
        if let Some(problem) = self.missing_file() {
            return DbError::Certificate { problem };
        }
        match certificate::problem(&source, self.options.get_host()) {
            Some(problem) => DbError::Certificate { problem },
            None => DbError::Connect {
                hint: pooler_hint(&source),
                source,
            },
        }
    }

    /// sqlx says of such a file only that there is none, and not which.
    fn missing_file(&self) -> Option<String> {
        self.files.iter().find_map(|(parameter, path)| {
            let error = File::open(path).err()?;
            Some(format!("{parameter}: reading {path:?}: {error}"))
        })
    }

    fn unverified(&self) -> Option<(String, &'static str)> {
        let host = self.options.get_host();
        let mode = match self.options.get_ssl_mode() {
            PgSslMode::VerifyFull => return None,
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
        };
        let is_local = self.options.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        (!is_local).then(|| (host.to_owned(), mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_beyond_this_machine_is_to_be_verified() {
        for (url, expected) in [
            ("postgres://localhost/shop", &[][..]),
            ("postgres://127.0.0.1,[::1]/shop", &[]),
            ("postgres:///shop?host=/run/postgresql", &[]),
            ("postgres://db/shop?sslmode=verify-full", &[]),
            ("postgres://db/shop", &[("db", "prefer")]),
            (
                "postgres://127.0.0.1,10.0.0.1/shop?sslmode=require",
                &[("10.0.0.1", "require")],
            ),
            (
                "postgres://db1,db2/shop?sslmode=verify-ca",
                &[("db1", "verify-ca"), ("db2", "verify-ca")],
            ),
        ] {
            let parsed = PostgresUrl::parse(url).expect("a URL");
            let servers = Servers::new(&parsed, None, false).expect("servers");
            let found = servers.unverified().expect("servers");
            let found: Vec<_> = found
                .iter()
                .map(|(host, mode)| (host.as_str(), *mode))
                .collect();
            assert_eq!(found, expected, "{url}");
        }
    }
}
