//! `outboxd inbox status`, and what it reads.

use super::{both, outboxd, succeeds};
use crate::support::fixture::execute;

#[tokio::test]
async fn what_is_remembered_is_counted_up_to_a_bound_and_estimated_beyond() {
    for (release, database) in both().await {
        let mut connection = database.connect().await;
        let fill = "insert into processed_events (consumer, event_id) \
                    select 'billing', 'b-' || n from generate_series(1, 40000) as n; \
                    insert into processed_events (consumer, event_id, outcome) \
                    select 'mailing', 'm-' || n, 'dead_lettered' from generate_series(1, 7) as n";
        execute(&mut connection, fill).await;
        execute(&mut connection, "analyze processed_events").await;
        let status = succeeds(&outboxd(&[
            "inbox",
            "status",
            "--postgres-url",
            database.url(),
        ]));
        let remembered: Vec<&str> = status
            .lines()
            .filter_map(|line| line.trim().strip_prefix("remembered "))
            .map(str::trim)
            .collect();
        let [billing, mailing] = remembered[..] else {
            panic!("{release}: {status}");
        };
        assert_eq!(mailing, "7", "{release}");
        let estimate = billing.strip_prefix("about ");
        let estimate = estimate.and_then(|estimate| estimate.parse::<u64>().ok());
        let estimate = estimate.unwrap_or_else(|| panic!("{release}: {status}"));
        assert!(
            (36_000..44_000).contains(&estimate),
            "{release}: {estimate}"
        );
        assert!(
            status.contains("dead-lettered     7"),
            "{release}: {status}"
        );
    }
}
