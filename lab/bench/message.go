package main

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
)

const (
	messageType   = "bench.made.v1"
	messageSource = "bench"
)

// noise is text that does not compress, as real bodies hardly do once they are small.
var noise = func() string {
	b := make([]byte, 256<<10)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return hex.EncodeToString(b)
}()

const keyPrefix = "order-"

// keyOf spreads messages over a number of keys; 0 keys: none has one.
func keyOf(i, keys int) string {
	if keys == 0 {
		return ""
	}
	return fmt.Sprint(keyPrefix, i%keys)
}

// bodyOf returns a JSON body of exactly size bytes.
func bodyOf(i, size int) string {
	head := fmt.Sprintf(`{"order_id":%d,"n":%d,"text":"`, i, i)
	pad := max(size-len(head)-2, 0)
	at := i * 37 % (len(noise) - pad)
	return head + noise[at:at+pad] + `"}`
}

// wire is a message as all contenders send it.
func wire(id, key, body string) (routingKey string, p amqp.Publishing) {
	m := outlast.Message{Envelope: outlast.Envelope{
		ID: id, Type: messageType, Source: messageSource, Kind: outlast.KindEvent, Key: key,
		CorrelationID: id, EnqueuedAt: time.Now(), ContentType: "application/json",
	}, Body: []byte(body)}
	headers := amqp.Table{}
	for _, h := range outlast.EncodeHeaders(&m) {
		headers[h.Name] = h.Value
	}
	return fmt.Sprintf("%s.%d", messageType, outlast.Bucket(key, id)), amqp.Publishing{
		Headers: headers, ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: id,
		CorrelationId: id, Timestamp: m.EnqueuedAt, Type: messageType, AppId: messageSource, Body: m.Body,
	}
}
