-- Opt-in (`notify = true`): wakes the relay at commit. It serialises the commits of all writers, so a
-- busy table is better served by polling.
create or replace function outbox_events_notify() returns trigger
    language plpgsql
as $$
begin
    perform pg_notify('outbox_events', '');
    return null;
end
$$;

drop trigger if exists outbox_events_notify on outbox_events;
create trigger outbox_events_notify after insert on outbox_events
    for each statement execute function outbox_events_notify();
