"""Adds items to orders, and tells the world through a table of Debezium's shape."""

import argparse
import os
import random
import uuid

import psycopg
from psycopg.types.json import Jsonb


def add_item(database: psycopg.Connection, order_id: str, price_cents: int) -> None:
    with database.transaction():
        # The order's lock comes first: then its events draw their seq in the order of its changes.
        [total_cents] = database.execute(
            "select total_cents from orders where id = %s for update", [order_id]
        ).fetchone()
        total_cents += price_cents
        database.execute(
            "update orders set total_cents = %s where id = %s", [total_cents, order_id]
        )
        item = {"orderId": order_id, "priceCents": price_cents, "totalCents": total_cents}
        database.execute(
            """
            insert into outbox (id, aggregatetype, aggregateid, type, payload)
            values (%s, 'order', %s, 'order.item_added', %s)
            """,
            [uuid.uuid4(), order_id, Jsonb(item)],
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=10, help="how many items to add")
    count = arguments.parse_args().count

    with psycopg.connect(os.environ["POSTGRES_URL"], autocommit=True) as database:
        for n in range(count):
            add_item(database, f"ord_{n % 3 + 1}", random.randint(100, 9_999))
    print(f"inserted {count}")


if __name__ == "__main__":
    main()
