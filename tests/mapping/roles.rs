//! What `outboxd migrate` makes beside a table of somebody else, and what the relay's role needs on it.

use outboxd::local::PostgresRelease;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::{connect, execute, number};
use crate::support::services;

const DDL: &str = "create schema \"Sales\"; \
     create table \"Sales\".\"OutboxEvent\" ( \
        \"Seq\" bigserial primary key, id uuid not null, key text, payload json, \"Sent\" timestamptz); \
     insert into \"Sales\".\"OutboxEvent\" (id, key, payload) \
     select gen_random_uuid(), 'k', '{}' from generate_series(1, 3)";

/// All that the catalogue says of the table but for the privileges.
const CATALOGUE: &str = "select (select (to_jsonb(c) - 'relacl')::text from pg_class c where c.oid = t) \
        || (select string_agg((to_jsonb(a) - 'attacl')::text, '' order by attnum) from pg_attribute a where attrelid = t) \
        || (select count(*) from pg_trigger where tgrelid = t)::text \
     from (select '\"Sales\".\"OutboxEvent\"'::regclass) as one (t)";

async fn text(connection: &mut PgConnection, sql: &str) -> String {
    let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(connection);
    row.await.expect("an answer").get(0)
}

#[tokio::test]
async fn a_mapped_table_is_granted_and_else_never_touched() {
    let server =
        services::private_postgres(services::postgres_options(PostgresRelease::NEWEST)).await;
    let url = server.url("postgres");
    let as_relay = url.replace("postgres@", "relay@");
    let mut owner = connect(&url).await;
    execute(&mut owner, "create role relay login").await;
    execute(&mut owner, DDL).await;
    let kafka = services::kafka().await;
    let topic = format!("outbox.o.topic={}", kafka.unique_topic("roles"));
    let options = [
        "--set=outbox.o.table=\"Sales\".\"OutboxEvent\"",
        "--set=outbox.o.columns.id=Seq",
        "--set=outbox.o.columns.event_id=id",
        "--set=outbox.o.columns.partition_key=key",
        "--set=outbox.o.columns.payload=payload",
        "--set=outbox.o.sent.column=Sent",
        "--set=outbox.o.envelope=raw",
        "--set=postgres.schema=relay",
        "--set=kafka.create_topics.enabled=true",
        "--set=admin.listen=off",
        "--set=log.format=human",
        "--set",
        &topic,
    ];
    let run = || {
        let fixed = [
            "run",
            "--postgres-url",
            &as_relay,
            "--until-empty",
            "--kafka",
        ];
        outboxd(&[&fixed[..], &[kafka.bootstrap()], &options].concat())
    };
    let refusal = || {
        let output = run();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().last().unwrap_or_default().to_owned()
    };

    let before = text(&mut owner, CATALOGUE).await;
    succeeds(&outboxd(
        &[&["migrate", "--postgres-url", &url], &options[..]].concat(),
    ));
    execute(
        &mut owner,
        "grant usage on schema relay to relay; \
         grant select on all tables in schema relay to relay",
    )
    .await;
    assert_eq!(
        refusal(),
        "outboxd: outbox \"o\": table \"Sales\".\"OutboxEvent\": role \"relay\" needs the privilege USAGE on schema \"Sales\"; \
         role \"relay\" needs the privilege \
         SELECT (\"Seq\", id, key, payload, \"Sent\"); \
         role \"relay\" needs the privilege UPDATE (\"Sent\"); \
         role \"relay\" needs the privilege SELECT on sequence \"Sales\".\"OutboxEvent_Seq_seq\""
    );

    let printed = ["migrate", "--print", "--relay-role", "relay"];
    let sql = succeeds(&outboxd(&[&printed[..], &options].concat()));
    let grants = sql.split_once("-- The relay's role.").expect("grants").1;
    execute(&mut owner, grants.trim_end().trim_end_matches("commit;")).await;
    let on_table = "grant select, update (\"Sent\") on \"Sales\".\"OutboxEvent\" to \"relay\";";
    assert!(grants.contains(on_table), "{grants}");

    execute(
        &mut owner,
        "alter table \"Sales\".\"OutboxEvent\" enable row level security",
    )
    .await;
    assert_eq!(
        refusal(),
        "outboxd: outbox \"o\": table \"Sales\".\"OutboxEvent\": row level security may hide rows from role \
         \"relay\": give it BYPASSRLS, or policies using (true)"
    );
    execute(
        &mut owner,
        "create policy relay on \"Sales\".\"OutboxEvent\" to relay using (true)",
    )
    .await;
    succeeds(&run());
    let unsent = "select count(*) from \"Sales\".\"OutboxEvent\" where \"Sent\" is null";
    assert_eq!(number(&mut owner, unsent).await, 0);

    execute(
        &mut owner,
        "drop policy relay on \"Sales\".\"OutboxEvent\"; \
         alter table \"Sales\".\"OutboxEvent\" disable row level security",
    )
    .await;
    let tables = "select count(*) from pg_tables where tableowner = 'postgres' \
                  and schemaname not in ('pg_catalog', 'information_schema', 'relay')";
    assert_eq!(number(&mut owner, tables).await, 1, "the table itself");
    let masked = |text: String| text.replace("\"relhastriggers\": true", "");
    let after = text(&mut owner, CATALOGUE).await;
    assert_eq!(masked(after), masked(before));
}
