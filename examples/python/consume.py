"""Adds the price of every item of an order to the order's invoice, once."""

import argparse
import json
import os

import psycopg
from confluent_kafka import Consumer, KafkaException, Message
from psycopg.errors import DeadlockDetected, SerializationFailure

# Under this name `processed_events` remembers. Kafka's group may change, this must not.
CONSUMER = "billing"

ATTEMPTS = 5


def take(database: psycopg.Connection, message: Message) -> str:
    """Claims the event and takes its effect, in one transaction: both happen or neither."""
    event = json.loads(message.value())
    with database.transaction():
        [claim] = database.execute(
            "select inbox_claim(%s, %s, %s)", [CONSUMER, event["eventId"], event["timestamp"]]
        ).fetchone()
        if claim == "new":
            add_to_invoice(database, event)
        elif claim == "expired":  # Nobody remembers whether it was taken: a person decides.
            database.execute(
                "insert into parked_events (event_id, message) values (%s, %s) on conflict do nothing",
                [event["eventId"], message.value().decode()],
            )
    return f"{claim} {event['eventId']}"


def add_to_invoice(database: psycopg.Connection, event: dict) -> None:
    if event["eventType"] != "order.item_added":
        return
    item = event["data"]
    database.execute(
        """
        insert into invoices (order_id, total_cents) values (%s, %s)
        on conflict (order_id) do update
            set total_cents = invoices.total_cents + excluded.total_cents
        """,
        [item["orderId"], item["priceCents"]],
    )


def take_or_retry(database: psycopg.Connection, message: Message) -> str:
    """Two consumers may meet at one event; then one of them is told to try again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return take(database, message)
        except (SerializationFailure, DeadlockDetected):
            continue
    return take(database, message)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, help="stop after so many messages")
    count = arguments.parse_args().count

    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ.get("KAFKA_GROUP", "billing"),
            "auto.offset.reset": "earliest",
            # Offsets are committed in the background, but only those stored after a transaction.
            "enable.auto.offset.store": False,
            "session.timeout.ms": 10_000,
        }
    )
    consumer.subscribe([os.environ.get("KAFKA_TOPIC", "order-events")])
    try:
        with psycopg.connect(os.environ["POSTGRES_URL"], autocommit=True) as database:
            taken = 0
            while count is None or taken < count:
                message = consumer.poll(1.0)
                if message is None:
                    continue
                if message.error():
                    raise KafkaException(message.error())
                print(take_or_retry(database, message), flush=True)
                consumer.store_offsets(message)
                taken += 1
    finally:
        consumer.close()  # commits what is stored


if __name__ == "__main__":
    main()
