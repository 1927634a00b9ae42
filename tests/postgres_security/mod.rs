//! Postgres with TLS, certificates and passwords that change.

mod certificates;
mod planted;
mod rotation;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use outboxd::local::{LocalPostgres, PostgresRelease, StopMode};
use sqlx::PgConnection;

use crate::support::certificates::{Authority, Certified};
use crate::support::fixture::{Fixture, connect, execute};
use crate::support::services::{self, postgres_options};

/// A Postgres that takes roles over TLS alone: `certified`, a superuser, by a certificate of its authority, all others
/// by their password. The tests' own connections are trusted.
struct Secured {
    server: LocalPostgres,
    data: PathBuf,
    authority: Authority,
}

const RULES: &str = "\
host    all postgres  127.0.0.1/32 trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all       127.0.0.1/32 scram-sha-256
";

impl Secured {
    /// With a certificate for `localhost`.
    async fn start() -> Secured {
        let server = services::private_postgres(postgres_options(PostgresRelease::NEWEST)).await;
        let mut owner = connect(&server.url("postgres")).await;
        execute(&mut owner, "create role certified login superuser").await;
        execute(&mut owner, "alter system set ssl = on").await;
        execute(&mut owner, "alter system set ssl_ca_file = 'ca.pem'").await;
        let query = sqlx::query_scalar("select current_setting('data_directory')");
        let data: String = query.fetch_one(&mut owner).await.expect("its directory");
        drop(owner);
        let authority = Authority::new("postgres-authority");
        let mut secured = Secured {
            server,
            data: data.into(),
            authority,
        };
        secured.write("pg_hba.conf", RULES);
        let ca = std::fs::read_to_string(secured.authority.ca()).expect("the authority");
        secured.write("ca.pem", &ca);
        let valid = secured.authority.certify("server", &["localhost"]);
        secured.show(&valid).await;
        secured
    }

    /// Restarts it with this certificate.
    async fn show(&mut self, certified: &Certified) {
        for (name, from) in [
            ("server.crt", &certified.certificate),
            ("server.key", &certified.key),
        ] {
            let content = std::fs::read_to_string(from).expect("a certificate");
            self.write(name, &content);
        }
        let restarted = self.server.restart(StopMode::Fast).await;
        restarted.expect("restarting Postgres");
    }

    /// A file that the server alone may read, or it refuses to take a key from it.
    fn write(&self, name: &str, content: &str) {
        let path = self.data.join(name);
        std::fs::write(&path, content).expect("writing for Postgres");
        let owner = std::fs::metadata(&self.data).expect("its directory");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("giving it to Postgres");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("hiding it from others");
    }

    /// As `user`, with these parameters.
    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let port = self.server.port();
        format!("postgres://{user}@{host}:{port}/postgres?{parameters}")
    }

    /// As [`url`](Self::url), to `localhost`, which is verified.
    fn verified(&self, user: &str) -> String {
        let parameters = format!("sslmode=verify-full&sslrootcert={}", self.authority.ca());
        self.url(user, "localhost", &parameters)
    }

    /// As `certified`, with a certificate.
    fn certified(&self, certified: &Certified) -> String {
        let Certified {
            certificate, key, ..
        } = certified;
        format!(
            "{}&sslcert={certificate}&sslkey={key}",
            self.verified("certified")
        )
    }

    async fn owner(&self) -> PgConnection {
        connect(&self.server.url("postgres")).await
    }

    /// A migrated outbox, and a relay that is not started yet.
    async fn fixture(&self, name: &'static str) -> Fixture {
        let kafka = services::kafka().await;
        Fixture::on(name, &self.server.url("postgres"), kafka.bootstrap()).await
    }
}
