//! The warning of `inbox status`, on a real Kafka.

use super::{InboxDatabase, outboxd};
use crate::support::services;

#[tokio::test]
async fn status_warns_of_topics_that_outlive_the_memory() {
    let database = InboxDatabase::new("inbox_topics").await;
    let kafka = services::kafka().await;
    let (day, ever) = (kafka.unique_topic("day"), kafka.unique_topic("ever"));
    let bootstrap = kafka.bootstrap();
    services::create_topic(bootstrap, &day, 1, &[("retention.ms", "86400000")]).await;
    services::create_topic(bootstrap, &ever, 1, &[("retention.ms", "-1")]).await;
    let status = |more: &[&str]| {
        let arguments = [
            "inbox",
            "status",
            "--postgres-url",
            database.url(),
            "--kafka",
            bootstrap,
        ];
        let output = outboxd(&[&arguments, more].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    let topics = format!("inbox.topics={day}");
    let quiet = status(&["--set", &topics]);
    assert_eq!(quiet, (Some(0), String::new()));
    let (code, warned) = status(&[
        "--set",
        &topics,
        "--topic",
        &ever,
        "--set",
        "inbox.retention=23h",
    ]);
    assert_eq!(code, Some(0));
    assert_eq!(warned.lines().count(), 2, "{warned}");
    assert!(
        warned.contains(&format!(
            "warning: topic \"{day}\" keeps its records for 1day, longer than inbox.retention (23h)"
        )),
        "{warned}"
    );
    let missing = "outboxd: comparing the topics of --topic and inbox.topics with inbox.retention: \
                   topic \"no-such-topic\" does not exist\n";
    let found = status(&["--topic", &day, "--topic", "no-such-topic"]);
    assert_eq!(found, (Some(1), missing.to_owned()));
}
