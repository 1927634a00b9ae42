//! The schema: what `outboxd migrate` makes, what an application may do with it, what `run` says of one
//! that does not fit.

use std::process::Output;

use outboxd::local::{LocalPostgres, PostgresRelease};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::{Fixture, boolean, connect, execute, insert, number};
use crate::support::services;

fn migrate(url: &str, more: &[&str]) -> Output {
    outboxd(&[&["migrate", "--postgres-url", url], more].concat())
}

async fn refused(connection: &mut PgConnection, sql: &str) -> String {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let error = sqlx::raw_sql(sql)
        .execute(connection)
        .await
        .expect_err("it is refused");
    error.to_string()
}

#[tokio::test]
async fn every_supported_release_takes_the_migrations_and_a_plain_insert() {
    use PostgresRelease::{V13, V14, V15, V16, V17, V18};
    for release in [V13, V14, V15, V16, V17, V18] {
        let server: LocalPostgres =
            services::private_postgres(services::postgres_options(release)).await;
        let url = server.url("postgres");
        assert!(succeeds(&migrate(&url, &[])).contains("applied outbox public.outbox_events 1"));
        let mut database = connect(&url).await;
        insert(&mut database, "ord_1").await;
        let row = "select uuid_extract_version(event_id) = 7 and event_version = '1' and sent_at is null \
                   and abs(extract(epoch from created_at - clock_timestamp())) < 60 from outbox_events";
        let row = match release {
            // The function came with 17; the version is the 13th digit.
            V13 | V14 | V15 | V16 => row.replace(
                "uuid_extract_version(event_id) = 7",
                "substr(event_id::text, 15, 1) = '7'",
            ),
            V17 | V18 => row.to_owned(),
        };
        assert!(boolean(&mut database, &row).await, "{release:?}");
        assert!(succeeds(&migrate(&url, &[])).contains("up to date"));
    }
}

#[tokio::test]
async fn ids_of_events_ascend_with_time() {
    let fixture = Fixture::new("uuidv7").await;
    let mut database = fixture.connect().await;
    for _ in 0..20 {
        insert(&mut database, "k").await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let ordered =
        "select array_agg(id order by event_id) = array_agg(id order by id) from outbox_events";
    assert!(boolean(&mut database, ordered).await);
}

#[tokio::test]
async fn programs_can_read_which_steps_were_missing() {
    let postgres = services::postgres().await;
    let database = postgres.create_database("migrate_json").await;
    let migrate = |more: &[&str]| -> Value {
        let arguments = [&["--json"], more].concat();
        serde_json::from_str(&succeeds(&migrate(&database.url, &arguments))).expect("JSON")
    };
    let applied = migrate(&["--trace-index"]);
    let applied = applied["applied"].as_array().expect("a list");
    let leases = json!({"component": "relay", "version": 1, "name": "leases"});
    assert_eq!(applied[0], leases);
    let outbox = "outbox public.outbox_events";
    let index = json!({"component": outbox, "version": null, "name": "the index for traces"});
    assert_eq!(applied.last(), Some(&index));
    assert_eq!(migrate(&["--trace-index"]), json!({"applied": []}));
}

#[tokio::test]
async fn two_migrations_at_once_are_safe() {
    let database = services::postgres()
        .await
        .create_database("migrate_twice")
        .await;
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let url = database.url.clone();
            tokio::task::spawn_blocking(move || migrate(&url, &[]))
        })
        .collect();
    for run in runs {
        succeeds(&run.await.expect("a migration"));
    }
    let mut connection = database.connect().await;
    let once = "select every(steps = last) and count(*) = 2 from (\
                    select count(*) as steps, max(version) as last from outboxd_migrations group by component) c";
    assert!(boolean(&mut connection, once).await);
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_schema_with_least_privileges() {
    let server =
        services::private_postgres(services::postgres_options(PostgresRelease::NEWEST)).await;
    let url = server.url("postgres");
    let mut admin = connect(&url).await;
    execute(&mut admin, "create role relay login; create role app login").await;
    execute(&mut admin, "create database plain").await;
    let sql = succeeds(&outboxd(&[
        "migrate",
        "--print",
        "--relay-role",
        "relay",
        "--app-role",
        "app",
    ]));
    let plain = server.url("plain");
    execute(&mut connect(&plain).await, &sql).await;
    assert!(succeeds(&migrate(&plain, &[])).contains("up to date"));

    let as_role = |role: &str| plain.replace("postgres@", &format!("{role}@"));
    let mut app = connect(&as_role("app")).await;
    execute(
        &mut app,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) values ('a', 'b', 'c', '{}'); \
         select outbox_append('a', 'b', 'c', '{}')",
    )
    .await;
    for sql in [
        "select * from outbox_events",
        "update outbox_events set sent_at = now()",
        "delete from outbox_events",
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, sent_at) values ('a', 'b', 'c', now())",
        "select * from outboxd_leases",
    ] {
        assert!(
            refused(&mut app, sql).await.contains("permission denied"),
            "{sql}"
        );
    }

    let kafka = services::kafka().await.bootstrap();
    let run = outboxd(&[
        "run",
        "--postgres-url",
        &as_role("relay"),
        "--kafka",
        kafka,
        "--until-empty",
        "--timeout",
        "60s",
        "--set",
        "kafka.create_topics.enabled=true",
        "--set",
        "admin.listen=off",
        "--set",
        "outbox.default.topic=printed-sql",
        "--set",
        "outbox.default.on_sent=delete",
    ]);
    succeeds(&run);
    let mut owner = connect(&plain).await;
    assert_eq!(
        number(&mut owner, "select count(*) from outbox_events").await,
        0
    );
    let mut relay = connect(&as_role("relay")).await;
    for sql in [
        "insert into outbox_events (aggregate_type, aggregate_id, event_type) values ('a', 'b', 'c')",
        "update outbox_events set payload = '{}'",
    ] {
        assert!(
            refused(&mut relay, sql).await.contains("permission denied"),
            "{sql}"
        );
    }
}

#[tokio::test]
async fn contradictory_rows_are_refused_in_words() {
    let fixture = Fixture::new("constraints").await;
    let mut database = fixture.connect().await;
    let cases = [
        (
            "payload, payload_bytes",
            "'{}', 'x'",
            "give payload or payload_bytes, not both",
        ),
        ("topic", "''", "topic must be 1 to 249 of a-z A-Z 0-9 . _ -"),
        (
            "topic",
            "'no spaces'",
            "topic must be 1 to 249 of a-z A-Z 0-9 . _ -",
        ),
        ("event_version", "''", "event_version must not be empty"),
        (
            "headers",
            "'[]'",
            "headers must be a flat object of strings, no reserved names",
        ),
        (
            "headers",
            "'{\"a\": 1}'",
            "headers must be a flat object of strings, no reserved names",
        ),
        (
            "headers",
            "'{\"event-id\": \"x\"}'",
            "headers must be a flat object of strings, no reserved names",
        ),
        ("created_at", "'infinity'", "created_at must be finite"),
        (
            "id",
            "1",
            "cannot insert a non-DEFAULT value into column \"id\"",
        ),
        ("payload", "'{'", "invalid input syntax for type json"),
    ];
    for (columns, values, message) in cases {
        let sql = format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, {columns}) values ('a', 'b', 'c', {values})"
        );
        let error = refused(&mut database, &sql).await;
        assert!(error.contains(message), "{sql}: {error}");
    }
    for (column, message) in [
        ("aggregate_type", "aggregate_type must not be empty"),
        ("event_type", "event_type must not be empty"),
    ] {
        let value = |name: &str| if name == column { "''" } else { "'x'" };
        let sql = format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type) values ({}, 'b', {})",
            value("aggregate_type"),
            value("event_type")
        );
        assert!(refused(&mut database, &sql).await.contains(message));
    }
}

#[tokio::test]
async fn outbox_append_takes_the_lock_of_its_key_before_it_draws_the_id() {
    let fixture = Fixture::new("append").await;
    let mut first = fixture.connect().await;
    let mut second = fixture.connect().await;
    execute(
        &mut first,
        "begin; select outbox_append('order', 'ord_1', 'order.placed', '{}')",
    )
    .await;
    // Another key does not wait, the same key does.
    execute(
        &mut second,
        "set lock_timeout = '300ms'; select outbox_append('order', 'ord_2', 'order.placed')",
    )
    .await;
    let waited = refused(
        &mut second,
        "select outbox_append('order', 'ord_1', 'order.placed')",
    )
    .await;
    assert!(waited.contains("lock timeout"), "{waited}");
    let lock = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1869968482 \
                and objid::bigint = hashtext('ord_1')::bigint & 4294967295 and objsubid = 2 \
                and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(number(&mut second, lock).await, 1);
    let drawn = "select last_value from outbox_events_id_seq";
    assert_eq!(
        number(&mut second, drawn).await,
        2,
        "who waited has drawn nothing"
    );
    execute(&mut first, "commit").await;
    execute(
        &mut second,
        "select outbox_append('order', 'ord_1', 'order.paid', headers => '{\"a\": \"b\"}')",
    )
    .await;
    let rows = "select count(*) from outbox_events where aggregate_id = 'ord_1'";
    assert_eq!(number(&mut second, rows).await, 2);
}

#[tokio::test]
async fn a_migration_gives_up_rather_than_queue_behind_the_application() {
    let fixture = Fixture::new("lock_timeout").await;
    let mut application = fixture.connect().await;
    execute(&mut application, "begin").await;
    insert(&mut application, "k").await;
    // The trigger of `notify` needs a lock that conflicts with inserts.
    let output = migrate(&fixture.url, &["--set", "outbox.default.notify=true"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("lock timeout"), "{error}");
    execute(&mut application, "commit").await;
    succeeds(&migrate(
        &fixture.url,
        &["--set", "outbox.default.notify=true"],
    ));
}

#[tokio::test]
async fn an_older_schema_is_a_clear_error_and_a_newer_compatible_one_runs() {
    let database = services::postgres().await.create_database("versions").await;
    let kafka = services::kafka().await.bootstrap().to_owned();
    let run = |url: &str| {
        let arguments = [
            "run",
            "--postgres-url",
            url,
            "--kafka",
            &kafka,
            "--until-empty",
            "--set",
            "admin.listen=off",
            "--set",
            "log.format=human",
        ];
        let output = outboxd(&arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, error) = run(&database.url);
    assert_eq!(status, Some(78), "{error}");
    assert!(error.contains("run outboxd migrate"), "{error}");
    succeeds(&migrate(&database.url, &[]));
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "insert into outboxd_migrations (component, version, name, compatible_with) \
         values ('outbox public.outbox_events', 2, 'from the future', 1)",
    )
    .await;
    assert_eq!(
        run(&database.url).0,
        Some(0),
        "newer, but marked compatible"
    );
    execute(
        &mut connection,
        "update outboxd_migrations set compatible_with = 2 where version = 2",
    )
    .await;
    let (status, error) = run(&database.url);
    assert_eq!(status, Some(78));
    assert!(error.contains("upgrade outboxd"), "{error}");
    execute(
        &mut connection,
        "delete from outboxd_migrations where component like 'outbox%'",
    )
    .await;
    let (status, error) = run(&database.url);
    assert_eq!(status, Some(78));
    assert!(
        error.contains("must be at version 1, is 0: run outboxd migrate"),
        "{error}"
    );
}

#[tokio::test]
async fn several_outboxes_have_tables_and_schemas_of_their_own() {
    let database = services::postgres().await.create_database("several").await;
    let options = [
        "--set",
        "outbox.orders.table=orders_outbox",
        "--set",
        "outbox.billing.table=billing.events",
        "--set",
        "postgres.schema=relay",
    ];
    succeeds(&migrate(&database.url, &options));
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "select relay.orders_outbox_append('order', 'o', 'placed')",
    )
    .await;
    execute(
        &mut connection,
        "select billing.events_append('invoice', 'i', 'sent')",
    )
    .await;
    let kafka = services::kafka().await.bootstrap();
    let topic = services::kafka().await.unique_topic("several");
    let topics = [
        format!("outbox.orders.topic={topic}"),
        format!("outbox.billing.topic={topic}"),
    ];
    let mut arguments = vec![
        "run",
        "--postgres-url",
        &database.url,
        "--kafka",
        kafka,
        "--until-empty",
        "--timeout",
        "60s",
        "--set",
        "admin.listen=off",
        "--set",
        "kafka.create_topics.enabled=true",
        "--set",
        &topics[0],
        "--set",
        &topics[1],
    ];
    arguments.extend(options);
    succeeds(&outboxd(&arguments));
    for table in ["relay.orders_outbox", "billing.events"] {
        let unsent = format!("select count(*) from {table} where sent_at is null");
        assert_eq!(number(&mut connection, &unsent).await, 0);
    }
    let leases: Vec<String> = sqlx::query("select outbox from relay.outboxd_leases order by 1")
        .fetch_all(&mut connection)
        .await
        .expect("the leases")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(leases, ["billing.events", "relay.orders_outbox"]);
    connection.close().await.expect("closing");
}
