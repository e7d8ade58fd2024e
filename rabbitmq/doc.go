// Package rabbitmq carries Outlast's messages over RabbitMQ 3.10 to 4.x.
//
// The amqp091-go library does the handshake, opens and closes channels, declares
// and consumes. Three things are done beside it, on the same connection:
//
//   - Confirms and returns are read from the wire in the order in which the broker
//     sent them, before the library sees them. Through the library's own channels
//     that order is lost, its notifications wait for the slowest message of a
//     channel, and a late "multiple" ack overwrites an earlier nack.
//   - Publishes are encoded straight into one write buffer per connection that a
//     single goroutine writes out, so that messages share system calls and no lock
//     is held while a socket is slow.
//   - Every frame is checked before it is parsed: its size, and the shape and depth
//     of its header table. A message whose headers are not fit to be parsed is
//     delivered with that as its problem; it does not end the connection.
//
// The library's own recovery is not used. Connections are made anew for ever, with
// full jitter, over all addresses in random order, and every delivery belongs to
// the subscription that it came from.
package rabbitmq
