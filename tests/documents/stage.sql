-- What the pages take for granted: the tables of a shop, and outboxes that others have left.
create table orders (
    id       text     primary key,
    state    text     not null default 'new',
    version  integer  not null default 1);
insert into orders (id) values ('ord_xyz789');

create table accounts (
    id     text    primary key,
    cents  bigint  not null default 0);
insert into accounts (id) values ('acc_1');

-- As Debezium documents them, with rows that it has published.
create table outbox (
    id             uuid          not null primary key,
    aggregatetype  varchar(255)  not null,
    aggregateid    varchar(255)  not null,
    type           varchar(255)  not null,
    payload        jsonb);
create table outboxevent (like outbox including all);
insert into outbox (id, aggregatetype, aggregateid, type, payload)
values (gen_random_uuid(), 'order', 'ord_xyz789', 'OrderPlaced', '{"orderId":"ord_xyz789"}');
insert into outboxevent select * from outbox;
