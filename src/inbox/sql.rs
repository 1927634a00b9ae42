//! The statements of the inbox, built once. All claims go through the SQL functions of the migration, so
//! that there is one truth for every language.

use std::sync::Arc;

/// Rows beyond a batch that are looked at for those that somebody holds.
const PASSED: i64 = 1000;

/// Statements with the schema's name in front of what they use.
#[derive(Debug, Clone)]
pub(super) struct Statements {
    pub claim: Arc<str>,
    pub claim_batch: Arc<str>,
    pub due: Arc<str>,
    pub raise: Arc<str>,
    pub running: Arc<str>,
    pub delete: Arc<str>,
    pub consumers: Arc<str>,
    pub state: Arc<str>,
    #[cfg(feature = "relay")]
    pub processed: Arc<str>,
    #[cfg(feature = "relay")]
    pub forgotten: Arc<str>,
    pub estimate: Arc<str>,
}

impl Statements {
    /// `schema`: none leaves it to the connection's search path; else a checked identifier.
    pub fn new(schema: Option<&str>) -> Statements {
        let s = schema.map_or_else(String::new, |schema| format!("\"{schema}\"."));
        Statements {
            // Times are handed over in microseconds, so that no time crate need be agreed upon.
            claim: format!(
                "select {s}inbox_claim($1, $2::text, to_timestamp($3::bigint / 1e6::float8))"
            )
            .into(),
            claim_batch: format!(
                "select c.event_id, c.claim from {s}inbox_claim_batch($1, $2, (\
                     select array_agg(to_timestamp(t.us / 1e6::float8) order by t.at) \
                     from unnest($3::bigint[]) with ordinality as t (us, at))) as c"
            )
            .into(),
            // A row of a transaction that was open for long lies behind what was pruned: a day is looked
            // back for it. One that comes later than that is remembered for good, which is harmless.
            due: format!(
                "with t as materialized (\
                     select now.at - make_interval(secs => $2) as horizon, \
                            now.at - make_interval(secs => $2 + $3) as cut \
                     from clock_timestamp() as now (at)), \
                 b as materialized (\
                     select t.cut, t.horizon, coalesce(c.pruned_to - interval '1 day', '-infinity') as start \
                     from t left join {s}processed_consumers c on c.consumer = $1) \
                 select b.cut::text, b.horizon::text, b.start::text, exists (\
                     select from {s}processed_events p \
                     where p.consumer || '' = $1 and p.processed_at >= b.start and p.processed_at < b.cut \
                       and p.outcome in ('processed', 'discarded')) \
                 from b"
            )
            .into(),
            raise: format!(
                "insert into {s}processed_consumers as c (consumer, forgotten_before) \
                 values ($1, $2::text::timestamptz) \
                 on conflict (consumer) do update \
                 set forgotten_before = greatest(c.forgotten_before, excluded.forgotten_before)"
            )
            .into(),
            // Autovacuum, which claims nothing and may run for hours, has no user.
            running: "select l.virtualxid from pg_locks l join pg_stat_activity a on a.pid = l.pid \
                 where l.locktype = 'virtualxid' and l.granted and l.mode = 'ExclusiveLock' \
                   and a.datid = (select oid from pg_database where datname = current_database()) \
                   and a.usesysid is not null and l.pid <> pg_backend_pid() \
                   and ($1::text[] is null or l.virtualxid = any($1))"
                .into(),
            // A dead letter stays until somebody has decided about it, and counts from then. Rows under
            // somebody's lock are being sent back, or taken: they stay, and what is noted as pruned
            // does not pass them. Those as young as the last of a full batch are not passed yet.
            delete: format!(
                "with seen as materialized (\
                     select event_id, processed_at from {s}processed_events \
                     where consumer || '' = $1 and processed_at >= $2::text::timestamptz \
                       and processed_at < $3::text::timestamptz \
                       and outcome in ('processed', 'discarded') \
                     order by processed_at limit $4 + {PASSED}), \
                 due as materialized (\
                     select event_id, processed_at from {s}processed_events \
                     where consumer || '' = $1 and processed_at >= $2::text::timestamptz \
                       and processed_at < $3::text::timestamptz \
                       and outcome in ('processed', 'discarded') \
                     order by processed_at limit $4 for update skip locked), \
                 gone as (\
                     delete from {s}processed_events p using due d \
                     where p.consumer = $1 and p.event_id = d.event_id), \
                 done as (select count(*) as rows, max(processed_at) as last from due), \
                 passed as (\
                     select min(s.processed_at) as first from (\
                         select s.event_id, s.processed_at from seen s, done d \
                         where d.rows < $4 or s.processed_at < d.last \
                         except select event_id, processed_at from due) s), \
                 noted as (\
                     update {s}processed_consumers c \
                     set pruned_to = greatest(c.pruned_to, least($5::text::timestamptz, p.first, case \
                         when d.rows < $4 then $3::text::timestamptz else d.last end)) \
                     from done d, passed p where c.consumer = $1) \
                 select d.rows, d.last::text, coalesce($5, p.first::text) from done d, passed p"
            )
            .into(),
            // From one name to the next through the index, however many rows lie between.
            consumers: format!(
                "with recursive n (consumer) as (\
                     (select consumer from {s}processed_events order by consumer limit 1) \
                     union all \
                     select (select p.consumer from {s}processed_events p \
                             where p.consumer > n.consumer order by p.consumer limit 1) \
                     from n where n.consumer is not null) \
                 select consumer from n where consumer is not null \
                 union select consumer from {s}processed_consumers order by 1"
            )
            .into(),
            // The primary key begins with the consumer.
            #[cfg(feature = "relay")]
            processed: format!(
                "select consumer, event_id, outcome, (extract(epoch from processed_at) * 1e6)::bigint \
                 from {s}processed_events where consumer = any ($1) and event_id = any ($2) \
                 order by processed_at"
            )
            .into(),
            #[cfg(feature = "relay")]
            forgotten: format!(
                "select consumer, (extract(epoch from forgotten_before) * 1e6)::bigint \
                 from {s}processed_consumers order by consumer"
            )
            .into(),
            state: format!(
                "select (extract(epoch from c.forgotten_before) * 1e6)::bigint, \
                        (select (extract(epoch from p.processed_at) * 1e6)::bigint \
                         from {s}processed_events p where p.consumer || '' = $1 \
                           and p.processed_at >= coalesce(c.pruned_to - interval '1 day', '-infinity') \
                         order by p.processed_at limit 1), \
                        (select count(*) from (\
                             select from {s}processed_events p where p.consumer = $1 limit $2) p), \
                        (select count(*) from (\
                             select from {s}processed_events p \
                             where p.consumer || '' = $1 and p.outcome = 'dead_lettered' limit $2) p) \
                 from (select $1::text as consumer) n \
                 left join {s}processed_consumers c on c.consumer = n.consumer"
            )
            .into(),
            estimate: format!(
                "explain (format text) select from {s}processed_events where consumer = $1"
            )
            .into(),
        }
    }
}

/// The settings of one transaction of the pruner: nobody waits longer for it than it waits for anybody, and
/// the only plan that is ever right is taken, whatever the statistics say.
pub(super) const PRUNING: &str = "select set_config('lock_timeout', $1, true), \
     set_config('statement_timeout', $1, true), set_config('enable_seqscan', 'off', true), \
     set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true), \
     set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)";

/// Fails in a transaction that is aborted, and in one whose deferred constraints do not hold: its commit
/// would fail, and be taken for a lost connection.
pub(super) const IS_SOUND: &str = "set constraints all immediate";

/// The longest identifier Postgres keeps, in bytes (`NAMEDATALEN - 1`).
pub(crate) const MAX_IDENTIFIER_BYTES: usize = 63;

/// Of a name that needs no quotes: `[a-z_][a-z0-9_]*`, not longer than Postgres keeps.
pub(crate) fn is_identifier(name: &str) -> bool {
    let legal = |(at, byte): (usize, u8)| {
        byte.is_ascii_lowercase() || byte == b'_' || (at > 0 && byte.is_ascii_digit())
    };
    (1..=MAX_IDENTIFIER_BYTES).contains(&name.len()) && name.bytes().enumerate().all(legal)
}
