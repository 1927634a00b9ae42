//! Where an event goes, with which key, and what else it carries: from columns and from the configuration.

use serde_json::json;

use crate::support::fixture::{Fixture, PATIENCE, execute, read_all};
use crate::support::services;

/// A column of the application's own in outboxd's table.
const TENANT: &str = "alter table outbox_events add column tenant_id int";

async fn insert(fixture: &mut Fixture, columns: &str, values: &str) {
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, payload, {columns}) \
         values ('order', 'ord_1', '{{}}', {values})"
    );
    execute(&mut fixture.database, &sql).await;
}

#[tokio::test]
async fn a_rows_topic_comes_first_then_its_types_then_the_template() {
    let mut fixture = Fixture::new("routes").await;
    let [of_row, of_type, of_tenant] =
        ["row", "type", "tenant-7"].map(|end| format!("{}-{end}", fixture.topic));
    for topic in [&of_row, &of_type, &of_tenant] {
        services::create_topic(fixture.bootstrap(), topic, 1, &[]).await;
    }
    execute(&mut fixture.database, TENANT).await;
    let template = format!("{}-tenant-{{tenant_id}}", fixture.topic);
    fixture
        .relay
        .set("outbox.default.topics.order.placed", &of_type);
    fixture
        .relay
        .set("outbox.default.topics.order.moved", &template);
    let columns = "event_type, tenant_id, topic";
    insert(
        &mut fixture,
        columns,
        &format!("'order.placed', 7, '{of_row}'"),
    )
    .await;
    insert(&mut fixture, columns, "'order.placed', 7, null").await;
    insert(&mut fixture, columns, "'order.moved', 7, null").await;
    insert(&mut fixture, columns, "'order.paid', 7, null").await;

    fixture.relay.start();
    fixture.settled().await;

    let expected = [
        (&of_row, "order.placed"),
        (&of_type, "order.placed"),
        (&of_tenant, "order.moved"),
        (&fixture.topic, "order.paid"),
    ];
    for (topic, event_type) in expected {
        let records = read_all(fixture.bootstrap(), topic);
        let types: Vec<_> = records
            .iter()
            .map(|record| record.header("event-type"))
            .collect();
        assert_eq!(types, [Some(event_type)], "{topic}");
    }
}

#[tokio::test]
async fn key_headers_and_fields_come_from_any_column() {
    let mut fixture = Fixture::new("columns").await;
    execute(&mut fixture.database, TENANT).await;
    for (option, value) in [
        ("key", "{tenant_id}/{aggregate_id}"),
        ("headers.tenant", "{tenant_id}"),
        ("headers.origin", "shop"),
        ("headers.place", "{id}"),
        ("fields.tenant", "t{tenant_id}"),
    ] {
        fixture
            .relay
            .set(&format!("outbox.default.{option}"), value);
    }
    let columns = "event_type, tenant_id, headers, partition_key";
    insert(&mut fixture, columns, "'a', 7, '{\"own\":\"1\"}', null").await;
    insert(&mut fixture, columns, "'b', 7, null, 'own'").await;
    insert(&mut fixture, columns, "'c', null, null, null").await;

    fixture.relay.start();
    let mut records = fixture.take(3).await;
    // Rows of different keys come in any order.
    records.sort_by_key(|record| record.header("event-type").map(str::to_owned));
    let [full, own, none]: [_; 3] = records.try_into().expect("three");

    assert_eq!(full.key.as_deref(), Some("7/ord_1"));
    assert_eq!(full.body()["tenant"], "t7");
    let added = |record: &crate::support::fixture::Record| {
        let all =
            ["tenant", "origin", "place", "own"].map(|name| record.header(name).map(str::to_owned));
        json!(all)
    };
    assert_eq!(added(&full), json!(["7", "shop", "1", "1"]));
    assert_eq!(own.key.as_deref(), Some("own"));
    assert_eq!(none.key, None, "without the column there is no key");
    assert_eq!(added(&none), json!([null, "shop", "3", null]));
    assert_eq!(none.body().get("tenant"), None);
    fixture.settled().await;
}

#[tokio::test]
async fn a_row_whose_topic_names_a_null_column_holds_nobody_but_itself() {
    let mut fixture = Fixture::new("no_topic").await;
    execute(&mut fixture.database, TENANT).await;
    let template = format!("{}{{tenant_id}}", fixture.topic);
    fixture.relay.set("outbox.default.topics.lost", &template);
    fixture.relay.set("outbox.default.key", "");
    insert(&mut fixture, "event_type", "'lost'").await;
    insert(&mut fixture, "event_type", "'found'").await;

    fixture.relay.start();

    assert_eq!(fixture.next().await.header("event-type"), Some("found"));
    let left =
        "select count(*) = 1 and min(event_type) = 'lost' from outbox_events where sent_at is null";
    fixture.until(left).await;
}

#[tokio::test]
async fn a_column_that_is_not_there_is_named_at_start() {
    let mut fixture = Fixture::new("no_column").await;
    fixture.relay.set("outbox.default.topics.a", "{tenant}-a");
    fixture.relay.start_with(&["--until-empty"]);
    assert_eq!(fixture.relay.wait(PATIENCE).await, Some(78));
    let mistake = "(outbox.default.topics.a) does not exist";
    assert!(fixture.relay.logged(mistake) > 0);
}
