-- A row that Postgres cannot read, or not so that anybody else can, is parked as well.
alter table outboxd_parked
    drop constraint "class must be row, crash or unknown",
    add constraint "class must be row, crash, unreadable or unknown"
        check (class in ('row', 'crash', 'unreadable', 'unknown'));
