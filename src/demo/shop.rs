//! The application of the demo: a shop that changes its `orders` and tells about it in one transaction.
//!
//! Every order is placed, paid and shipped, each in a transaction of its own with one event. Some
//! transactions are rolled back after the event was inserted: the money did not come. Nobody may ever
//! hear of these.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio::time::Instant as Deadline;
use uuid::Uuid;

use super::SharedBooks;

/// The shop's table, and what finds the rows that others insert into the outbox.
pub const TABLES: &str = "\
create table if not exists orders (
    id           text        primary key,
    customer     text        not null,
    total_cents  bigint      not null,
    status       text        not null,
    changed_at   timestamptz not null default clock_timestamp()
);
create index if not exists outbox_events_by_hand on outbox_events (id)
    where (headers->>'demo-run') is null;
";

/// The header that tells the rows of this run from those inserted by hand, and from earlier runs.
pub const RUN_HEADER: &str = "demo-run";

/// One transaction in this many is rolled back. No multiple of the three steps, so that it meets each.
const ROLLBACK_EVERY: u64 = 11;

/// Rows that may be on their way before the shop waits for them: a Kafka that is away for long shall
/// not fill the memory.
const MOST_ON_THE_WAY: usize = 10_000;

/// Orders that are open at a time, before the oldest gets on: events of several aggregates interleave.
const OPEN_ORDERS: usize = 6;

/// How far behind its plan the shop may be before it forgets what it missed.
const MOST_BEHIND: Duration = Duration::from_secs(1);

const CUSTOMERS: [&str; 6] = ["ada", "grace", "linus", "barbara", "edsger", "margaret"];

/// What an order does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Place,
    Pay,
    Ship,
}

/// An order on its way through the shop.
#[derive(Debug)]
struct Order {
    id: String,
    customer: &'static str,
    total_cents: i64,
    step: Step,
    correlation_id: String,
    /// The event that led to the next.
    cause: Option<Uuid>,
}

/// One row of the outbox.
#[derive(Debug)]
struct Row {
    event_id: Uuid,
    aggregate_type: &'static str,
    aggregate_id: String,
    event_type: &'static str,
    payload: String,
}

/// Inserts sample orders.
pub struct Shop {
    pub connection: PgConnection,
    pub books: SharedBooks,
    /// Rows per second.
    pub rate: u32,
    pub run: Uuid,
}

impl Shop {
    /// Inserts until `stop` says so. The rows come at random times, as customers do.
    ///
    /// # Errors
    /// When Postgres refuses, or is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let headers = format!(r#"{{"{RUN_HEADER}":"{}"}}"#, self.run);
        let mut orders: VecDeque<Order> = VecDeque::new();
        let mut next = Deadline::now();
        let mut transactions: u64 = 0;
        loop {
            tokio::select! {
                biased;
                // `wait_for` and a sleep keep nothing.
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep_until(next) => {}
            }
            // Exponential gaps make a Poisson process; the average is the rate.
            let gap = -(1.0 - fastrand::f64()).ln() / f64::from(self.rate);
            let earliest = Deadline::now().checked_sub(MOST_BEHIND).unwrap_or(next);
            next = next.max(earliest) + Duration::from_secs_f64(gap);
            if self.books.lock().on_the_way() >= MOST_ON_THE_WAY {
                continue;
            }
            let order = match orders.pop_front() {
                Some(order) if orders.len() + 1 >= OPEN_ORDERS => order,
                waiting => {
                    orders.extend(waiting);
                    Order::new()
                }
            };
            transactions += 1;
            // The first comes soon, so that there is one even in a short demo.
            let rolls_back = transactions % ROLLBACK_EVERY == ROLLBACK_EVERY / 2;
            let order = self
                .transact(order, rolls_back, &headers)
                .await
                .context("inserting a sample row")?;
            orders.extend(order);
            if rolls_back {
                // It comes on top: the rate is that of the rows that count.
                next = Deadline::now();
            }
        }
        // Best effort: the server notices a dropped socket as well.
        let _ = self.connection.close().await;
        Ok(())
    }

    /// One step of an order: the business change and its event, both or neither. Returns the order
    /// unless it is done.
    async fn transact(
        &mut self,
        mut order: Order,
        rolls_back: bool,
        headers: &str,
    ) -> sqlx::Result<Option<Order>> {
        let row = order.row();
        let mut transaction = self.connection.begin().await?;
        // First the order's row, then the event: the row's lock makes the order of ids the order of
        // the aggregate's history.
        match order.step {
            Step::Place => sqlx::query(
                "insert into orders (id, customer, total_cents, status) values ($1, $2, $3, 'placed')",
            )
            .bind(&order.id)
            .bind(order.customer)
            .bind(order.total_cents),
            Step::Pay | Step::Ship => sqlx::query(
                "update orders set status = $2, changed_at = clock_timestamp() where id = $1",
            )
            .bind(&order.id)
            .bind(if order.step == Step::Pay { "paid" } else { "shipped" }),
        }
        .execute(&mut *transaction)
        .await?;
        self.books.lock().inserted(row.event_id, Instant::now());
        sqlx::query(
            "insert into outbox_events (event_id, aggregate_type, aggregate_id, event_type, payload, \
             correlation_id, causation_id, headers) values ($1, $2, $3, $4, $5::json, $6, $7, $8::jsonb)",
        )
        .bind(row.event_id)
        .bind(row.aggregate_type)
        .bind(row.aggregate_id)
        .bind(row.event_type)
        .bind(row.payload)
        .bind(&order.correlation_id)
        .bind(order.cause.map(|cause| cause.to_string()))
        .bind(headers)
        .execute(&mut *transaction)
        .await?;
        if rolls_back {
            transaction.rollback().await?;
            self.books.lock().rolled_back(row.event_id);
            // It is tried again, with a new event; an order that was never placed is gone.
            return Ok((order.step != Step::Place).then_some(order));
        }
        transaction.commit().await?;
        self.books.lock().committed(row.event_id, Instant::now());
        order.cause = Some(row.event_id);
        order.step = match order.step {
            Step::Place => Step::Pay,
            Step::Pay => Step::Ship,
            Step::Ship => return Ok(None),
        };
        Ok(Some(order))
    }
}

impl Order {
    fn new() -> Order {
        Order {
            id: format!("ord_{}", letters(6)),
            customer: CUSTOMERS[fastrand::usize(..CUSTOMERS.len())],
            total_cents: fastrand::i64(5..400) * 100 - 5,
            step: Step::Place,
            correlation_id: format!("checkout-{}", letters(8)),
            cause: None,
        }
    }

    fn row(&self) -> Row {
        let (id, customer, total) = (&self.id, self.customer, self.total_cents);
        let (aggregate_type, aggregate_id, event_type, payload) = match self.step {
            Step::Place => (
                "order",
                id.clone(),
                "order.placed",
                format!(r#"{{"orderId":"{id}","customer":"{customer}","totalCents":{total}}}"#),
            ),
            Step::Pay => (
                "payment",
                id.replace("ord_", "pay_"),
                "payment.authorized",
                format!(r#"{{"orderId":"{id}","amountCents":{total},"method":"card"}}"#),
            ),
            Step::Ship => (
                "order",
                id.clone(),
                "order.shipped",
                format!(
                    r#"{{"orderId":"{id}","parcels":{},"carrier":"pigeon"}}"#,
                    1 + total % 3
                ),
            ),
        };
        Row {
            event_id: Uuid::now_v7(),
            aggregate_type,
            aggregate_id,
            event_type,
            payload,
        }
    }
}

fn letters(count: usize) -> String {
    (0..count).map(|_| fastrand::lowercase()).collect()
}
