//! Marks, statement by statement: for that very event, by the owner of the lane, once; and what else only the owner
//! may note.

use std::time::Duration;

use outboxd::config::{Config, Sources};
use outboxd::db::bypasses::{Bypasses, EndBypasses};
use outboxd::db::lease::{Fence, Leases, Standing};
use outboxd::db::outbox::Outbox;
use outboxd::db::wishes::Reason;
use outboxd::db::{Database, Role, Session};
use outboxd::event::EventRef;
use sqlx::Row;
use uuid::Uuid;

use crate::support::fixture::{Fixture, execute, insert, number};

const LANE: i32 = 0;
const LEASE: Duration = Duration::from_secs(60);

struct Marking {
    fixture: Fixture,
    outbox: Outbox,
    leases: Leases,
    session: Session,
}

impl Marking {
    async fn new(name: &'static str) -> Marking {
        let fixture = Fixture::new(name).await;
        let overrides = [
            ("postgres.url", fixture.url.as_str()),
            ("kafka.bootstrap_servers", fixture.bootstrap()),
        ];
        let config = Config::load(Sources {
            file: None,
            environment: std::iter::empty(),
            overrides: overrides
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        })
        .expect("a configuration");
        let database = Database::new(&config.postgres).expect("a database");
        let table = &config.outboxes["default"].table;
        Marking {
            outbox: Outbox::new(
                table,
                "public",
                config.outboxes["default"].on_sent,
                1_000_000,
            ),
            leases: Leases::new("public"),
            session: database
                .connect(name, Role::Marker)
                .await
                .expect("a session"),
            fixture,
        }
    }

    async fn acquire(&mut self, owner: Uuid) -> Option<Fence> {
        let acquired = self.leases.acquire(
            &mut self.session,
            "public.outbox_events",
            LANE,
            owner,
            LEASE,
            false,
        );
        let acquired = acquired.await.expect("asking for the lease");
        acquired.map(|acquired| acquired.fence)
    }

    async fn event(&mut self) -> EventRef {
        let id = insert(&mut self.fixture.database, "k").await;
        let row = sqlx::query("select event_id from outbox_events where id = $1").bind(id);
        let row = row
            .fetch_one(&mut self.fixture.database)
            .await
            .expect("the row");
        EventRef {
            id,
            event_id: row.get(0),
        }
    }

    async fn settle(&mut self, fence: &Fence, event: EventRef) -> u64 {
        self.outbox
            .settle(&mut self.session, fence, &[event])
            .await
            .expect("marking")
    }

    async fn sent(&mut self) -> i64 {
        number(
            &mut self.fixture.database,
            "select count(sent_at) from outbox_events",
        )
        .await
    }
}

#[tokio::test]
async fn a_mark_is_for_that_very_event_and_once() {
    let mut marking = Marking::new("mark_event").await;
    let fence = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    let event = marking.event().await;
    let other = EventRef {
        event_id: Uuid::now_v7(),
        ..event
    };
    assert_eq!(
        marking.settle(&fence, other).await,
        0,
        "the id was drawn again for another event"
    );
    assert_eq!(marking.sent().await, 0);
    assert_eq!(marking.settle(&fence, event).await, 1);
    assert_eq!(marking.sent().await, 1);
    assert_eq!(
        marking.settle(&fence, event).await,
        0,
        "it is marked already"
    );
}

#[tokio::test]
async fn a_former_owner_cannot_mark() {
    let mut marking = Marking::new("mark_fence").await;
    let zombie = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    let event = marking.event().await;
    assert_eq!(
        marking.acquire(Uuid::now_v7()).await,
        None,
        "the lane is held"
    );
    let expire = "update outboxd_leases set expires_at = '-infinity'";
    execute(&mut marking.fixture.database, expire).await;
    let owner = marking
        .acquire(Uuid::now_v7())
        .await
        .expect("an expired lease is free");
    assert!(owner.epoch > zombie.epoch);
    assert_eq!(marking.settle(&zombie, event).await, 0);
    assert_eq!(marking.sent().await, 0);
    let held = marking
        .leases
        .renew(&mut marking.session, &zombie, LEASE)
        .await;
    assert!(!held.expect("asking"), "nor renew");
    assert_eq!(marking.settle(&owner, event).await, 1);
}

#[tokio::test]
async fn a_former_owner_cannot_end_what_somebody_decided_about_a_breaker() {
    let mut marking = Marking::new("bypass_fence").await;
    let zombie = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    let expire = "update outboxd_leases set expires_at = '-infinity'";
    execute(&mut marking.fixture.database, expire).await;
    let owner = marking.acquire(Uuid::now_v7()).await;
    let owner = owner.expect("an expired lease is free");
    let bypasses = Bypasses::new("public", "public.outbox_events");
    let session = &mut marking.session;
    let topics = ["t".to_owned()];
    let reason = Reason::default();
    let noted = bypasses.note(session, &topics[0], &reason).await;
    assert!(noted.expect("deciding"));
    let taken = EndBypasses::new("public");
    let ended = taken.end(session, &zombie, &topics).await;
    assert!(!ended.expect("asking"), "the lane is lost");
    assert_eq!(bypasses.list(session).await.expect("asking").len(), 1);
    let ended = taken.end(session, &owner, &topics).await;
    assert!(ended.expect("asking"));
    assert_eq!(bypasses.list(session).await.expect("asking"), []);
}

#[tokio::test]
async fn a_takeover_waits_for_a_mark_that_is_under_way() {
    let mut marking = Marking::new("mark_takeover").await;
    let owner = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    execute(
        &mut marking.fixture.database,
        "update outboxd_leases set expires_at = '-infinity'",
    )
    .await;
    let mut mark = marking.fixture.connect().await;
    // What a marking statement holds as long as it runs.
    execute(
        &mut mark,
        "begin; select 1 from outboxd_leases for key share",
    )
    .await;
    let table = "public.outbox_events";
    let taken = marking
        .leases
        .acquire(
            &mut marking.session,
            table,
            LANE,
            Uuid::now_v7(),
            LEASE,
            false,
        )
        .await;
    let error =
        outboxd::outage::chain(&taken.expect_err("it waits, until the lock's time is over"));
    assert!(error.contains("lock timeout"), "{error}");
    let renewed = marking
        .leases
        .renew(&mut marking.session, &owner, LEASE)
        .await;
    assert!(renewed.expect("a renewal does not wait"));
    execute(
        &mut mark,
        "rollback; update outboxd_leases set expires_at = '-infinity'",
    )
    .await;
    assert!(marking.acquire(Uuid::now_v7()).await.is_some());
}

#[tokio::test]
async fn a_released_lane_is_free_at_once() {
    let mut marking = Marking::new("mark_release").await;
    let owner = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    let table = "public.outbox_events";
    let standing = marking.leases.look(&mut marking.session, table, LANE).await;
    assert_eq!(
        standing.expect("asking"),
        Standing::Held { owner: owner.owner }
    );
    marking
        .leases
        .release(&mut marking.session, &owner)
        .await
        .expect("releasing");
    let standing = marking.leases.look(&mut marking.session, table, LANE).await;
    assert_eq!(standing.expect("asking"), Standing::Free);
    let next = marking.acquire(Uuid::now_v7()).await.expect("a free lane");
    assert_eq!(next.epoch, owner.epoch + 1);
}
