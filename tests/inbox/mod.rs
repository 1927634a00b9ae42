//! The consumer's side: claims in the transaction of the effect, and forgetting them again.

mod claims;
mod helper;
mod prune;
mod roles;
mod size;
mod status;
mod topics;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::connect;
use crate::support::services::{self, PostgresServer, TestDatabase};

/// A database with the inbox's schema.
struct InboxDatabase {
    database: TestDatabase,
    pool: PgPool,
}

impl InboxDatabase {
    /// On the shared PostgreSQL of the newest release.
    async fn new(name: &str) -> InboxDatabase {
        InboxDatabase::on(services::postgres().await, name).await
    }

    async fn on(server: &PostgresServer, name: &str) -> InboxDatabase {
        let database = server.create_database(name).await;
        let migrated = outboxd(&["migrate", "--inbox", "--postgres-url", &database.url]);
        assert!(succeeds(&migrated).contains("applied inbox 1: processed_events"));
        let pool = PgPool::connect_lazy(&database.url).expect("a pool");
        InboxDatabase { database, pool }
    }

    fn url(&self) -> &str {
        &self.database.url
    }

    async fn connect(&self) -> PgConnection {
        connect(&self.database.url).await
    }
}

/// Both ends of what is supported.
async fn both() -> [(&'static str, InboxDatabase); 2] {
    [
        (
            "13",
            InboxDatabase::on(services::postgres_13().await, "inbox").await,
        ),
        ("newest", InboxDatabase::new("inbox").await),
    ]
}

/// The one text that a query answers, or the SQLSTATE of its error.
async fn text(connection: &mut PgConnection, query: &str) -> String {
    match sqlx::query(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
    {
        Ok(row) => row.get(0),
        Err(sqlx::Error::Database(error)) => error.code().expect("a SQLSTATE").into_owned(),
        Err(error) => panic!("{query}: {error}"),
    }
}

/// Claims by the SQL function, as any language would.
async fn claim(connection: &mut PgConnection, consumer: &str, id: &str) -> String {
    text(
        connection,
        &format!("select inbox_claim('{consumer}', '{id}')"),
    )
    .await
}
