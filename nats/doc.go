// Package nats carries Outlast's messages over NATS JetStream.
//
// An exchange is a stream: "outlast.events" is OUTLAST_EVENTS with the subjects
// "outlast.events.>", "outlast.commands" is OUTLAST_COMMANDS; any other exchange
// is a stream of its own name (see [StreamName]). A message's subject is its
// exchange and its routing key: "outlast.events.order.placed.v1.37". A queue is a
// durable pull consumer, on every stream that the group has bindings on, named
// like the queue (see [DurableName]); its filter subjects are the bindings.
//
// # What holds
//
// Streams keep a message until every durable that wants it has acknowledged it
// (interest retention), in files, for any time, and refuse new messages rather
// than drop old ones. A publish is confirmed by the stream's own acknowledgement,
// and only while a durable wants the subject: JetStream acknowledges a message
// that nobody wants and keeps nothing of it. The publisher therefore knows the
// streams' consumers. It asks for them again before it calls a message unroutable,
// and when it hears that one was deleted, and at set intervals. A message that is
// published in the moment between the deletion of the last durable that wants it
// and the news of it is confirmed and kept nowhere.
//
// Whether a confirmed message survives a power failure is the server's setting:
// "sync_interval: always", or several replicas.
//
// A durable hears what is published after it was made, as a bound queue does.
// Types of a group that are bound later are added to the filter of its durable.
//
// # Order
//
// A session of an ordered group starts at the first message that is not
// acknowledged, takes every message in the order of its stream, and ends itself
// when one has gone elsewhere. That needs a server with JetStream API level 4 (the
// request that resets a consumer). On older servers the durable has one message in
// hand at a time, which keeps the order and costs a round trip for each message.
// A new session gives again what an earlier one acknowledged behind a message that
// it did not acknowledge.
// Of two subscribers to one ordered queue each gets an unbroken sequence, but they
// disturb each other until one ends: exclusive use is up to the caller.
//
// Order per key holds within an exchange. Events and commands of one key are in
// two streams and have no order between them.
//
// An unordered group gets messages again at once when a subscriber ends or its
// connection is lost and found again, and after AckWait when its process died.
// Redelivered may be true for one message more than were in hand.
//
// # Not used
//
// The server's own deduplication (Nats-Msg-Id) is not used: a message that was
// acknowledged and removed would still be "known" for its window, and a replay of
// it within that time would be confirmed and lost.
package nats
