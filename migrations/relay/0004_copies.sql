-- When a parked row was copied to the outbox's topic for dead letters, if it has one.
alter table outboxd_parked add column copied_at timestamptz;

-- The relay looks here for what it has not copied yet.
create index outboxd_parked_uncopied on outboxd_parked (outbox, id) where copied_at is null;
