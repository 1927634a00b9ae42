-- The table that Debezium's outbox event router documents, and the one column that outboxd needs besides. In a table
-- that is there already:
--
--   alter table outbox add column seq bigint generated always as identity unique;
--
-- It rewrites the table under an ACCESS EXCLUSIVE lock: nobody reads or writes it meanwhile. It also numbers the
-- rows that are there, and outboxd would publish them: delete first what Debezium has published.
create table outbox (
    id             uuid          not null primary key,
    aggregatetype  varchar(255)  not null,
    aggregateid    varchar(255)  not null,
    type           varchar(255)  not null,
    payload        jsonb,
    seq            bigint        generated always as identity unique
);
