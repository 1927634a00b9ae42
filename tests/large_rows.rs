//! Rows larger than a message, a window or an index has room for.

use sqlx::{AssertSqlSafe, Row};

use crate::support::fixture::{Fixture, execute, insert};
use crate::support::services;

async fn parked(fixture: &mut Fixture, rows: i64) {
    let query = format!("select count(*) = {rows} from outboxd_parked");
    fixture.until(&query).await;
}

/// The reason that is noted for a row with this key.
async fn reason(fixture: &mut Fixture, key: &str) -> String {
    let query =
        format!("select reason from outboxd_parked where convert_from(key, 'UTF8') = '{key}'");
    let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut fixture.database);
    row.await.expect("a parked row").get(0)
}

#[tokio::test]
async fn rows_larger_than_the_window_pass_alone_and_in_order() {
    let mut fixture = Fixture::new("large_alone").await;
    let (bootstrap, topic) = (fixture.bootstrap(), &fixture.topic);
    services::alter_topic(bootstrap, topic, "max.message.bytes", "20000000").await;
    for (option, value) in [
        ("kafka.properties.message.max.bytes", "20000000"),
        ("outbox.default.window_bytes", "1MiB"),
        ("outbox.default.batch_rows", "10"),
        ("outbox.default.window_rows", "10"),
    ] {
        fixture.relay.set(option, value);
    }
    // Half of the keys have large rows alone, which the relay's producer must take as well.
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, event_version, payload) \
         select 'x', n % 2, 't', n, to_json(repeat('x', case n % 2 when 0 then 10 else 15000000 end)) \
         from generate_series(1, 8) n",
    )
    .await;
    fixture.relay.start();
    let mut last = [0, 0];
    for record in fixture.take(8).await {
        let key: usize = record
            .key
            .as_deref()
            .and_then(|key| key.parse().ok())
            .expect("a number");
        let version: i32 = record
            .header("event-version")
            .and_then(|n| n.parse().ok())
            .expect("a number");
        assert!(
            last[key] < version,
            "{version} of {key} after {}",
            last[key]
        );
        last[key] = version;
    }
    fixture.settled().await;
    fixture.relay.stop().await;
    let mut replay = fixture
        .relay
        .command(&["replay", "--all", "--allow-expired"]);
    let output = replay.output().expect("running outboxd");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fixture.take(8).await.len(), 8);
}

#[tokio::test]
async fn a_replay_leaves_out_what_has_become_too_large() {
    let mut fixture = Fixture::new("large_replay").await;
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, sent_at) values \
         ('x', 'large', 't', to_json(repeat('x', 2000000)), now()), ('x', 'k', 't', '1', now())",
    )
    .await;
    let mut replay = fixture.relay.command(&["replay", "--all", "--dry-run"]);
    let output = replay.output().expect("running outboxd");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        said.contains(
            "payload is 2000002 bytes, larger than the client's message.max.bytes (1000000)"
        ),
        "{said}"
    );
}

#[tokio::test]
async fn the_columns_of_any_table_are_asked_for_their_length() {
    let mut fixture = Fixture::bare(
        "large_mapped",
        &services::postgres_13()
            .await
            .create_database("large_mapped")
            .await
            .url,
        services::kafka().await.bootstrap(),
    )
    .await;
    execute(
        &mut fixture.database,
        "create table events (id bigserial primary key, event_id uuid not null default gen_random_uuid(), kind text, \
                              thing text, body jsonb, routing varchar, note json, sent_at timestamptz)",
    )
    .await;
    for (option, value) in [
        ("table", "events"),
        ("envelope", "raw"),
        ("on_poison", "block_key"),
        ("columns.id", "id"),
        ("columns.event_id", "event_id"),
        ("columns.aggregate_type", "kind"),
        ("columns.aggregate_id", "thing"),
        ("columns.event_type", "kind"),
        ("columns.payload", "body"),
        ("columns.partition_key", "routing"),
        ("headers.note", "{note}"),
        ("sent.column", "sent_at"),
    ] {
        fixture
            .relay
            .set(&format!("outbox.default.{option}"), value);
    }
    fixture.relay.migrate().await;
    execute(
        &mut fixture.database,
        "insert into events (kind, thing, body, routing, note) values \
         ('t', 'body', to_jsonb(repeat('x', 1000000)), null, null), \
         ('t', 'number', jsonb_build_array(1e100000, 1e100000, 1e100000, 1e100000, 1e100000, 1e100000, 1e100000, \
                                           1e100000, 1e100000, 1e100000), null, null), \
         ('t', 'note', '1', null, to_json(repeat('x', 1000000))), \
         ('t', 'fine', '1', repeat('k', 1000001), null), \
         ('t', 'fine', '2', null, '3')",
    )
    .await;
    fixture.relay.start();
    // The row whose own key is too long has another than that of its table.
    let record = fixture.next().await;
    assert_eq!(record.key.as_deref(), Some("fine"));
    assert_eq!(record.value.as_deref(), Some(b"2".as_slice()));
    assert_eq!(record.header("note"), Some("3"));
    parked(&mut fixture, 4).await;
    let limit = "larger than the client's message.max.bytes (1000000)";
    for (key, length) in [
        ("body", "payload is 1000002 bytes"),
        ("number", "payload is 1000030 bytes"),
        ("note", "column \"note\" is 1000002 bytes"),
        (
            &format!("{} ...", "k".repeat(100)),
            "partition_key is 1000001 bytes",
        ),
    ] {
        assert_eq!(
            reason(&mut fixture, key).await,
            format!("{length}, {limit}")
        );
    }
}

#[tokio::test]
async fn a_key_longer_than_an_index_takes_is_blocked_all_the_same() {
    let mut fixture = Fixture::new("large_key").await;
    fixture.relay.set("outbox.default.on_poison", "block_key");
    execute(
        &mut fixture.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
         select 'x', key, 't', payload::json \
         from (select string_agg(md5(n::text), '') as key from generate_series(1, 1000) n), \
              (values (to_json(repeat('x', 1000000))::text), ('2')) as p (payload)",
    )
    .await;
    fixture.relay.start();
    parked(&mut fixture, 1).await;
    insert(&mut fixture.database, "fine").await;
    assert_eq!(fixture.next().await.key.as_deref(), Some("fine"));
    execute(
        &mut fixture.database,
        "select outbox_dead_decide('public.outbox_events', array(select id from outboxd_parked), 'discard')",
    )
    .await;
    assert_eq!(fixture.next().await.body()["data"], 2);
    fixture.settled().await;
}
