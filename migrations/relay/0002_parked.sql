-- What the relay has set aside, for a person to decide about.

-- One row for each event that cannot be published. The event itself stays where it is, unsent and complete;
-- this says why it is passed over. `event_id` is the event's, or, for an id that is no UUID, what the relay
-- tells it by: after a crash of Postgres an `id` can be drawn again for another event.
create table outboxd_parked (
    outbox           text         not null,
    id               bigint       not null,
    event_id         uuid         not null,
    event_type       text,
    topic            text         not null,
    key              bytea,
    class            text         not null,
    reason           text         not null,
    attempts         integer      not null,
    first_failed_at  timestamptz  not null,
    parked_at        timestamptz  not null default clock_timestamp(),
    -- The later rows of its key wait for the decision.
    blocks_key       boolean      not null,
    decision         text,
    decided_at       timestamptz,
    decided_by       text,
    decided_why      text,
    primary key (outbox, id),

    constraint "class must be row, crash or unknown"
        check (class in ('row', 'crash', 'unknown')),
    constraint "decision must be retry or discard, with its time and author"
        check (case when decision is null then decided_at is null and decided_by is null
               else decision in ('retry', 'discard') and decided_at is not null and decided_by is not null end)
);

-- The relay looks here every second.
create index outboxd_parked_decided on outboxd_parked (outbox, id) where decision is not null;
-- Whether another row blocks the same key, which may be longer than an index takes.
create index outboxd_parked_blocking on outboxd_parked (outbox, sha256(key)) where blocks_key;

-- What was decided and done, for good.
create table outboxd_decisions (
    outbox           text         not null,
    id               bigint       not null,
    event_id         uuid         not null,
    event_type       text,
    topic            text         not null,
    class            text         not null,
    reason           text         not null,
    parked_at        timestamptz  not null,
    decision         text         not null,
    decided_at       timestamptz  not null,
    decided_by       text         not null,
    decided_why      text,
    applied_at       timestamptz  not null default clock_timestamp()
);

create index outboxd_decisions_by_event on outboxd_decisions (outbox, id);

-- Decides about parked rows of an outbox, named by its table as in outboxd_parked; says how many that were.
-- The relay that owns the outbox acts on it within a second or so; if none runs, the next one does.
--
--   'retry'    the row goes out again, under its old id
--   'discard'  it never goes out: it is marked as if it had been sent, and forgotten with its retention
--
-- A decision that was not acted upon yet can be replaced by another.
create function outbox_dead_decide(
    outbox    text,
    ids       bigint[],
    decision  text,
    why       text default null,
    who       text default session_user
) returns bigint
    language sql volatile
    set search_path from current
as $$
    with decided as (
        update outboxd_parked p
        set decision = outbox_dead_decide.decision, decided_at = clock_timestamp(),
            decided_by = outbox_dead_decide.who, decided_why = outbox_dead_decide.why
        where p.outbox = outbox_dead_decide.outbox and p.id = any(outbox_dead_decide.ids)
        returning 1)
    select count(*) from decided
$$;
