-- What somebody has stopped, until somebody lets it go on.

-- One row for each outbox, or topic of it, that is paused: its rows wait in their table.
create table outboxd_pauses (
    outbox  text         not null,
    -- Null: all of the outbox.
    topic   text,
    since   timestamptz  not null default clock_timestamp(),
    by      text         not null,
    why     text,

    constraint "topic must not be empty"
        check (topic <> '')
);

create unique index outboxd_pauses_once on outboxd_pauses (outbox, coalesce(topic, ''));

-- Pauses an outbox, named by its table as in outboxd_leases, or one topic of it; false if it is paused
-- already, which then stays as it is.
create function outbox_pause(
    outbox  text,
    topic   text default null,
    why     text default null,
    who     text default session_user
) returns boolean
    language sql volatile
    set search_path from current
as $$
    with paused as (
        insert into outboxd_pauses (outbox, topic, by, why)
        values (outbox_pause.outbox, outbox_pause.topic, outbox_pause.who, outbox_pause.why)
        on conflict do nothing
        returning 1)
    select exists (select from paused)
$$;

-- Lets it go on; false if it was not paused. A topic that is paused by itself stays so when its outbox goes on.
create function outbox_resume(
    outbox  text,
    topic   text default null
) returns boolean
    language sql volatile
    set search_path from current
as $$
    with resumed as (
        delete from outboxd_pauses p
        where p.outbox = outbox_resume.outbox and p.topic is not distinct from outbox_resume.topic
        returning 1)
    select exists (select from resumed)
$$;
