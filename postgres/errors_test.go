package postgres

import (
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A connection that breaks after a COMMIT was sent leaves its outcome unknown, although
// pgx calls the error safe to retry.
func TestF02_CommitWithoutAnAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	config, err := pgconn.ParseConfig("postgres://nobody@127.0.0.1/none?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	conn, err := pgconn.Construct(&pgconn.HijackedConn{Conn: client, Frontend: pgproto3.NewFrontend(client, client), TxStatus: 'T', Config: config})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		_, err := pgproto3.NewBackend(server, server).Receive()
		heard <- err
		_ = server.Close()
	}()
	result := conn.Exec(t.Context(), "commit")
	for result.NextResult() {
	}
	err = result.Close()
	if sent := <-heard; sent != nil {
		t.Fatalf("the server heard no commit: %v", sent)
	}
	if err == nil || !unknownOutcome(err) {
		t.Errorf("%v counts as a commit that did not happen", err)
	}
	<-conn.CleanupDone()
}
