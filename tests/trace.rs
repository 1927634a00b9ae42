//! `outboxd trace`: the journey of a correlation id over three services, each with a database of its own.

use std::future::Future;
use std::process::Output;

use outboxd::inbox::consumer::{Consumer, Event, HandlerResult, Tx};
use outboxd::outbox::{self, NewEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::command::{errors, fails, outboxd, succeeds};
use crate::support::fixture::{Fixture, execute, number};

pub const CHECKOUT: &str = "checkout-42";

#[derive(Debug, Deserialize)]
struct Placed {
    order: String,
}

async fn capture(mut tx: Tx, event: Event<Placed>) -> HandlerResult {
    let captured = json!({"order": event.data.order});
    let captured = NewEvent::json("payment", "pay_1", "payment.captured", &captured)?;
    outbox::append(&mut tx, captured).await?;
    Ok(())
}

async fn ship(mut tx: Tx, event: Event<Placed>) -> HandlerResult {
    let sent = json!({"order": event.data.order});
    outbox::append(
        &mut tx,
        NewEvent::json("shipment", "shp_1", "shipment.sent", &sent)?,
    )
    .await?;
    Ok(())
}

/// A service: a database with an outbox, its relay, and an inbox if it consumes.
pub async fn service(mut fixture: Fixture, consumes: bool) -> Fixture {
    if consumes {
        fixture.relay.migrate_inbox().await;
    }
    fixture.relay.start();
    fixture
}

/// Orders with these correlation ids, each paid and shipped before the next: three services, each with its own relay, two of
/// them with a consumer of the one before.
pub async fn journey(services: [&mut Fixture; 3], orders: &[Option<&str>]) {
    let [shop, payments, shipping] = services;
    let paying = Working::start(async {
        consumer("payments", payments, shop)
            .await
            .on("order.placed", capture)
    });
    let paying = paying.await;
    let shipping_orders = Working::start(async {
        consumer("shipments", shipping, payments)
            .await
            .on("payment.captured", ship)
    });
    let shipping_orders = shipping_orders.await;
    let mut services = [shop, payments, shipping];
    for (placed, correlation_id) in orders.iter().enumerate() {
        place_order(services[0], *correlation_id).await;
        let shipped = format!(
            "select count(*) = {} from outbox_events where sent_at is not null",
            placed + 1
        );
        for service in &mut services {
            service.until(&shipped).await;
        }
    }
    paying.end().await;
    shipping_orders.end().await;
}

/// A consumer at work, until it is told to stop.
struct Working {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Working {
    async fn start<F: Future<Output = Consumer>>(consumer: F) -> Working {
        let consumer = consumer.await;
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // A test that fails stops it as well.
            let _ = stopped.await;
        };
        let task = tokio::spawn(async {
            consumer.run_until(stopped).await.expect("the consumer");
        });
        Working { stop, task }
    }

    async fn end(self) {
        let _ = self.stop.send(());
        self.task.await.expect("the consumer's task");
    }
}

async fn consumer(name: &str, of: &Fixture, from: &Fixture) -> Consumer {
    let pool = PgPool::connect(&of.url).await.expect("connecting");
    Consumer::new(name, pool)
        .kafka([
            ("bootstrap.servers", from.bootstrap()),
            ("fetch.wait.max.ms", "20"),
        ])
        .topics([&from.topic])
}

async fn place_order(shop: &mut Fixture, correlation_id: Option<&str>) {
    let correlation_id = correlation_id.map_or("null".to_owned(), |id| format!("'{id}'"));
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, correlation_id) \
         values ('order', 'ord_1', 'order.placed', '{{\"order\":\"ord_1\"}}', {correlation_id})"
    );
    execute(&mut shop.database, &sql).await;
}

fn trace(shop: &Fixture, arguments: &[&str]) -> Output {
    let mut command = shop.relay.command(&["trace"]);
    command.args(arguments).output().expect("running outboxd")
}

fn traced(shop: &Fixture, arguments: &[&str]) -> Value {
    let text = succeeds(&trace(shop, &[arguments, &["--json"]].concat()));
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_payment_and_shipment_are_one_tree_with_times_over_three_databases() {
    let mut shop = service(Fixture::new("trace_shop").await, false).await;
    let mut payments = service(Fixture::new("trace_payments").await, true).await;
    let mut shipping = service(Fixture::new("trace_shipping").await, true).await;
    let services = [&mut shop, &mut payments, &mut shipping];
    journey(services, &[Some(CHECKOUT), None]).await;

    let (payments_url, shipping_url) = (payments.url.clone(), shipping.url.clone());
    let others = ["--database", &payments_url, "--database", &shipping_url];
    let journey = traced(&shop, &[&[CHECKOUT][..], &others].concat());
    assert_eq!(
        (&journey["events"], &journey["effects"]),
        (&json!(3), &json!(2))
    );
    let placed = &journey["roots"][0];
    let captured = &placed["caused"][0];
    let sent = &captured["caused"][0];
    let mut last: Option<jiff::Timestamp> = None;
    for (event, event_type, consumer) in [
        (placed, "order.placed", Some("payments")),
        (captured, "payment.captured", Some("shipments")),
        (sent, "shipment.sent", None),
    ] {
        assert_eq!(event["eventType"], event_type);
        assert_eq!(event["state"], "sent");
        let done = &event["effects"][0];
        assert_eq!(done["consumer"].as_str(), consumer, "{event:#}");
        // One server keeps the time of all three: created, processed, then what that caused.
        let times = [&event["createdAt"], &done["at"]];
        for time in times.into_iter().filter_map(Value::as_str) {
            let time: jiff::Timestamp = time.parse().expect("a time");
            assert!(last.is_none_or(|last| last <= time), "{event:#}");
            last = Some(time);
        }
        assert!(event["sentAt"].is_string());
    }
    assert!(captured["afterCauseMillis"].as_f64() > Some(0.0));
    assert_eq!(sent["caused"], json!([]));

    let page = succeeds(&trace(&shop, &[&[CHECKOUT][..], &others].concat()));
    println!("{page}");
    let lines: Vec<&str> = page.lines().collect();
    assert!(
        lines[0].starts_with("correlation id checkout-42: 3 events, 2 effects, "),
        "{page}"
    );
    let tree = [
        "   +0.0 ms  order.placed  ",
        "  │  marked sent, ",
        "  │  processed by payments in trace_payments",
        "  └─ payment.captured  ",
        "     │  processed by shipments in trace_shipping",
        "     └─ shipment.sent  ",
        "           marked sent, ",
    ];
    let mut left = lines.iter();
    for part in tree {
        if part.contains("marked sent") {
            assert!(page.contains(part), "{part}:\n{page}");
            continue;
        }
        assert!(left.any(|line| line.contains(part)), "{part}:\n{page}");
    }
    assert!(
        !page.contains("ord_1") && !page.contains("pay_1"),
        "keys are not shown:\n{page}"
    );

    // The same of an event without a correlation id: its own id is that of what it caused.
    let id = "select event_id::text from outbox_events where correlation_id is null";
    let root: String = sqlx::query_scalar(id)
        .fetch_one(&mut shop.database)
        .await
        .expect("an id");
    let alone = traced(&shop, &[&[root.as_str()][..], &others].concat());
    assert_eq!(
        alone["roots"][0]["caused"][0]["caused"][0]["eventType"],
        "shipment.sent"
    );

    // Without the others' databases there is one event; without its row there is the rest.
    assert_eq!(traced(&shop, &[CHECKOUT])["events"], 1);
    execute(
        &mut shop.database,
        "delete from outbox_events where correlation_id is not null",
    )
    .await;
    let rest = succeeds(&trace(&shop, &[&[CHECKOUT][..], &others].concat()));
    assert!(
        rest.contains("2 events, 1 effect,") && rest.contains("caused by "),
        "{rest}"
    );
    assert!(rest.contains(", which was not found"), "{rest}");
    assert!(
        rest.contains("keeps sent rows for 7days: the oldest row is of 20"),
        "{rest}"
    );
}

#[tokio::test]
async fn an_index_is_made_on_request_and_without_one_the_newest_rows_are_looked_through() {
    let mut shop = Fixture::new("trace_index").await;
    let oldest = "insert into outbox_events (aggregate_type, aggregate_id, event_type, correlation_id) \
                  values ('x', 'k', 'first', 'c-1')";
    execute(&mut shop.database, oldest).await;
    execute(
        &mut shop.database,
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, correlation_id) \
         select 'x', 'k', 't', 'other' from generate_series(1, 25000)",
    )
    .await;
    let all = succeeds(&trace(&shop, &["c-1"]));
    assert!(
        all.contains("has no index for traces: all its rows were looked through"),
        "{all}"
    );
    assert!(
        all.contains("first") && all.contains("not published yet"),
        "{all}"
    );
    let some = trace(&shop, &["c-1", "--scan", "22000"]);
    assert_eq!(some.status.code(), Some(1));
    let some = String::from_utf8_lossy(&some.stdout).into_owned();
    assert!(
        some.contains("correlation id c-1: no event was found"),
        "{some}"
    );
    assert!(
        some.contains("only its newest rows were looked through, those with an id above 3001"),
        "{some}"
    );
    let many = succeeds(&trace(&shop, &["other"]));
    assert!(
        many.contains("1,000 events") && many.contains("has more than 1000 events of it"),
        "{many}"
    );

    let migrate = |shop: &Fixture| {
        let output = shop.relay.command(&["migrate", "--trace-index"]).output();
        succeeds(&output.expect("running outboxd"))
    };
    assert_eq!(
        migrate(&shop),
        "applied outbox public.outbox_events: the index for traces\n"
    );
    assert_eq!(migrate(&shop), "the schema is up to date\n");
    let found = succeeds(&trace(&shop, &["c-1", "--scan", "1"]));
    assert!(
        found.contains("first") && !found.contains("no index"),
        "{found}"
    );

    // What an attempt has left that was cut off counts for nothing, and is made anew.
    let cut_off =
        "update pg_index set indisvalid = false where indexrelid = 'outbox_events_trace'::regclass";
    execute(&mut shop.database, cut_off).await;
    assert!(succeeds(&trace(&shop, &["c-1"])).contains("has no index for traces"));
    assert_eq!(
        migrate(&shop),
        "applied outbox public.outbox_events: the index for traces\n"
    );
    assert!(!succeeds(&trace(&shop, &["c-1"])).contains("no index"));
    let count = "select count(*) from pg_index where indexrelid::regclass::text like '%trace%'";
    assert_eq!(number(&mut shop.database, count).await, 1);

    let print = outboxd(&["migrate", "--print", "--trace-index"]);
    let print = succeeds(&print);
    let (transaction, after) = print.split_once("\ncommit;\n").expect("a transaction");
    assert!(!transaction.contains("concurrently"));
    assert!(
        after.contains("create index concurrently \"outbox_events_trace\" on "),
        "{after}"
    );
}

#[tokio::test]
async fn mistakes_are_named() {
    let shop = Fixture::new("trace_mistakes").await;
    let nobody = outboxd::local::free_port().expect("a free port");
    let nowhere = format!("postgres://user:geheim@127.0.0.1:{nobody}/x");
    let said = fails(&trace(&shop, &["c", "--database", &nowhere]), 1);
    assert!(
        said.contains(&format!(
            "database at 127.0.0.1:{nobody}: connecting to postgres"
        )),
        "{said}"
    );
    assert!(!said.contains("geheim"));
    let said = fails(
        &trace(&shop, &["c", "--database", "mysql://u:geheim@h/d"]),
        2,
    );
    assert!(!said.contains("geheim"), "{said}");
    assert!(
        said.contains("must start with postgres:// or postgresql://"),
        "{said}"
    );
    let said = fails(&trace(&shop, &[]), 2);
    assert!(said.contains("<CORRELATION_ID>"), "{said}");
    let said = fails(&trace(&shop, &["c", "--scan", "0"]), 2);
    assert!(said.contains("--scan"), "{said}");
    let empty = crate::support::services::postgres()
        .await
        .create_database("trace")
        .await;
    let said = fails(&trace(&shop, &["c", "--database", &empty.url]), 78);
    assert!(
        said.contains("has neither an outbox nor an inbox"),
        "{said}"
    );
    let said = errors(&outboxd(&["trace", "c"]));
    assert!(said.contains("postgres.url"), "{said}");
}
