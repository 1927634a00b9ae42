//! The inserts into a table of Debezium's shape.

use serde_json::Value;

use super::language::Language;
use super::shop;
use crate::support::fixture::{Fixture, Record, execute, number};
use crate::support::services;

const TABLE: &str = include_str!("../../examples/debezium.sql");

/// A database with the table and those of the examples, a topic, and a relay with the preset.
pub async fn fixture(name: &'static str) -> Fixture {
    let database = services::postgres().await.create_database(name).await;
    let kafka = services::kafka().await.bootstrap();
    let mut fixture = Fixture::bare(name, &database.url, kafka).await;
    execute(&mut fixture.database, shop::SCHEMA).await;
    execute(&mut fixture.database, TABLE).await;
    fixture.relay.set("outbox.default.preset", "debezium");
    fixture.relay.migrate().await;
    fixture
}

pub async fn an_insert_into_debeziums_table_is_published_as_its_router_does(language: Language) {
    let mut fixture = fixture(language.name()).await;
    let insert = language.command_line("debezium").await;

    shop::start(&fixture, &insert, "", 6).succeeds().await;
    assert_eq!(
        number(&mut fixture.database, "select count(*) from outbox").await,
        6
    );
    fixture.relay.start();
    let records = fixture.take(6).await;

    fixture.until("select count(*) = 0 from outbox").await;
    let mut totals = [0; 3];
    for record in &records {
        let [order, price, total] = item(record);
        let order = usize::try_from(order).expect("a number");
        totals[order - 1] += price;
        assert_eq!(totals[order - 1], total, "in the order of the changes");
    }
}

/// The number of the order, the price and the total of a message as Debezium's consumers know it.
fn item(record: &Record) -> [i64; 3] {
    let [(name, id)] = record.headers.as_slice() else {
        panic!("other headers: {record:?}");
    };
    assert_eq!(name, "id");
    id.parse::<uuid::Uuid>().expect("a UUID");
    let item: Value = record.body();
    let order = item["orderId"].as_str().expect("an order");
    assert_eq!(record.key.as_deref(), Some(order));
    let number = order.trim_start_matches("ord_").parse();
    let cents = |name: &str| item[name].as_i64().expect("cents");
    [
        number.expect("a number"),
        cents("priceCents"),
        cents("totalCents"),
    ]
}
