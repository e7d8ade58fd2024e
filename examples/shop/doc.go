// Package shop is an online shop of five services that know each other's messages
// and nothing else of each other:
//
//	orders         takes orders by HTTP, and closes them when they are shipped
//	payments       takes the money for an order
//	stock          sets the goods aside
//	shipping       sends what is paid and set aside
//	notifications  tells the customer
//
// Each has its own database. A service changes its tables and writes its messages in
// one transaction; Outlast does the rest. Read payments.go first.
//
// Besides, every service keeps a journal (journal.go): what it has committed to send,
// and what took effect, each written in the transaction that it tells of. [Audit]
// compares the journals of all services and finds every message that was lost, took
// effect twice, or took effect out of order. A shop of your own needs no journal.
package shop
