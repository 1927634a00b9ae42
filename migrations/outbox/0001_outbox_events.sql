-- The outbox: the application inserts, the relay publishes in the order of `id` and sets `sent_at`.
--
-- The constraints' names are the messages an application sees, so they say the rule.
create table outbox_events (
    id              bigint      generated always as identity primary key,
    event_id        uuid        not null default outbox_uuidv7(),
    aggregate_type  text        not null,
    aggregate_id    text        not null,
    event_type      text        not null,
    event_version   text        not null default '1',
    payload         json,
    payload_bytes   bytea,
    correlation_id  text,
    causation_id    text,
    traceparent     text,
    tracestate      text,
    headers         jsonb,
    topic           text,
    partition_key   text,
    created_at      timestamptz not null default clock_timestamp(),
    sent_at         timestamptz,

    constraint "give payload or payload_bytes, not both"
        check (payload is null or payload_bytes is null),
    constraint "aggregate_type must not be empty"
        check (aggregate_type <> ''),
    constraint "event_type must not be empty"
        check (event_type <> ''),
    constraint "event_version must not be empty"
        check (event_version <> ''),
    constraint "topic must be 1 to 249 of a-z A-Z 0-9 . _ -"
        check (topic ~ '^[a-zA-Z0-9._-]{1,249}$' and topic not in ('.', '..')),
    constraint "headers must be a flat object of strings, no reserved names"
        check (headers is null or outbox_headers_valid(headers)),
    constraint "created_at must be finite"
        check (isfinite(created_at))
) with (
    -- A queue's table: vacuum by a fixed number of dead rows, at full speed, without the
    -- truncation at its end that needs an exclusive lock.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off,
    toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 10000,
    toast.autovacuum_vacuum_cost_delay = 0,
    toast.vacuum_truncate = off
);

-- Every scan of the relay walks this index: what is not sent yet, in order.
create index outbox_events_unsent on outbox_events (id) where sent_at is null;

-- Takes the key's lock, then draws the id: for applications that hold no lock of their own on the
-- aggregate. The lock is pg_advisory_xact_lock(1869968482, hashtext(key)), the key being the
-- partition key or else the aggregate id; 1869968482 is "outb" in ASCII. Append the events of several
-- keys in sorted order of their keys, or two transactions may wait for each other. Returns the event id.
create function outbox_append(
    aggregate_type  text,
    aggregate_id    text,
    event_type      text,
    payload         json    default null,
    event_version   text    default '1',
    payload_bytes   bytea   default null,
    correlation_id  text    default null,
    causation_id    text    default null,
    traceparent     text    default null,
    tracestate      text    default null,
    headers         jsonb   default null,
    topic           text    default null,
    partition_key   text    default null,
    event_id        uuid    default null
) returns uuid
    language plpgsql volatile
    set search_path from current
as $$
#variable_conflict use_variable
begin
    event_id := coalesce(event_id, outbox_uuidv7());
    perform pg_advisory_xact_lock(1869968482, hashtext(coalesce(partition_key, aggregate_id)));
    insert into outbox_events (
        event_id, aggregate_type, aggregate_id, event_type, event_version, payload, payload_bytes,
        correlation_id, causation_id, traceparent, tracestate, headers, topic, partition_key)
    values (
        event_id, aggregate_type, aggregate_id, event_type, event_version, payload, payload_bytes,
        correlation_id, causation_id, traceparent, tracestate, headers, topic, partition_key);
    return event_id;
end
$$;
