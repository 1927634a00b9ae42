// Adds items to orders, and tells the world through a table of Debezium's shape.

import { randomInt, randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import pg from "pg";

async function addItem(database, orderId, priceCents) {
  await database.query("begin");
  try {
    // The order's lock comes first: then its events draw their seq in the order of its changes.
    const { rows: [order] } = await database.query(
      "select total_cents from orders where id = $1 for update", [orderId]);
    const totalCents = Number(order.total_cents) + priceCents;
    await database.query("update orders set total_cents = $1 where id = $2", [totalCents, orderId]);
    await database.query(
      `insert into outbox (id, aggregatetype, aggregateid, type, payload)
       values ($1, 'order', $2, 'order.item_added', $3)`,
      [randomUUID(), orderId, JSON.stringify({ orderId, priceCents, totalCents })]);
    await database.query("commit");
  } catch (error) {
    await database.query("rollback");
    throw error;
  }
}

const { values } = parseArgs({ options: { count: { type: "string", default: "10" } } });
const count = Number(values.count);

const database = new pg.Client({ connectionString: process.env.POSTGRES_URL });
await database.connect();
for (let n = 0; n < count; n++) {
  await addItem(database, `ord_${(n % 3) + 1}`, randomInt(100, 10_000));
}
await database.end();
console.log(`inserted ${count}`);
