//! What `/metrics` says, beside what was counted from outside.

use crate::support::fixture::{Fixture, execute, insert, number};
use crate::support::services;

/// A backlog that takes several reads and fills the window.
const BACKLOG: i64 = 20_000;

async fn insert_rows(fixture: &mut Fixture, rows: i64, age_seconds: i64, topic: Option<&str>) {
    let topic = topic.map_or("null".to_owned(), |topic| format!("'{topic}'"));
    let sql = format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, topic, created_at) \
         select 'x', n::text, 't', {topic}, clock_timestamp() - interval '{age_seconds} s' \
         from generate_series(1, {rows}) n"
    );
    execute(&mut fixture.database, &sql).await;
}

/// The rows of a histogram up to this bound.
fn up_to(metrics: &str, name: &str, bound: f64) -> f64 {
    let start = format!("outboxd_{name}_bucket{{");
    let buckets = metrics.lines().filter(|line| line.starts_with(&start));
    let found = buckets.filter_map(|line| {
        let le: f64 = line
            .split_once("le=\"")?
            .1
            .split_once('"')?
            .0
            .parse()
            .ok()?;
        let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (le <= bound).then_some(count)
    });
    found.fold(0.0, f64::max)
}

#[tokio::test]
async fn what_is_scraped_during_a_run_is_what_was_counted_from_outside() {
    let mut kafka = services::private_kafka(&[]).await;
    let database = services::postgres().await.create_database("metrics").await;
    let mut fixture = Fixture::on("metrics", &database.url, &kafka.bootstrap()).await;
    fixture.relay.start();

    // Published and marked, and how long it took: by rows of ages that lie in buckets far apart.
    insert_rows(&mut fixture, 300, 100, None).await;
    insert_rows(&mut fixture, 40, 1_500, None).await;
    fixture.settled().await;
    assert_eq!(fixture.published(), 340);
    fixture
        .metric_is("marked_total", |rows| rows == 340.0)
        .await;
    assert_eq!(fixture.metric("published_total").await, 340.0);
    let latency = "created_to_acknowledged_seconds";
    let (_, metrics) = fixture.get("/metrics").await.expect("metrics");
    assert_eq!(up_to(&metrics, latency, 100.0), 0.0);
    assert_eq!(up_to(&metrics, latency, 1_048.0), 300.0);
    assert_eq!(up_to(&metrics, latency, f64::INFINITY), 340.0);
    assert_eq!(fixture.metric(&format!("{latency}_count")).await, 340.0);
    let sum = fixture.metric(&format!("{latency}_sum")).await;
    let least = 300.0 * 100.0 + 40.0 * 1_500.0;
    assert!((least..2.0 * least).contains(&sum), "{sum}");

    // Pending, wherever the rows are: above the position, on their way to the window, in it, in flight.
    kafka.freeze();
    insert_rows(&mut fixture, BACKLOG, 5_000, None).await;
    let unsent = "select count(*) from outbox_events where sent_at is null";
    assert_eq!(number(&mut fixture.database, unsent).await, BACKLOG);
    fixture
        .metric_is("in_flight_messages", |rows| rows > 0.0)
        .await;
    fixture
        .metric_is("pending_rows", |rows| rows == BACKLOG as f64)
        .await;
    fixture
        .metric_is("oldest_pending_age_seconds", |age| {
            (5_000.0..6_000.0).contains(&age)
        })
        .await;
    kafka.thaw();
    fixture.settled().await;
    fixture.metric_is("pending_rows", |rows| rows == 0.0).await;
    fixture
        .metric_is("oldest_pending_age_seconds", |age| age == 0.0)
        .await;
    assert_eq!(
        fixture.metric("published_total").await,
        (340 + BACKLOG) as f64
    );
    assert_eq!(fixture.published(), 340 + BACKLOG);

    // Parked, and held outside of the window.
    execute(
        &mut fixture.database,
        "alter table outbox_events drop constraint \"topic must be 1 to 249 of a-z A-Z 0-9 . _ -\"",
    )
    .await;
    insert_rows(&mut fixture, 25, 1, Some("no such/topic")).await;
    fixture.metric_is("parked_rows", |rows| rows == 25.0).await;
    let parked = number(&mut fixture.database, "select count(*) from outboxd_parked").await;
    assert_eq!(fixture.metric("parked_total").await, parked as f64);
    insert_rows(&mut fixture, 50, 1, Some("missing-topic")).await;
    fixture.metric_is("pending_rows", |rows| rows == 50.0).await;
    fixture
        .metric_is("held_topics", |topics| topics == 1.0)
        .await;

    // What somebody has decided.
    let decide = "select outbox_pause(o), outbox_pause(o, 'a'), outbox_pause(o, 'b'), \
                  outbox_dead_park(o, 'a'), outbox_dead_park(o, 'b'), outbox_dead_park(o, 'c') \
                  from (values ('public.outbox_events')) v (o)";
    execute(&mut fixture.database, decide).await;
    fixture.metric_is("paused", |is| is == 1.0).await;
    fixture.metric_is("paused_topics", |n| n == 2.0).await;
    fixture.metric_is("bypassed_topics", |n| n == 3.0).await;
    let go_on = "select outbox_resume('public.outbox_events')";
    execute(&mut fixture.database, go_on).await;
    fixture.metric_is("paused", |is| is == 0.0).await;
    assert_eq!(fixture.metric("paused_topics").await, 2.0);
}

#[tokio::test]
async fn an_outbox_that_went_to_another_relay_is_not_counted_here_any_more() {
    let mut fixture = Fixture::new("metrics_lost").await;
    insert_rows(&mut fixture, 10, 60, Some("missing-topic")).await;
    fixture.relay.start();
    fixture.metric_is("pending_rows", |rows| rows == 10.0).await;
    let pause = "select outbox_pause('public.outbox_events')";
    execute(&mut fixture.database, pause).await;
    fixture.metric_is("paused", |is| is == 1.0).await;
    let taken = "update outboxd_leases set owner = gen_random_uuid(), epoch = epoch + 1, \
                 expires_at = now() + interval '1 hour'";
    execute(&mut fixture.database, taken).await;
    insert(&mut fixture.database, "k").await;
    fixture.metric_is("owner", |owner| owner == 0.0).await;
    for name in [
        "pending_rows",
        "oldest_pending_age_seconds",
        "window_rows",
        "held_topics",
        "paused",
    ] {
        assert_eq!(fixture.metric(name).await, 0.0, "{name}");
    }
}
