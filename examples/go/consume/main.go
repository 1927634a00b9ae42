// Consume adds the price of every item of an order to the order's invoice, once.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Under this name processed_events remembers. Kafka's group may change, this must not.
const consumer = "billing"

const attempts = 5

// Event is what the examples need of the envelope.
type Event struct {
	ID        string          `json:"eventId"`
	Type      string          `json:"eventType"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// ItemAdded is what an invoice needs of the event order.item_added.
type ItemAdded struct {
	OrderID    string `json:"orderId"`
	PriceCents int64  `json:"priceCents"`
}

// take claims the event and takes its effect, in one transaction: both happen or neither.
func take(ctx context.Context, database *pgx.Conn, message []byte) (outcome string, err error) {
	var event Event
	if err := json.Unmarshal(message, &event); err != nil {
		return "", err
	}
	err = pgx.BeginFunc(ctx, database, func(tx pgx.Tx) error {
		var claim string
		err := tx.QueryRow(ctx, "select inbox_claim($1, $2, $3)", consumer, event.ID, event.Timestamp).
			Scan(&claim)
		if err != nil {
			return err
		}
		outcome = claim + " " + event.ID
		switch claim {
		case "new":
			return addToInvoice(ctx, tx, event)
		case "expired": // Nobody remembers whether it was taken: a person decides.
			_, err = tx.Exec(ctx,
				"insert into parked_events (event_id, message) values ($1, $2) on conflict do nothing",
				event.ID, string(message))
		}
		return err
	})
	return outcome, err
}

func addToInvoice(ctx context.Context, tx pgx.Tx, event Event) error {
	if event.Type != "order.item_added" {
		return nil
	}
	var item ItemAdded
	if err := json.Unmarshal(event.Data, &item); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		insert into invoices (order_id, total_cents) values ($1, $2)
		on conflict (order_id) do update
		    set total_cents = invoices.total_cents + excluded.total_cents`,
		item.OrderID, item.PriceCents)
	return err
}

// takeOrRetry: two consumers may meet at one event; then one of them is told to try again.
func takeOrRetry(ctx context.Context, database *pgx.Conn, message []byte) (outcome string, err error) {
	for range attempts {
		outcome, err = take(ctx, database, message)
		if !isConflict(err) {
			break
		}
	}
	return outcome, err
}

// isConflict reports a serialization failure or a deadlock.
func isConflict(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "40001" || refused.Code == "40P01")
}

func main() {
	count := flag.Int("count", math.MaxInt, "stop after so many messages")
	flag.Parse()
	ctx := context.Background()

	database, err := pgx.Connect(ctx, os.Getenv("POSTGRES_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer database.Close(ctx)

	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BOOTSTRAP_SERVERS"), ",")...),
		kgo.ConsumerGroup(cmp.Or(os.Getenv("KAFKA_GROUP"), "billing")),
		kgo.ConsumeTopics(cmp.Or(os.Getenv("KAFKA_TOPIC"), "order-events")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(10*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	for taken := 0; taken < *count; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			log.Fatal(err)
		}
		for _, record := range fetches.Records() {
			outcome, err := takeOrRetry(ctx, database, record.Value)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(outcome)
			taken++
		}
		// Offsets only after the transactions.
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
