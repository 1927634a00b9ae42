-- What somebody has decided about topics whose rows are refused one after the other.

-- One row for each decision that the refused rows of a topic are parked, though the topic is to blame and not they.
-- The relay ends it with the first row that the topic takes. Decisions that have ended stay, for those who ask who
-- had rows parked, and why.
create table outboxd_bypasses (
    outbox    text         not null,
    topic     text         not null,
    since     timestamptz  not null default clock_timestamp(),
    by        text         not null,
    why       text,
    -- Null: it is in force.
    ended_at  timestamptz,

    constraint "topic must not be empty"
        check (topic <> '')
);

create unique index outboxd_bypasses_once on outboxd_bypasses (outbox, topic) where ended_at is null;

-- Has the refused rows of a topic parked until Kafka takes one; the outbox is named by its table as in outboxd_leases.
-- False if that was decided already, which then stays as it is. The relay that owns the outbox acts on it within a
-- second or so; if none runs, the next one does. Where no breaker is open the next row that Kafka takes ends it.
create function outbox_dead_park(
    outbox  text,
    topic   text,
    why     text default null,
    who     text default session_user
) returns boolean
    language sql volatile
    set search_path from current
as $$
    with decided as (
        insert into outboxd_bypasses (outbox, topic, by, why)
        values (outbox_dead_park.outbox, outbox_dead_park.topic, outbox_dead_park.who, outbox_dead_park.why)
        on conflict do nothing
        returning 1)
    select exists (select from decided)
$$;

-- Takes that back: the breaker holds the topic's rows again. False if nobody had decided it.
create function outbox_dead_park_stop(
    outbox  text,
    topic   text
) returns boolean
    language sql volatile
    set search_path from current
as $$
    with stopped as (
        update outboxd_bypasses b set ended_at = clock_timestamp()
        where b.outbox = outbox_dead_park_stop.outbox and b.topic = outbox_dead_park_stop.topic
          and b.ended_at is null
        returning 1)
    select exists (select from stopped)
$$;
