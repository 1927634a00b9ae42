package example;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Adds the price of every item of an order to the order's invoice, once. */
public class Consume {

    /** Under this name processed_events remembers. Kafka's group may change, this must not. */
    static final String CONSUMER = "billing";

    static final int ATTEMPTS = 5;

    /** Serialization failure, deadlock. */
    static final Set<String> TRY_AGAIN = Set.of("40001", "40P01");

    static final ObjectMapper JSON = new ObjectMapper();

    /** Claims the event and takes its effect, in one transaction: both happen or neither. */
    static String take(Connection database, String message) throws SQLException, JsonProcessingException {
        JsonNode event = JSON.readTree(message);
        try {
            String claim = claim(database, event);
            switch (claim) {
                case "new" -> addToInvoice(database, event);
                case "expired" -> park(database, event, message);
            }
            database.commit();
            return claim + " " + event.get("eventId").asText();
        } catch (SQLException e) {
            database.rollback();
            throw e;
        }
    }

    static String claim(Connection database, JsonNode event) throws SQLException {
        try (var claim = database.prepareStatement("select inbox_claim(?, ?, ?)")) {
            claim.setString(1, CONSUMER);
            claim.setString(2, event.get("eventId").asText());
            claim.setObject(3, OffsetDateTime.parse(event.get("timestamp").asText()));
            try (var row = claim.executeQuery()) {
                row.next();
                return row.getString(1);
            }
        }
    }

    static void addToInvoice(Connection database, JsonNode event) throws SQLException {
        if (!event.get("eventType").asText().equals("order.item_added")) {
            return;
        }
        JsonNode item = event.get("data");
        try (var insert = database.prepareStatement("""
                insert into invoices (order_id, total_cents) values (?, ?)
                on conflict (order_id) do update
                    set total_cents = invoices.total_cents + excluded.total_cents""")) {
            insert.setString(1, item.get("orderId").asText());
            insert.setLong(2, item.get("priceCents").asLong());
            insert.executeUpdate();
        }
    }

    /** Nobody remembers whether it was taken: a person decides. */
    static void park(Connection database, JsonNode event, String message) throws SQLException {
        try (var insert = database.prepareStatement(
                "insert into parked_events (event_id, message) values (?, ?) on conflict do nothing")) {
            insert.setString(1, event.get("eventId").asText());
            insert.setString(2, message);
            insert.executeUpdate();
        }
    }

    /** Two consumers may meet at one event; then one of them is told to try again. */
    static String takeOrRetry(Connection database, String message) throws SQLException, JsonProcessingException {
        for (int attempt = 1; ; attempt++) {
            try {
                return take(database, message);
            } catch (SQLException e) {
                if (!TRY_AGAIN.contains(e.getSQLState()) || attempt == ATTEMPTS) {
                    throw e;
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        long count = arguments.length == 2 && arguments[0].equals("--count") ? Long.parseLong(arguments[1]) : Long.MAX_VALUE;
        Map<String, String> environment = System.getenv();
        Map<String, Object> configuration = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, environment.get("KAFKA_BOOTSTRAP_SERVERS"),
                ConsumerConfig.GROUP_ID_CONFIG, environment.getOrDefault("KAFKA_GROUP", "billing"),
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
                ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 10_000,
                ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class,
                ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);

        try (var consumer = new KafkaConsumer<String, String>(configuration);
                var database = DriverManager.getConnection(environment.get("JDBC_URL"))) {
            database.setAutoCommit(false);
            consumer.subscribe(List.of(environment.getOrDefault("KAFKA_TOPIC", "order-events")));
            for (long taken = 0; taken < count; ) {
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(takeOrRetry(database, message.value()));
                    taken++;
                }
                consumer.commitSync(); // only after the transactions
            }
        }
    }
}
