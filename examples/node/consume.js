// Adds the price of every item of an order to the order's invoice, once.

import { parseArgs } from "node:util";
import { Kafka, logLevel } from "kafkajs";
import pg from "pg";

// Under this name `processed_events` remembers. Kafka's group may change, this must not.
const CONSUMER = "billing";

// Claims the event and takes its effect, in one transaction: both happen or neither.
async function take(database, message) {
  const event = JSON.parse(message.value);
  await database.query("begin");
  try {
    const { rows: [{ claim }] } = await database.query(
      "select inbox_claim($1, $2, $3) as claim", [CONSUMER, event.eventId, event.timestamp]);
    if (claim === "new") {
      await addToInvoice(database, event);
    } else if (claim === "expired") { // Nobody remembers whether it was taken: a person decides.
      await database.query(
        "insert into parked_events (event_id, message) values ($1, $2) on conflict do nothing",
        [event.eventId, message.value.toString()]);
    }
    await database.query("commit");
    return `${claim} ${event.eventId}`;
  } catch (error) {
    await database.query("rollback");
    throw error;
  }
}

async function addToInvoice(database, { eventType, data }) {
  if (eventType !== "order.item_added") return;
  await database.query(
    `insert into invoices (order_id, total_cents) values ($1, $2)
     on conflict (order_id) do update
         set total_cents = invoices.total_cents + excluded.total_cents`,
    [data.orderId, data.priceCents]);
}

const { values } = parseArgs({ options: { count: { type: "string" } } });
const count = Number(values.count ?? Infinity);

const database = new pg.Client({ connectionString: process.env.POSTGRES_URL });
await database.connect();

const kafka = new Kafka({
  brokers: process.env.KAFKA_BOOTSTRAP_SERVERS.split(","),
  logLevel: logLevel.WARN,
});
const consumer = kafka.consumer({
  groupId: process.env.KAFKA_GROUP ?? "billing",
  sessionTimeout: 10_000,
});
await consumer.connect();
await consumer.subscribe({ topic: process.env.KAFKA_TOPIC ?? "order-events", fromBeginning: true });

let taken = 0;
await new Promise((resolve, reject) => {
  consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error));
  consumer.run({
    // KafkaJS commits the offset of a message only after this has returned. It runs it again when it
    // throws, as it does when two consumers meet at one event and Postgres refuses one of them (40001).
    eachMessage: async ({ message }) => {
      console.log(await take(database, message));
      taken += 1;
      if (taken >= count) resolve();
    },
  });
});
await consumer.disconnect();
await database.end();
