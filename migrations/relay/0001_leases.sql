-- What the relay itself needs: the lease of each lane and the functions the outbox tables share.

-- One row per lane of an outbox. `epoch` grows with every change of owner and fences the writes of a
-- former one; `expires_at` is judged by this database's clock alone. A clean stop sets `owner` to null.
-- `unclean_starts` counts owners in succession that took it from one that had died without progress, and
-- `trial_rows` how many rows above `trial_after` the last of them dared to read.
create table outboxd_leases (
    outbox          text        not null,
    lane            integer     not null default 0,
    owner           uuid,
    epoch           bigint      not null default 0,
    expires_at      timestamptz not null default '-infinity',
    unclean_starts  integer     not null default 0 check (unclean_starts >= 0),
    trial_after     bigint,
    trial_rows      integer     check (trial_rows > 0),
    primary key (outbox, lane)
);

-- A UUIDv7 (RFC 9562): 48 bits of Unix time in milliseconds, then random bits. PostgreSQL 18 brings its
-- own uuidv7(); this one works from 13 on and keeps the default the same across an upgrade.
create function outbox_uuidv7() returns uuid
    language sql volatile parallel safe
as $$
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- True for a flat JSON object of strings that uses none of the names outboxd sets itself.
create function outbox_headers_valid(headers jsonb) returns boolean
    language sql immutable strict parallel safe
as $$
    select jsonb_typeof(headers) = 'object'
       and not exists (
            select from jsonb_each(case jsonb_typeof(headers) when 'object' then headers else '{}' end) as header
            where jsonb_typeof(header.value) <> 'string'
               or header.key = ''
               or header.key in ('envelope-version', 'event-id', 'event-type', 'event-version', 'source',
                                 'correlation-id', 'causation-id', 'aggregate-type', 'aggregate-id',
                                 'traceparent', 'tracestate', 'content-type', 'outboxd-replay'))
$$;
