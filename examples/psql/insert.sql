-- Adds an item to an order, and tells the world in the same transaction:
--
--   psql "$POSTGRES_URL" -v order_id=ord_1 -v price_cents=4995 -f insert.sql
\set ON_ERROR_STOP on
begin;

-- The order's lock comes first: then its events draw their ids in the order of its changes.
select total_cents + :price_cents as total_cents from orders where id = :'order_id' for update \gset

update orders set total_cents = :total_cents where id = :'order_id';

insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, correlation_id)
values (
    'order', :'order_id', 'order.item_added',
    json_build_object('orderId', :'order_id', 'priceCents', :price_cents, 'totalCents', :total_cents),
    gen_random_uuid())
returning event_id;

commit;
