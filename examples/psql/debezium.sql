-- Adds an item to an order, and tells the world through a table of Debezium's shape:
--
--   psql "$POSTGRES_URL" -v order_id=ord_1 -v price_cents=4995 -f debezium.sql
\set ON_ERROR_STOP on
begin;

-- The order's lock comes first: then its events draw their seq in the order of its changes.
select total_cents + :price_cents as total_cents from orders where id = :'order_id' for update \gset

update orders set total_cents = :total_cents where id = :'order_id';

insert into outbox (id, aggregatetype, aggregateid, type, payload)
values (
    gen_random_uuid(), 'order', :'order_id', 'order.item_added',
    jsonb_build_object('orderId', :'order_id', 'priceCents', :price_cents, 'totalCents', :total_cents))
returning id;

commit;
