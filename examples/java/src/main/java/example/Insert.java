package example;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/** Adds items to orders, and tells the world in the same transaction. */
public class Insert {

    static void addItem(Connection database, String orderId, long priceCents) throws SQLException {
        try {
            // The order's lock comes first: then its events draw their ids in the order of its changes.
            long totalCents = lockedTotal(database, orderId) + priceCents;

            try (var update = database.prepareStatement("update orders set total_cents = ? where id = ?")) {
                update.setLong(1, totalCents);
                update.setString(2, orderId);
                update.executeUpdate();
            }
            try (var insert = database.prepareStatement("""
                    insert into outbox_events
                        (aggregate_type, aggregate_id, event_type, payload, correlation_id)
                    values ('order', ?, 'order.item_added',
                        json_build_object('orderId', ?, 'priceCents', ?, 'totalCents', ?), ?)""")) {
                insert.setString(1, orderId);
                insert.setString(2, orderId);
                insert.setLong(3, priceCents);
                insert.setLong(4, totalCents);
                insert.setString(5, UUID.randomUUID().toString()); // of the request at hand, where there is one
                insert.executeUpdate();
            }
            database.commit();
        } catch (SQLException e) {
            database.rollback();
            throw e;
        }
    }

    static long lockedTotal(Connection database, String orderId) throws SQLException {
        try (var select = database.prepareStatement("select total_cents from orders where id = ? for update")) {
            select.setString(1, orderId);
            try (var row = select.executeQuery()) {
                row.next();
                return row.getLong("total_cents");
            }
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
