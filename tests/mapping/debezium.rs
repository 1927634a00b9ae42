//! The table that Debezium's outbox event router documents, with one monotonic column more.

use uuid::Uuid;

use super::fixture;
use crate::support::fixture::{Fixture, execute, number};

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

#[tokio::test]
async fn a_table_of_debeziums_shape_is_relayed_and_marked_as_it_is() {
    let mut fixture = fixture("mapping_debezium", DDL, OPTIONS).await;
    let ids: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    for (index, id) in ids.iter().enumerate() {
        insert(
            &mut fixture,
            *id,
            &format!("ord_{}", index % 5),
            "{\"a\":1}",
        )
        .await;
    }
    fixture.relay.start();
    let records = fixture.take(ids.len()).await;
    // In the order of their keys.
    for key in 0..5 {
        let key = format!("ord_{key}");
        let of_key = records
            .iter()
            .filter(|record| record.key.as_deref() == Some(&key));
        let found: Vec<_> = of_key
            .map(|record| record.header("id").expect("an id"))
            .collect();
        let of_key = |index: &usize| format!("ord_{}", index % 5) == key;
        let expected: Vec<_> = (0..ids.len())
            .filter(of_key)
            .map(|index| ids[index].to_string())
            .collect();
        assert_eq!(found, expected);
    }
    for record in &records {
        assert_eq!(record.value.as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(record.headers.len(), 1);
    }
    fixture
        .until("select count(*) = 0 from outboxevent where sent_at is null")
        .await;
    let made = "select count(*) from pg_class where relname like 'outbox%' and relkind = 'r'";
    // The table beside the relay's own.
    assert_eq!(number(&mut fixture.database, made).await, 5);
    fixture.relay.stop().await;
    assert_eq!(fixture.published(), 50);
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
