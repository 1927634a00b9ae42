// Debezium adds items to orders, and tells the world through a table of Debezium's shape.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"

	"github.com/jackc/pgx/v5"
)

// ItemAdded is the payload of the event order.item_added.
type ItemAdded struct {
	OrderID    string `json:"orderId"`
	PriceCents int64  `json:"priceCents"`
	TotalCents int64  `json:"totalCents"`
}

func addItem(ctx context.Context, database *pgx.Conn, orderID string, priceCents int64) error {
	return pgx.BeginFunc(ctx, database, func(tx pgx.Tx) error {
		// The order's lock comes first: then its events draw their seq in the order of its changes.
		var totalCents int64
		err := tx.QueryRow(ctx, "select total_cents from orders where id = $1 for update", orderID).
			Scan(&totalCents)
		if err != nil {
			return err
		}
		totalCents += priceCents
		_, err = tx.Exec(ctx, "update orders set total_cents = $1 where id = $2", totalCents, orderID)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			insert into outbox (id, aggregatetype, aggregateid, type, payload)
			values (gen_random_uuid(), 'order', $1, 'order.item_added', $2)`,
			orderID,
			ItemAdded{orderID, priceCents, totalCents},
		)
		return err
	})
}

func main() {
	count := flag.Int("count", 10, "how many items to add")
	flag.Parse()
	ctx := context.Background()

	database, err := pgx.Connect(ctx, os.Getenv("POSTGRES_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer database.Close(ctx)

	for n := range *count {
		orderID := fmt.Sprintf("ord_%d", n%3+1)
		if err := addItem(ctx, database, orderID, 100+rand.Int64N(9_900)); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("inserted", *count)
}
