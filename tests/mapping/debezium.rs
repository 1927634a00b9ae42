//! The table that Debezium's outbox event router documents, with one monotonic column more.

use uuid::Uuid;

use super::fixture;
use crate::documents::page::Page;
use crate::support::command::{outboxd, succeeds};
use crate::support::fixture::{Fixture, execute, number, read_all};
use crate::support::services;

const DDL: &str = "create table outboxevent ( \
        id uuid not null primary key, \
        aggregatetype varchar(255) not null, \
        aggregateid varchar(255) not null, \
        type varchar(255) not null, \
        payload jsonb, \
        sent_at timestamptz, \
        seq bigint generated always as identity); \
     create unique index on outboxevent (seq)";

const OPTIONS: &[(&str, &str)] = &[
    ("table", "outboxevent"),
    ("columns.id", "seq"),
    ("columns.event_id", "id"),
    ("columns.aggregate_type", "aggregatetype"),
    ("columns.aggregate_id", "aggregateid"),
    ("columns.event_type", "type"),
    ("columns.payload", "payload"),
    ("sent.column", "sent_at"),
    ("envelope", "raw"),
];

async fn insert(fixture: &mut Fixture, id: Uuid, key: &str, payload: &str) {
    let sql = "insert into outboxevent (id, aggregatetype, aggregateid, type, payload) \
               values ($1, 'order', $2, 'OrderPlaced', $3::text::jsonb)";
    sqlx::query(sql)
        .bind(id)
        .bind(key)
        .bind(payload)
        .execute(&mut fixture.database)
        .await
        .expect("inserting an event");
}

/// What the guide shows in this language of that table.
fn guide(language: &str) -> String {
    let page = Page::read("docs/guide/moving.md");
    let mut blocks = page.blocks().into_iter();
    let block =
        blocks.find(|block| block.language == language && block.text.contains("outboxevent"));
    block.expect("a block").text
}

#[tokio::test]
async fn the_guide_relays_a_table_of_debeziums_shape() {
    let database = services::postgres()
        .await
        .create_database("mapping_guide")
        .await;
    let mut connection = database.connect().await;
    // As Debezium documents it.
    let documented = "create table outboxevent (id uuid not null, aggregatetype varchar(255) not null, \
         aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb)";
    execute(&mut connection, documented).await;
    let insert = "insert into outboxevent (id, aggregatetype, aggregateid, type, payload) \
         values ('0192aaaa-0000-7000-8000-00000000000N', 'AGGREGATE', 'ord_N', 'OrderPlaced', '{\"n\":N}')";
    let kafka = services::kafka().await;
    let aggregate = kafka.unique_topic("guide");
    let insert = |n: &str| insert.replace("AGGREGATE", &aggregate).replace('N', n);
    execute(&mut connection, &insert("1")).await;
    // Somebody has a transaction open meanwhile: Postgres uses no index then that is made of rows just updated.
    let mut somebody = database.connect().await;
    execute(&mut somebody, "begin; select txid_current()").await;
    execute(&mut connection, &guide("sql")).await;
    execute(&mut connection, &insert("2")).await;

    let config = format!("{}/guide.toml", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&config, guide("toml")).expect("writing the configuration");
    let common = ["--config", &config, "--postgres-url", &database.url];
    succeeds(&outboxd(&[&["migrate"], &common[..]].concat()));
    let run = [
        "run",
        "--kafka",
        kafka.bootstrap(),
        "--until-empty",
        "--timeout=60s",
        "--set=kafka.create_topics.enabled=true",
        "--set=admin.listen=off",
    ];
    succeeds(&outboxd(&[&run, &common[..]].concat()));
    let records = read_all(kafka.bootstrap(), &format!("outbox.event.{aggregate}"));
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(record.key.as_deref(), Some("ord_2"));
    assert_eq!(record.value.as_deref(), Some(&b"{\"n\": 2}"[..]));
    let id = (
        "id".to_owned(),
        "0192aaaa-0000-7000-8000-000000000002".to_owned(),
    );
    assert_eq!(record.headers, [id]);
    let unsent = "select count(*) from outboxevent where sent_at is null";
    assert_eq!(number(&mut connection, unsent).await, 0);
    let made = "select count(*) from pg_tables where schemaname = 'public' and tablename not like 'outboxd%'";
    assert_eq!(number(&mut connection, made).await, 1);
}

#[tokio::test]
async fn rows_of_a_mapped_table_that_commit_late_are_published() {
    let mut fixture = fixture("mapping_late", DDL, OPTIONS).await;
    let mut slow = fixture.connect().await;
    execute(
        &mut slow,
        "begin; insert into outboxevent (id, aggregatetype, aggregateid, type, payload) \
         values (gen_random_uuid(), 'order', 'late', 'OrderPlaced', '{}')",
    )
    .await;
    fixture.relay.start();
    insert(&mut fixture, Uuid::new_v4(), "early", "{}").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("early"));
    execute(&mut slow, "commit").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("late"));
    fixture
        .until("select count(*) = 0 from outboxevent where sent_at is null")
        .await;
}
