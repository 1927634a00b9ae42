//! `outboxd check`: what is configured, and what stands in the way of the guarantees.

mod acls;
mod configuration;
mod postgres;
mod stage;
mod table;
mod topics;

use stage::Stage;

#[tokio::test]
async fn where_all_is_well_nothing_is_said() {
    let stage = Stage::new("healthy").await;
    stage.finds(&[]);
    assert_eq!(stage.text(), (String::new(), Some(0)));
}

#[tokio::test]
async fn a_line_says_what_is_and_what_to_do() {
    let mut stage = Stage::new("line").await;
    stage.sql("drop index outbox_events_unsent").await;
    let line = "warning [unsent-index] outbox \"default\": table public.outbox_events has no index of its unsent \
                rows: after a restart every retained row is walked: create index concurrently outbox_events_unsent \
                on public.outbox_events (id) where sent_at is null\n";
    assert_eq!(stage.text(), (line.to_owned(), Some(3)));
}

#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    let mut stage = Stage::new("traces").await;
    stage
        .sql("insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) values ('a', 'b', 'c', '{}')")
        .await;
    let rows = "select (select count(*) from outboxd_leases) * 1000 + (select count(*) from outbox_events where sent_at is null)";
    let before = crate::support::fixture::number(&mut stage.owner, rows).await;
    stage.finds(&[]);
    assert_eq!(
        crate::support::fixture::number(&mut stage.owner, rows).await,
        before
    );
    assert!(crate::support::fixture::read_all(&stage.bootstrap, &stage.topic).is_empty());
}

#[tokio::test]
async fn a_writer_does_not_hold_a_check_up_nor_a_check_a_writer() {
    let mut stage = Stage::new("locks").await;
    // The strongest lock that lets readers in.
    stage
        .sql("begin; lock table outbox_events in exclusive mode")
        .await;
    stage.finds(&[]);
    stage.sql("rollback").await;
}
