package example;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/** Adds items to orders, and tells the world through a table of Debezium's shape. */
public class Debezium {

    static void addItem(Connection database, String orderId, long priceCents) throws SQLException {
        try {
            // The order's lock comes first: then its events draw their seq in the order of its changes.
            long totalCents = Insert.lockedTotal(database, orderId) + priceCents;

            try (var update = database.prepareStatement("update orders set total_cents = ? where id = ?")) {
                update.setLong(1, totalCents);
                update.setString(2, orderId);
                update.executeUpdate();
            }
            try (var insert = database.prepareStatement("""
                    insert into outbox (id, aggregatetype, aggregateid, type, payload)
                    values (?, 'order', ?, 'order.item_added',
                        jsonb_build_object('orderId', ?, 'priceCents', ?, 'totalCents', ?))""")) {
                insert.setObject(1, UUID.randomUUID());
                insert.setString(2, orderId);
                insert.setString(3, orderId);
                insert.setLong(4, priceCents);
                insert.setLong(5, totalCents);
                insert.executeUpdate();
            }
            database.commit();
        } catch (SQLException e) {
            database.rollback();
            throw e;
        }
    }

    public static void main(String[] arguments) throws SQLException {
        int count = arguments.length == 2 && arguments[0].equals("--count") ? Integer.parseInt(arguments[1]) : 10;

        try (var database = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            database.setAutoCommit(false);
            for (int n = 0; n < count; n++) {
                addItem(database, "ord_" + (n % 3 + 1), ThreadLocalRandom.current().nextLong(100, 10_000));
            }
        }
        System.out.println("inserted " + count);
    }
}
