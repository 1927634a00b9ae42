-- Adds an item's price to its order's invoice, unless consumer "billing" has done so before:
--
--   psql "$POSTGRES_URL" -v event_id=0192… -v created_at=2026-01-02T03:04:05Z \
--        -v order_id=ord_1 -v price_cents=4995 -f consume.sql
\set ON_ERROR_STOP on
begin;

select claim, claim = 'new' as is_new
from inbox_claim('billing', :'event_id', :'created_at') as claim \gset

\if :is_new
    insert into invoices (order_id, total_cents) values (:'order_id', :price_cents)
    on conflict (order_id) do update set total_cents = invoices.total_cents + excluded.total_cents;
\endif

commit;
\echo :claim :event_id
