//! What a claim and a batch of the pruner cost when there is much to remember: in buffers, since timings
//! depend on the machine, and bounded by `lock_timeout` where somebody could wait.
//!
//! 500,000 ids, or `OUTBOXD_INBOX_IDS`; with `OUTBOXD_SOAK`, 10,000,000.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outboxd::inbox::{ConsumerName, EventId, Identity, Inbox, Prune, commit};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::InboxDatabase;
use crate::support::fixture::{execute, number};

const FEW: u64 = 10_000;

/// Claims of one batch.
const BATCH: u64 = 500;

/// The most that a claim may touch more than with [`FEW`] ids.
const MOST: f64 = 1.5;

fn soak() -> bool {
    std::env::var_os("OUTBOXD_SOAK").is_some()
}

fn ids() -> u64 {
    let given = std::env::var("OUTBOXD_INBOX_IDS").ok();
    let default = if soak() { 10_000_000 } else { 500_000 };
    given.map_or(default, |ids| {
        ids.parse().expect("OUTBOXD_INBOX_IDS is a number")
    })
}

/// The nth id as SQL: UUIDv7 and text in turn, the text in no order.
fn id_sql(n: &str) -> String {
    format!("case when {n} % 2 = 0 then outbox_like_uuidv7({n}) else 'evt_' || md5({n}::text) end")
}

/// Rows `from..to`, processed over the last 28 days.
async fn remember(connection: &mut PgConnection, from: u64, to: u64) {
    for start in (from..to).step_by(500_000) {
        let end = to.min(start + 500_000) - 1;
        let sql = format!(
            "insert into processed_events (consumer, event_id, processed_at) \
             select 'c', {}, now() - interval '28 days' + n * (interval '28 days' / {}) \
             from generate_series({start}, {end}) as n",
            id_sql("n"),
            ids()
        );
        execute(connection, &sql).await;
    }
}

/// Buffers that a statement touched, the statements inside of functions included.
async fn buffers(connection: &mut PgConnection, sql: &str) -> u64 {
    let sql = format!("explain (analyze, buffers, costs off, timing off) {sql}");
    let rows = sqlx::query(AssertSqlSafe(sql.clone()))
        .fetch_all(connection)
        .await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let line = lines
        .iter()
        .find(|line| line.contains("Buffers: "))
        .expect("buffers");
    line.split([' ', '='])
        .zip(line.split([' ', '=']).skip(1))
        .filter(|(name, _)| ["hit", "read"].contains(name))
        .map(|(_, count)| count.parse::<u64>().expect("a count"))
        .sum()
}

/// Average buffers of a claim: new, duplicate, and one of a batch, new and duplicate.
#[derive(Debug)]
struct Cost {
    new: f64,
    duplicate: f64,
    batch_new: f64,
    batch_duplicate: f64,
}

impl Cost {
    async fn measure(inbox: &InboxDatabase, known: u64) -> Cost {
        const CLAIMS: u64 = 200;
        let mut connection = inbox.connect().await;
        let connection = &mut connection;
        let fresh = ids() + 1_000_000 + known;
        // Plans and caches are made first.
        for n in 0..20 {
            let id = id_sql(&(fresh + 500_000 + n).to_string());
            buffers(connection, &format!("select inbox_claim('c', {id})")).await;
            batch(connection, fresh + 600_000 + 10 * n, 10).await;
        }
        let (mut new, mut duplicate) = (0, 0);
        for n in 0..CLAIMS {
            let id = id_sql(&(fresh + n).to_string());
            new += buffers(connection, &format!("select inbox_claim('c', {id})")).await;
            let id = id_sql(&(n * (known / CLAIMS)).to_string());
            duplicate += buffers(connection, &format!("select inbox_claim('c', {id})")).await;
        }
        let average = |buffers: u64, claims: u64| buffers as f64 / claims as f64;
        Cost {
            new: average(new, CLAIMS),
            duplicate: average(duplicate, CLAIMS),
            batch_new: average(cheapest(connection, fresh + 10_000).await, BATCH),
            batch_duplicate: average(cheapest(connection, known / 2).await, BATCH),
        }
    }

    fn all(&self) -> [f64; 4] {
        [
            self.new,
            self.duplicate,
            self.batch_new,
            self.batch_duplicate,
        ]
    }

    /// Whether every kind is within [`MOST`].
    fn within(&self, few: &Cost) -> bool {
        let mut kinds = self.all().into_iter().zip(few.all());
        kinds.all(|(many, few)| many <= MOST * few)
    }
}

/// The cheapest of some batches: autovacuum may have one planned anew, which reads the catalogue.
async fn cheapest(connection: &mut PgConnection, from: u64) -> u64 {
    let mut least = u64::MAX;
    for round in 0..5 {
        least = least.min(batch(connection, from + round * BATCH, BATCH).await);
    }
    least
}

async fn batch(connection: &mut PgConnection, from: u64, count: u64) -> u64 {
    let ids = format!(
        "select array_agg({}) from generate_series({from}, {}) as n",
        id_sql("n"),
        from + count - 1
    );
    buffers(
        connection,
        &format!("select * from inbox_claim_batch('c', ({ids}))"),
    )
    .await
}

#[tokio::test]
async fn claims_and_pruning_cost_the_same_however_much_is_remembered() {
    let inbox = InboxDatabase::new("inbox_size").await;
    let mut owner = inbox.connect().await;
    execute(
        &mut owner,
        "create function outbox_like_uuidv7(n bigint) returns text language sql immutable as $$ \
             select regexp_replace(lpad(to_hex(1767225600000 + n * 100), 12, '0') || '7' \
                 || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15), \
                 '(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5') $$",
    )
    .await;
    let mut early = planned_while_empty(&inbox).await;
    remember(&mut owner, 0, FEW).await;
    let id = id_sql("4711");
    let duplicate = buffers(&mut early, &format!("select inbox_claim('c', {id})")).await;
    let duplicates = batch(&mut early, 5_000, BATCH).await / BATCH;
    println!("inbox size: planned while empty: duplicate {duplicate}, in a batch {duplicates}");
    assert!(
        duplicate < 50 && duplicates < 50,
        "{duplicate} and {duplicates} buffers"
    );
    execute(&mut owner, "vacuum analyze processed_events").await;
    let few = Cost::measure(&inbox, FEW).await;
    remember(&mut owner, FEW, ids()).await;
    // Statistics may be as old as the table was small; the plans must not depend on them.
    let many = Cost::measure(&inbox, ids()).await;
    println!("inbox size: {FEW} ids {few:.1?}, {} ids {many:.1?}", ids());
    assert!(
        many.within(&few),
        "more than {MOST} times: {few:?} {many:?}"
    );

    execute(
        &mut owner,
        "create table batches (rows bigint); \
         create function count_batch() returns trigger language plpgsql as $$ begin \
             insert into batches select count(*) from gone; return null; end $$; \
         create trigger count_batch after delete on processed_events \
             referencing old table as gone for each statement execute function count_batch()",
    )
    .await;
    let before = number(&mut owner, "select count(*) from processed_events").await;
    let claims = prune_beside_claims(&inbox).await;
    let largest = number(&mut owner, "select max(rows) from batches").await;
    let deleted = number(&mut owner, "select sum(rows)::bigint from batches").await;
    println!(
        "inbox size: {deleted} of {before} rows pruned in batches of at most {largest}, {claims} claims beside"
    );
    assert!(largest <= 5_000, "{largest} rows in one batch");
    assert!(claims > 0);
    let half = (ids() / 2).cast_signed();
    assert!(
        (half - half / 50..=half).contains(&deleted),
        "{deleted} rows"
    );
}

/// A session that made its plans while the table was empty, and known to be.
async fn planned_while_empty(inbox: &InboxDatabase) -> PgConnection {
    let mut session = inbox.connect().await;
    execute(
        &mut session,
        "vacuum (analyze) processed_events, processed_consumers",
    )
    .await;
    for _ in 0..10 {
        execute(
            &mut session,
            "begin; select inbox_claim('c', 'x'); select inbox_claim('c', 'x'); \
             select * from inbox_claim_batch('c', array['x', 'y']); rollback",
        )
        .await;
    }
    session
}

/// Prunes the older half while others claim old and new ids; how many claims there were.
async fn prune_beside_claims(inbox: &InboxDatabase) -> u64 {
    let done = Arc::new(AtomicBool::new(false));
    let claimers: Vec<_> = (0..3u64)
        .map(|seed| {
            let (pool, done) = (inbox.pool.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut connection = pool.acquire().await.expect("a connection");
                // What waits for longer fails with 55P03.
                execute(&mut connection, "set lock_timeout = '2s'").await;
                let mut claims = 0;
                while !done.load(Ordering::Relaxed) {
                    let n = random.u64(0..2 * ids()).to_string();
                    let sql = format!("select inbox_claim('c', {})", id_sql(&n));
                    execute(&mut connection, &sql).await;
                    claims += 1;
                }
                claims
            })
        })
        .collect();
    let mut connection = inbox.connect().await;
    let prune = Prune::after(Duration::from_secs(14 * 86_400));
    let pruned = name().prune(&mut connection, &prune).await.expect("pruned");
    assert_eq!(pruned.waiting_for, 0);
    done.store(true, Ordering::Relaxed);
    let mut claims = 0;
    for claimer in claimers {
        claims += claimer
            .await
            .expect("no claim waits for longer than its lock_timeout");
    }
    claims
}

fn name() -> Inbox {
    Inbox::new(ConsumerName::new("c").expect("a name"))
}

/// The gain of batches: printed here, judged by `.ci/soak inbox-rate` only, since timings are the machine's.
#[tokio::test]
async fn batches_of_claims_beside_one_commit_per_event() {
    const BATCH: u32 = 1_000;
    let inbox = InboxDatabase::new("inbox_rate").await;
    let (singles, batches) = if soak() { (20_000, 500) } else { (200, 5) };
    let event = |prefix: &str, n: u32| -> Identity {
        EventId::text(format!("{prefix}-{n:08}"))
            .expect("an id")
            .into()
    };
    let claims = name();
    let started = Instant::now();
    for n in 0..singles {
        let mut tx = inbox.pool.begin().await.expect("a transaction");
        let _ = claims
            .claim(&mut tx, &event("single", n))
            .await
            .expect("a claim");
        commit(tx).await.expect("committed");
    }
    let single = f64::from(singles) / started.elapsed().as_secs_f64();
    let started = Instant::now();
    for round in 0..batches {
        let events: Vec<_> = (0..BATCH)
            .map(|n| event("batch", round * BATCH + n))
            .collect();
        let mut tx = inbox.pool.begin().await.expect("a transaction");
        let _ = claims.claim_batch(&mut tx, &events).await.expect("claims");
        commit(tx).await.expect("committed");
    }
    let batched = f64::from(batches * BATCH) / started.elapsed().as_secs_f64();
    let times = batched / single;
    println!(
        "inbox rate: one commit per event {single:.0}/s, batches of {BATCH} {batched:.0}/s, {times:.1} times"
    );
    assert!(!soak() || times >= 20.0, "only {times:.1} times");
}
