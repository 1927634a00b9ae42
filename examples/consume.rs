//! A consumer that keeps the accounts of customers, and says so in events of its own.
//!
//! Runs until Ctrl-C:
//!
//! ```sh
//! outboxd migrate --postgres-url "$DATABASE_URL" --kafka localhost:9092
//! outboxd migrate --inbox --postgres-url "$DATABASE_URL"
//! psql "$DATABASE_URL" -c "create table accounts (customer text primary key, cents bigint not null)"
//! cargo run --example consume -- "$DATABASE_URL" localhost:9092
//! ```

use outboxd::inbox::consumer::{Consumer, Event, HandlerError, HandlerResult, Tx};
use outboxd::outbox::{self, NewEvent};
use serde::Deserialize;
use serde_json::json;
use sqlx::PgPool;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderPlaced {
    order_id: String,
    customer: String,
    total_cents: i64,
}

async fn charge(mut tx: Tx, event: Event<OrderPlaced>) -> HandlerResult {
    let order = event.data;
    if order.total_cents < 0 {
        // No other attempt can help: to the dead letters, with this reason.
        return Err(HandlerError::reject(
            "an order must not have a negative total",
        ));
    }
    // Whatever fails with `?` is rolled back and tried again, while the events of other keys go on.
    sqlx::query(
        "insert into accounts as a (customer, cents) values ($1, $2) \
         on conflict (customer) do update set cents = a.cents + excluded.cents",
    )
    .bind(&order.customer)
    .bind(order.total_cents)
    .execute(&mut *tx)
    .await?;
    // Names the event at hand as its cause, and carries its correlation id on.
    let charged = json!({ "orderId": order.order_id, "cents": order.total_cents });
    let charged = NewEvent::json("account", order.customer, "account.charged", &charged)?;
    outbox::append(&mut tx, charged).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(database), Some(kafka)) = (arguments.next(), arguments.next()) else {
        return Err("usage: consume DATABASE_URL BOOTSTRAP_SERVERS".into());
    };
    tracing_subscriber::fmt().init();
    let pool = PgPool::connect(&database).await?;
    let stop = async {
        // Without the signal it cannot be asked to stop, and so is stopped at once.
        let _ = tokio::signal::ctrl_c().await;
    };
    Consumer::new("accounts", pool)
        .kafka([("bootstrap.servers", kafka)])
        .topics(["order-events"])
        .on("order.placed", charge)
        .run_until(stop)
        .await?;
    Ok(())
}
