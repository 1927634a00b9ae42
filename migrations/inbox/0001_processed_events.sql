-- The inbox: one row per consumer and event, written in the transaction of the event's effect.
--
-- Ids are text, so that UUIDs, ULIDs and the strings of any producer lie in one table. The collation
-- is "C", which orders bytes: fast, the same on every machine, and untouched by a change of locales.
create table processed_events (
    consumer      text  collate "C"  not null,
    event_id      text  collate "C"  not null,
    processed_at  timestamptz        not null default clock_timestamp(),
    outcome       text               not null default 'processed',
    primary key (consumer, event_id),

    constraint "consumer must have 1 to 200 bytes"
        check (octet_length(consumer) between 1 and 200),
    constraint "event_id must have 1 to 1000 bytes"
        check (octet_length(event_id) between 1 and 1000),
    -- A dead letter's id stays claimed; redriven: the next claim takes it; discarded: a person gave it up.
    constraint "outcome must be processed, dead_lettered, redriven or discarded"
        check (outcome in ('processed', 'dead_lettered', 'redriven', 'discarded'))
) partition by hash (event_id);

-- Sixteen parts, by the hash of the id alone: the primary key of each is a level lower than one over all of
-- them, and vacuum reads one part's indexes at a time. No row can be without a part, and none is ever added.
do $$
begin
    for part in 0..15 loop
        -- Rows are inserted and, much later, deleted in batches. Vacuum by fixed numbers, at full speed, and
        -- without the truncation at its end that needs an exclusive lock. Each run reads the part's indexes
        -- as a whole, so it is not to come with every batch that is pruned.
        execute format(
            'create table processed_events_%1$s partition of processed_events '
            'for values with (modulus 16, remainder %1$s) with ('
            'autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, '
            'autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, '
            'autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000, '
            'autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off)', part);
    end loop;
end
$$;

-- Pruning and `inbox status` walk it from a consumer's oldest row; new rows land at one end per consumer.
-- `consumer || ''` is no slip: over the plain column a session that planned its claims while the table was
-- nearly empty took this index for them, and went on reading all rows of the consumer for one duplicate.
create index processed_events_by_time on processed_events ((consumer || ''), processed_at);

-- The few rows that are not simply processed.
create index processed_events_unhappy on processed_events ((consumer || ''), outcome, processed_at)
    where outcome <> 'processed';

-- What the pruner has promised and done, a row per consumer that was ever pruned. Events from before
-- `forgotten_before` may have been forgotten: a claim of one that is absent answers 'expired'. Rows from
-- before `pruned_to` were deleted.
create table processed_consumers (
    consumer          text  collate "C"  primary key,
    forgotten_before  timestamptz        not null,
    pruned_to         timestamptz        not null default '-infinity'
);

-- The form in which an id is kept: a UUID in lower case, anything else as it is.
create function inbox_event_id(event_id text) returns text
    language sql immutable parallel safe
as $$
    select case
        when octet_length(event_id) = 36
         and event_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'
        then lower(event_id)
        else event_id
    end
$$;

-- When the event came to be, as far as its id tells: the milliseconds of a UUIDv7, else null.
create function inbox_event_time(event_id text) returns timestamptz
    language sql immutable parallel safe
as $$
    select case
        when octet_length(event_id) = 36
         and event_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$'
        then to_timestamp(
            ('x0000' || substr(event_id, 1, 8) || substr(event_id, 10, 4))::bit(64)::bigint / 1000.0)
    end
$$;

-- Claims an event for a consumer, in the transaction of the effect:
--
--   'new'        it is yours: do it, and commit both together
--   'duplicate'  it was done already (or dead-lettered): skip it
--   'expired'    it is older than anything still remembered, so nobody can tell: never do it
--
-- Somebody else's claim of the same event that is not yet committed is waited for. Under READ COMMITTED
-- the answer is then 'duplicate', or 'new' if the other rolled back; under REPEATABLE READ and
-- SERIALIZABLE SQLSTATE 40001 may be raised instead, and the transaction is to be run again. A claim that
-- rolls back frees the event, savepoints included.
--
-- Give `created_at`, when the event came to be: without it only a UUIDv7 tells, and any other id that
-- was pruned is taken as new. Where both are known the earlier counts. An event from the future, by a clock
-- that is ahead, is remembered from then on, or it would be forgotten while its time still looks young.
--
-- The planner's choice is taken from it where only one plan is right: a session that planned while the
-- table was small would else keep scanning it.
create function inbox_claim(
    consumer    text,
    event_id    text,
    created_at  timestamptz default null
) returns text
    language plpgsql volatile
    set search_path from current
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    id        text := inbox_event_id(inbox_claim.event_id);
    happened  timestamptz := least(inbox_claim.created_at, inbox_event_time(id));
    found_as  text;
begin
    insert into processed_events (consumer, event_id, processed_at)
    select inbox_claim.consumer, id, greatest(clock_timestamp(), happened)
    where not exists (
        select from processed_consumers c
        where c.consumer = inbox_claim.consumer and c.forgotten_before > happened)
    on conflict do nothing;
    if found then
        return 'new';
    end if;
    select p.outcome into found_as from processed_events p
    where p.consumer = inbox_claim.consumer and p.event_id = id;
    if not found then
        return 'expired';
    end if;
    if found_as = 'redriven' then
        update processed_events p set outcome = 'processed', processed_at = clock_timestamp()
        where p.consumer = inbox_claim.consumer and p.event_id = id and p.outcome = 'redriven';
        if found then
            return 'new';
        end if;
    end if;
    return 'duplicate';
end
$$;

-- The same for drivers that say of a parameter that it is a UUID.
create function inbox_claim(
    consumer    text,
    event_id    uuid,
    created_at  timestamptz default null
) returns text
    language sql volatile
    set search_path from current
as $$
    select inbox_claim(consumer, event_id::text, created_at)
$$;

-- Claims many events at once: one answer per distinct id, in the form in which ids are kept. They are
-- claimed in the order of their bytes, so that batches wait for each other and do not deadlock; a
-- transaction that claims more than once, or one by one, keeps to that order itself.
create function inbox_claim_batch(
    consumer     text,
    event_ids    text[],
    created_ats  timestamptz[] default null
) returns table (event_id text, claim text)
    language plpgsql volatile
    set search_path from current
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    ids        text[];
    times      timestamptz[];
    fresh      text[];
    known      text[];
    sent_back  text[];
    id         text;
begin
    if cardinality(created_ats) <> cardinality(event_ids) then
        raise exception 'created_ats must be as long as event_ids (%), is %',
            cardinality(event_ids), cardinality(created_ats) using errcode = '22023';
    end if;
    select array_agg(e.id order by e.id), array_agg(e.happened order by e.id) into ids, times
    from (
        select g.id collate "C" as id, least(min(g.created_at), inbox_event_time(g.id)) as happened
        from (
            select inbox_event_id(u.event_id) as id, u.created_at
            from unnest(event_ids, created_ats) as u (event_id, created_at)) g
        group by g.id) e;

    with inserted as (
        insert into processed_events (consumer, event_id, processed_at)
        select inbox_claim_batch.consumer, e.id, greatest(clock_timestamp(), e.happened)
        from unnest(ids, times) as e (id, happened)
        where not coalesce(e.happened < (
            select c.forgotten_before from processed_consumers c
            where c.consumer = inbox_claim_batch.consumer), false)
        order by e.id collate "C"
        on conflict do nothing
        returning processed_events.event_id)
    select coalesce(array_agg(i.event_id), '{}') into fresh from inserted i;
    if cardinality(fresh) = cardinality(ids) then
        return query select e.id, 'new' from unnest(ids) as e (id);
        return;
    end if;

    -- `limit` keeps it to one look into the primary key per id, whatever the statistics say.
    select coalesce(array_agg(e.id) filter (where p.outcome is not null), '{}'),
           coalesce(array_agg(e.id order by e.id collate "C") filter (where p.outcome = 'redriven'), '{}')
    into known, sent_back
    from unnest(ids) as e (id)
    left join lateral (
        select p.outcome from processed_events p
        where p.consumer = inbox_claim_batch.consumer and p.event_id = e.id
        limit 1) p on true;
    foreach id in array sent_back loop
        update processed_events p set outcome = 'processed', processed_at = clock_timestamp()
        where p.consumer = inbox_claim_batch.consumer and p.event_id = id and p.outcome = 'redriven';
        if found then
            fresh := fresh || id;
        end if;
    end loop;

    return query
    select e.id, case
        when f.id is not null then 'new'
        when k.id is not null then 'duplicate'
        else 'expired' end
    from unnest(ids) as e (id)
    left join unnest(fresh) as f (id) on f.id = e.id
    left join unnest(known) as k (id) on k.id = e.id;
end
$$;
