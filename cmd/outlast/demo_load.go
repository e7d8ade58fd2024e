package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outlastmq/outlast/examples/shop"
	"github.com/outlastmq/outlast/examples/shop/contracts"
)

const (
	demoCustomers = 100
	demoClients   = 32 // requests at once
	poisonEvery   = 50 // orders
	busyEvery     = 20
)

// load places orders through the HTTP API at a steady rate.
type load struct {
	url    string
	rate   int
	poison bool
	client *http.Client

	accepted atomic.Int64
	refused  atomic.Int64
}

func newLoad(api string, rate int, poison bool) *load {
	transport := &http.Transport{MaxIdleConnsPerHost: demoClients}
	return &load{url: "http://" + api + "/orders", rate: rate, poison: poison,
		client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// run places orders until ctx ends, and returns when the last one was answered. An
// order that finds all clients busy is late, not left out.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	var clients sync.WaitGroup
	defer clients.Wait()
	free := make(chan struct{}, demoClients)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	begin := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due := int(time.Since(begin).Seconds() * float64(l.rate)); n < due && ctx.Err() == nil; n++ {
			free <- struct{}{}
			order := l.order(n)
			clients.Go(func() {
				defer func() { <-free }()
				l.place(order)
			})
		}
	}
}

// order makes the n-th order.
func (l *load) order(n int) contracts.Order {
	items := []string{"lamp", "chair", "table", "shelf", "clock"}
	order := contracts.Order{
		Customer: fmt.Sprintf("customer-%02d", n*7%demoCustomers),
		Item:     items[n%len(items)], Quantity: 1 + n%3, Cents: int64(1000 + 100*(n%50)), Card: "good",
	}
	switch {
	case !l.poison:
	case n%poisonEvery == poisonEvery/2:
		order.Card = shop.CardExpired
		if n/poisonEvery%2 == 1 {
			order.Card = shop.CardUnreadable
		}
	case n%busyEvery == 0:
		order.Card = shop.CardBusy
	}
	return order
}

func (l *load) place(order contracts.Order) {
	body, err := json.Marshal(order)
	if err != nil {
		l.refused.Add(1)
		return
	}
	answer, err := l.client.Post(l.url, "application/json", bytes.NewReader(body))
	if err != nil {
		l.refused.Add(1)
		return
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode == http.StatusCreated {
		l.accepted.Add(1)
	} else {
		l.refused.Add(1)
	}
}
