//! An admin port that asks for a token.

use serde_json::Value;

use crate::support::command::{fails, succeeds};
use crate::support::fixture::{Fixture, insert};

const TOKEN: &str = "s3cret-of-the-admin-port";

/// Who has made the report that `outboxd status` shows, with these flags besides.
fn said_by(fixture: &Fixture, flags: &[&str]) -> String {
    let mut command = fixture.relay.command(&["status", "--json"]);
    let said = succeeds(&command.args(flags).output().expect("running outboxd"));
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["saidBy"].as_str().expect("who").to_owned()
}

#[tokio::test]
async fn metrics_and_status_are_for_those_who_know_the_token() {
    let mut fixture = Fixture::new("admin_token").await;
    fixture.relay.set("admin.token", TOKEN);
    fixture.relay.start();
    insert(&mut fixture.database, "k").await;
    fixture.settled().await;

    for path in ["/livez", "/readyz"] {
        fixture.answers(path, 200, "").await;
    }
    for path in ["/metrics", "/status"] {
        for (authorization, status) in [
            (String::new(), 401),
            ("authorization: Bearer \r\n".to_owned(), 401),
            (format!("authorization: Basic {TOKEN}\r\n"), 401),
            (format!("authorization: Bearer {TOKEN}x\r\n"), 401),
            (format!("authorization: Bearer {}\r\n", &TOKEN[1..]), 401),
            (format!("authorization: Bearer {TOKEN}\r\n"), 200),
            (format!("Authorization: bearer {TOKEN}\r\n"), 200),
        ] {
            let answer = fixture.get_with(path, &authorization).await;
            let (found, text) = answer.expect("an answer");
            assert_eq!(found, status, "{path} {authorization}: {text}");
            assert_eq!(text == "admin.token is wanted\n", status == 401, "{text}");
        }
    }

    assert_eq!(said_by(&fixture, &[]), "relay");
    let other = ["--set", "admin.token=another-token-altogether"];
    let mut stranger = fixture.relay.command(&["status"]);
    let said = fails(&stranger.args(other).output().expect("running outboxd"), 1);
    assert!(said.contains("wants its admin.token"), "{said}");
    let probe = fixture.relay.command(&["probe", "--ready"]).output();
    succeeds(&probe.expect("running outboxd"));
    fixture.relay.stop().await;
    assert_eq!(fixture.relay.logged(TOKEN), 0);
}
