//! Rows that are not read: what Postgres cannot read, which is parked, and what was parked before a relay started.

use std::collections::BTreeMap;

use outboxd::local::PostgresRelease;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};

use crate::support::command::succeeds;
use crate::support::fixture::{Fixture, execute, number};
use crate::support::pgbouncer::PgBouncer;
use crate::support::services;

/// A payload that is stored outside of its row.
const LARGE: &str =
    "(select to_json(string_agg(gen_random_uuid()::text, '')) from generate_series(1, 200))";

/// Writes so many rows of four keys; the payload is SQL.
async fn write(fixture: &mut Fixture, rows: usize, payload: &str) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         select 'x', 'key-' || n % 4, 't', {payload} from generate_series(1, {rows}) n"
    );
    execute(&mut fixture.database, &sql).await;
}

/// Takes away what is stored outside of the rows, and returns these.
async fn damage(fixture: &mut Fixture) -> Vec<i64> {
    let query = "select id from outbox_events where pg_column_size(payload) > 2000 order by id";
    let rows = sqlx::query(query).fetch_all(&mut fixture.database).await;
    let storage =
        "select reltoastrelid::regclass::text from pg_class where oid = 'outbox_events'::regclass";
    let storage = sqlx::query(storage).fetch_one(&mut fixture.database).await;
    let storage: String = storage.expect("the table's storage").get(0);
    // Nobody may delete there, unless it looks like a table.
    let becomes =
        |kind| format!("update pg_class set relkind = '{kind}' where oid = '{storage}'::regclass");
    let delete = format!(
        "set allow_system_table_mods = on; {}; delete from {storage}; {}",
        becomes('r'),
        becomes('t')
    );
    execute(&mut fixture.database, &delete).await;
    rows.expect("the rows")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Ids and reasons of the parked rows.
async fn parked(fixture: &mut Fixture) -> BTreeMap<i64, String> {
    let query = "select id, reason from outboxd_parked where class = 'unreadable'";
    let rows = sqlx::query(query).fetch_all(&mut fixture.database).await;
    let rows = rows.expect("the parked rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Asserts that these rows alone are unsent in the end, and that the others came in the order of their keys.
async fn others_arrive(fixture: &mut Fixture, but: &[i64]) {
    let all = number(&mut fixture.database, "select count(*) from outbox_events").await;
    let mut last: BTreeMap<Option<String>, i64> = BTreeMap::new();
    for record in fixture
        .take(usize::try_from(all).expect("a count") - but.len())
        .await
    {
        let query = format!(
            "select id from outbox_events where event_id = '{}'",
            record.event_id()
        );
        let id = number(&mut fixture.database, &query).await;
        let before = last.insert(record.key.clone(), id);
        assert!(before < Some(id), "{id} after {before:?}");
        assert!(!but.contains(&id));
    }
    let unsent = "(select array_agg(id order by id) from outbox_events where sent_at is null)";
    fixture
        .until(&format!("select {unsent} = array{but:?}::bigint[]"))
        .await;
}

async fn decide(fixture: &mut Fixture, decision: &str, rows: &[i64]) {
    let sql = format!(
        "select outbox_dead_decide('public.outbox_events', array{rows:?}, '{decision}', 'a test')"
    );
    assert_eq!(number(&mut fixture.database, &sql).await, rows.len() as i64);
}

/// A relay on rows of which two are damaged, that stand between others; both are parked.
async fn two_of_many(fixture: &mut Fixture) -> Vec<i64> {
    write(fixture, 300, "'1'").await;
    write(fixture, 1, LARGE).await;
    write(fixture, 200, "'2'").await;
    write(fixture, 1, LARGE).await;
    let damaged = damage(fixture).await;
    write(fixture, 10, LARGE).await;
    write(fixture, 50, "'3'").await;
    fixture.relay.start();
    others_arrive(fixture, &damaged).await;
    fixture
        .until("select count(*) = 2 from outboxd_parked")
        .await;
    let parked = parked(fixture).await;
    assert_eq!(parked.keys().copied().collect::<Vec<_>>(), damaged);
    for reason in parked.values() {
        assert!(
            reason.contains("missing chunk number 0 for toast value"),
            "{reason}"
        );
    }
    damaged
}

#[tokio::test]
async fn rows_whose_storage_is_damaged_are_parked_and_the_others_flow() {
    let mut fixture = Fixture::new("damaged").await;
    fixture.relay.set("outbox.default.batch_rows", "100");
    fixture.relay.set("outbox.default.sweep_interval", "1s");
    let damaged = two_of_many(&mut fixture).await;

    // Neither a sweep nor the next relay stumbles over them. What is written below them, only a sweep finds.
    execute(
        &mut fixture.database,
        "insert into outbox_events (id, aggregate_type, aggregate_id, event_type, payload) overriding system value \
         values (-1, 'x', 'k', 't', '4')",
    )
    .await;
    assert_eq!(fixture.next().await.body()["data"], 4);
    fixture.relay.stop().await;
    fixture.relay.start();
    write(&mut fixture, 1, "'5'").await;
    assert_eq!(fixture.next().await.body()["data"], 5);
    let log = fixture.relay.log();
    let failures = log.iter().filter(|line| line.contains("reading failed"));
    assert_eq!(failures.count(), 1);

    // A person is told of it.
    let id = damaged[0].to_string();
    let show = |arguments: &[&str]| {
        let mut command = fixture.relay.command(&["dead", "show", &id]);
        succeeds(&command.args(arguments).output().expect("running outboxd"))
    };
    let shown = show(&[]);
    assert!(shown.contains("class           unreadable"), "{shown}");
    assert!(
        shown.contains("Postgres cannot read the row: missing chunk"),
        "{shown}"
    );
    let shown: Value = serde_json::from_str(&show(&["--json"])).expect("JSON");
    assert!(
        shown["row"].is_null() && shown["unreadable"].is_string(),
        "{shown}"
    );
    let mut check = fixture.relay.command(&["check", "--connect"]);
    let output = check.output().expect("running outboxd");
    let checked = String::from_utf8_lossy(&output.stdout);
    assert!(checked.contains("unreadable-rows"), "{checked}");

    // One is let go as it is, and parked again; one is mended, one given up.
    decide(&mut fixture, "retry", &damaged[..1]).await;
    fixture
        .until("select count(*) = 1 from outboxd_decisions")
        .await;
    fixture
        .until("select count(*) = 2 from outboxd_parked")
        .await;
    let mend = format!(
        "update outbox_events set payload = '6' where id = {}",
        damaged[0]
    );
    execute(&mut fixture.database, &mend).await;
    decide(&mut fixture, "retry", &damaged[..1]).await;
    assert_eq!(fixture.next().await.body()["data"], 6);
    decide(&mut fixture, "discard", &damaged[1..]).await;
    fixture.settled().await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn a_damaged_row_behind_a_pooler_is_found_as_well() {
    let options = services::postgres_options(PostgresRelease::NEWEST);
    let server = services::private_postgres(options).await;
    let pooler = PgBouncer::start(server.port()).await;
    let url = server.url("postgres");
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("damaged_pooled", &url, kafka).await;
    fixture.relay.set("postgres.url", &pooler.url("postgres"));
    fixture.relay.set("postgres.pooler", "transaction");
    fixture.relay.set("postgres.direct_url", &url);
    two_of_many(&mut fixture).await;
    fixture.relay.stop().await;
}

#[tokio::test]
async fn text_that_is_no_utf8_parks_its_row() {
    let postgres = services::postgres().await;
    let server = postgres.create_database("sql_ascii").await;
    let mut connection = server.connect().await;
    let name = format!("{}_too", server.name);
    let create = format!(
        "create database \"{name}\" encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0"
    );
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut connection)
        .await
        .expect("a database");
    let url = server.url.replace(&server.name, &name);
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::on("no_utf8", &url, kafka).await;
    write(&mut fixture, 20, "'1'").await;
    execute(
        &mut fixture.database,
        "update outbox_events set aggregate_id = E'caf\\351' where id = 7",
    )
    .await;
    fixture.relay.start();
    others_arrive(&mut fixture, &[7]).await;
    let parked = parked(&mut fixture).await;
    assert!(
        parked[&7].contains("Postgres cannot read it: invalid byte sequence"),
        "{parked:?}"
    );
    fixture.relay.stop().await;
}

#[tokio::test]
async fn what_was_parked_is_left_out_wherever_it_stands() {
    let mut fixture = Fixture::new("left_out").await;
    fixture.relay.set("outbox.default.batch_rows", "100");
    write(&mut fixture, 4_000, "'1'").await;
    // Densely at the start, every third, alone and far from the others, and the last.
    execute(
        &mut fixture.database,
        "insert into outboxd_parked (outbox, id, event_id, topic, class, reason, attempts, first_failed_at, blocks_key) \
         select 'public.outbox_events', id, event_id, 't', 'row', 'a test', 1, now(), false from outbox_events \
         where id <= 350 or id between 700 and 1300 and id % 3 = 0 or id in (3000, 4000)",
    )
    .await;
    let parked =
        sqlx::query("select id from outboxd_parked order by id").fetch_all(&mut fixture.database);
    let parked: Vec<i64> = parked
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(parked.len(), 350 + 200 + 2);
    fixture.relay.start();
    others_arrive(&mut fixture, &parked).await;
    decide(&mut fixture, "retry", &parked).await;
    fixture.settled().await;
    assert_eq!(fixture.published(), 4_000);
    fixture.relay.stop().await;
}
