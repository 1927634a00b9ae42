//! Two relays for one outbox: one owns it, the other stands by.

use std::time::{Duration, Instant};

use super::{Scenario, Size};
use crate::support::relay::OWNS;
use crate::support::services;

/// Long enough that "at once" can be told from it.
const LEASE: Duration = Duration::from_secs(5);

/// What a shared machine may add to either.
const SLACK: Duration = Duration::from_secs(2);

/// The default of `outbox.default.window_rows`.
const WINDOW_ROWS: usize = 6_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_at_once_from_a_leaver_and_within_the_lease_from_a_dead() {
    let size = Size {
        transactions: 4_000,
        rounds: 4,
        full_rounds: 20,
    };
    let scenario = Scenario::new("two-relays", size).await;
    let database = services::postgres().await.create_database("scenario").await;
    let kafka = services::kafka().await;
    let mut stage = scenario.on(&database.url, kafka.bootstrap()).await;
    let lease = format!("{} s", LEASE.as_secs());
    stage.relay.set("relay.lease", &lease);
    let mut standby = stage.another_relay("standby");
    standby.set("relay.lease", &lease);
    stage.relay.start();
    stage.relay.logs_more(OWNS, 0).await;
    let mut longest = [Duration::ZERO; 2];
    for round in 0..stage.scenario.rounds {
        standby.start();
        standby
            .logs_more("standing by", standby.logged("standing by"))
            .await;
        stage.write_for_round(round);
        stage.publishes().await;
        // Before the disturbance: a standby that takes over repeats before anybody could ask for the ends.
        stage.end_period().await;
        let owned = standby.logged(OWNS);
        let dies = round % 2 == 1;
        match dies {
            true => stage.relay.kill().await,
            false => stage.relay.stop().await,
        }
        let left = Instant::now();
        standby.logs_more(OWNS, owned).await;
        let (took, most) = (left.elapsed(), if dies { LEASE } else { Duration::ZERO });
        assert!(
            took <= most + SLACK,
            "round {round}: taken over after {took:?}"
        );
        longest[usize::from(dies)] = longest[usize::from(dies)].max(took);
        stage.settles().await;
        std::mem::swap(&mut stage.relay, &mut standby);
    }
    let handovers = format!(
        "{} handovers (after a stop within {:?}, after a kill within {:?} with a lease of {LEASE:?})",
        stage.scenario.rounds, longest[0], longest[1]
    );
    let counts = stage.finish(handovers).await;
    for (repeats, round) in counts.repeats_by_period.iter().skip(1).zip(0..) {
        let most = if round % 2 == 1 { WINDOW_ROWS } else { 0 };
        assert!(*repeats <= most, "{:?}", counts.repeats_by_period);
    }
}

/// A frozen owner wakes up after another has taken over: it may repeat what it had in flight, and must
/// neither reorder nor mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_owner_that_wakes_up_reorders_nothing() {
    let size = Size {
        transactions: 3_000,
        rounds: 2,
        full_rounds: 20,
    };
    let scenario = Scenario::new("frozen-owner", size).await;
    let database = services::postgres().await.create_database("scenario").await;
    let kafka = services::kafka().await;
    let mut stage = scenario.on(&database.url, kafka.bootstrap()).await;
    stage.relay.set("relay.lease", "1s");
    let mut standby = stage.another_relay("standby");
    standby.set("relay.lease", "1s");
    stage.relay.start();
    stage.relay.logs_more(OWNS, 0).await;
    standby.start();
    for round in 0..stage.scenario.rounds {
        stage.write_for_round(round);
        stage.publishes().await;
        let (owned, lost) = (standby.logged(OWNS), stage.relay.logged("lost the lease"));
        stage.relay.freeze();
        standby.logs_more(OWNS, owned).await;
        stage.publishes().await;
        stage.relay.thaw();
        stage.relay.logs_more("lost the lease", lost).await;
        stage.end_period().await;
        std::mem::swap(&mut stage.relay, &mut standby);
    }
    standby.stop().await;
    let rounds = format!("{} frozen owners", stage.scenario.rounds);
    let counts = stage.finish(rounds).await;
    let most = 2 * WINDOW_ROWS;
    assert!(
        counts
            .repeats_by_period
            .iter()
            .all(|repeats| *repeats <= most)
    );
}
