"""Adds items to orders, and tells the world in the same transaction."""

import argparse
import os
import random
import uuid

import psycopg
from psycopg.types.json import Json


def add_item(database: psycopg.Connection, order_id: str, price_cents: int) -> None:
    with database.transaction():
        # The order's lock comes first: then its events draw their ids in the order of its changes.
        [total_cents] = database.execute(
            "select total_cents from orders where id = %s for update", [order_id]
        ).fetchone()
        total_cents += price_cents
        database.execute(
            "update orders set total_cents = %s where id = %s", [total_cents, order_id]
        )
        database.execute(
            """
            insert into outbox_events
                (aggregate_type, aggregate_id, event_type, payload, correlation_id)
            values ('order', %s, 'order.item_added', %s, %s)
            """,
            [
                order_id,
                Json({"orderId": order_id, "priceCents": price_cents, "totalCents": total_cents}),
                str(uuid.uuid4()),  # of the request at hand, where there is one
            ],
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
