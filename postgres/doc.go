// Package postgres is the store on PostgreSQL 13 and newer, through pgx.
//
//	db, err := postgres.Open(ctx, "postgres://app@db/shop")
//	store := postgres.Store(db)
//
// It keeps no state in database sessions: it works behind PgBouncer in transaction
// mode, and any number of processes may share one database.
package postgres
