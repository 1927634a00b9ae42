//! What is printed is what is applied, and nobody may do more than they need.

use outboxd::inbox::{Claim, ConsumerName, EventId, Inbox};
use outboxd::local::PostgresRelease;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{claim, outboxd, succeeds, text};
use crate::support::fixture::{connect, execute};
use crate::support::services;

#[tokio::test]
async fn the_printed_sql_makes_the_same_inbox_with_least_privileges() {
    for release in [PostgresRelease::OLDEST, PostgresRelease::NEWEST] {
        let server = services::private_postgres(services::postgres_options(release)).await;
        let url = server.url("postgres");
        let mut owner = connect(&url).await;
        let roles = "create role outboxd_consumer login; create role outboxd_maintenance login";
        execute(&mut owner, roles).await;
        let sql = succeeds(&outboxd(&["migrate", "--inbox", "--print"]));
        execute(&mut owner, &sql).await;
        let migrated = outboxd(&["migrate", "--inbox", "--postgres-url", &url]);
        assert!(succeeds(&migrated).contains("up to date"));

        let as_role = |role: &str| url.replace("postgres@", &format!("{role}@"));
        let mut consumer = connect(&as_role("outboxd_consumer")).await;
        assert_eq!(claim(&mut consumer, "billing", "e1").await, "new");
        assert_eq!(claim(&mut consumer, "billing", "e1").await, "duplicate");
        execute(
            &mut owner,
            "update processed_events set outcome = 'redriven'",
        )
        .await;
        let inbox = Inbox::new(ConsumerName::new("billing").expect("a name"));
        let mut tx = consumer.begin().await.expect("a transaction");
        let event = EventId::text("e1").expect("an id").into();
        let claims = inbox.claim_batch(&mut tx, &[event]).await.expect("claims");
        assert_eq!(claims, [Claim::New]);
        tx.commit().await.expect("committed");
        for sql in [
            "delete from processed_events",
            "truncate processed_events",
            "update processed_events set event_id = 'x'",
            "insert into processed_consumers values ('billing', now())",
            "delete from processed_consumers",
        ] {
            refused(&mut consumer, sql).await;
        }

        let age = "update processed_events set processed_at = now() - interval '20 days'";
        execute(&mut owner, age).await;
        let maintenance = as_role("outboxd_maintenance");
        let prune = ["inbox", "prune", "--postgres-url", &maintenance];
        // It sees the transactions of others, though it may not see what they do.
        execute(&mut owner, "begin; select 1").await;
        let waiting = outboxd(&[&prune[..], &["--wait", "100ms"]].concat());
        assert_eq!(waiting.status.code(), Some(75), "{release:?}");
        execute(&mut owner, "commit").await;
        assert_eq!(succeeds(&outboxd(&prune)), "billing: forgot 1 ids\n");
        let status = outboxd(&["inbox", "status", "--postgres-url", &maintenance]);
        assert!(succeeds(&status).starts_with("billing\n  remembered        0\n"));
        let mut maintainer = connect(&maintenance).await;
        for sql in [
            "truncate processed_events",
            "update processed_events set event_id = 'x'",
            "delete from processed_consumers",
        ] {
            refused(&mut maintainer, sql).await;
        }
        let missing = outboxd(&[
            "inbox",
            "status",
            "--postgres-url",
            &server.url("template1"),
        ]);
        assert_eq!(missing.status.code(), Some(78));
        let error = String::from_utf8_lossy(&missing.stderr);
        assert!(error.contains("run outboxd migrate --inbox"), "{error}");
    }
}

async fn refused(connection: &mut PgConnection, sql: &str) {
    let refused = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut *connection)
        .await;
    let error = refused.expect_err("it is refused").to_string();
    assert!(error.contains("permission denied"), "{sql}: {error}");
}

#[tokio::test]
async fn the_inbox_lies_in_the_configured_schema_beside_an_outbox() {
    let database = services::postgres()
        .await
        .create_database("inbox_beside")
        .await;
    let schema = [
        "--postgres-url",
        &database.url,
        "--set",
        "postgres.schema=events",
    ];
    succeeds(&outboxd(&[&["migrate"], &schema[..]].concat()));
    let migrated = succeeds(&outboxd(&[&["migrate", "--inbox"], &schema[..]].concat()));
    assert_eq!(migrated, "applied inbox 1: processed_events\n");
    let mut connection = database.connect().await;
    // Whatever the search path of the caller.
    let claimed = text(&mut connection, "select events.inbox_claim('c', 'e1')").await;
    assert_eq!(claimed, "new");
    let status = succeeds(&outboxd(&[&["inbox", "status"], &schema[..]].concat()));
    assert!(
        status.starts_with("c\n  remembered        1\n  dead-lettered     0\n"),
        "{status}"
    );
}
