-- What the examples work on, besides the tables of `outboxd migrate` and `outboxd migrate --inbox`.

-- The application that inserts events: an order's total grows with every item.
create table orders (
    id           text    primary key,
    total_cents  bigint  not null default 0
);
insert into orders (id) values ('ord_1'), ('ord_2'), ('ord_3');

-- The application that consumes them: an order's invoice must come to the same total.
create table invoices (
    order_id     text    primary key,
    total_cents  bigint  not null
);

-- Events that came too late to tell whether they were taken before: for a person to look at.
create table parked_events (
    event_id   text         primary key,
    message    text         not null,
    parked_at  timestamptz  not null default now()
);
