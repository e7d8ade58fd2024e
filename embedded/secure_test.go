package embedded

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

// startPlainServer runs a server with other settings than an embedded one has.
func startPlainServer(t *testing.T, o server.Options) string {
	t.Helper()
	o.Host, o.Port, o.JetStream, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", -1, true, t.TempDir(), true, true
	ns, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(startTimeout) {
		t.Fatal("the server did not get ready")
	}
	return ns.Addr().String()
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	allow := func(subjects ...string) *server.Permissions {
		return &server.Permissions{Publish: &server.SubjectPermission{Allow: subjects}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}}
	}
	at := startPlainServer(t, server.Options{Users: []*server.User{
		{Username: "all", Password: "a"},
		{Username: "elsewhere", Password: "e", Permissions: allow("$JS.API.>", "outlast.commands.>")},
		{Username: "blind", Password: "b", Permissions: allow("outlast.events.>")},
	}})
	b := nats.Broker("nats://all:a@" + at)
	apply(t, b, group("billing", false))
	publisher(t, b).confirm(messages(1, 1)...)

	for _, user := range []string{"elsewhere:e", "blind:b"} {
		b := nats.Broker("nats://" + user + "@" + at)
		x := publisher(t, b).outcomes(messages(1, 1)...)[0]
		want(t, x, outlast.OutcomeLaneError, true)
		if outlast.CodeOf(x.Err) != outlast.CodeDenied {
			t.Errorf("%s: %v", user, x.Err)
		}
	}
	_, err := nats.Broker("nats://blind:b@"+at).Topology().Depth(testContext(t), "billing.0")
	if outlast.CodeOf(err) != outlast.CodeDenied {
		t.Errorf("depth: %v", err)
	}
}

func TestS25_TLS(t *testing.T) {
	t.Parallel()
	certificate, roots := selfSigned(t)
	secure := startPlainServer(t, server.Options{TLS: true, TLSTimeout: 5, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	plain := startPlainServer(t, server.Options{})
	for _, c := range []struct {
		name, address string
		opts          []nats.Option
		good          bool
	}{
		{"trusted", "tls://" + secure, []nats.Option{nats.TLS(&tls.Config{RootCAs: roots})}, true},
		{"unknown root", "tls://" + secure, nil, false},
		{"other name", "tls://" + strings.Replace(secure, "127.0.0.1", "localhost", 1), []nats.Option{nats.TLS(&tls.Config{RootCAs: roots})}, false},
		{"a server without TLS", "tls://" + plain, []nats.Option{nats.TLS(&tls.Config{RootCAs: roots})}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := nats.Broker(c.address, c.opts...).Topology().Examine(testContext(t))
			if (err == nil) != c.good {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestS26_CertificatesRotate: the broker uses what its files hold at the next connect,
// shows its own certificate, and tells when the server's ends.
func TestS26_CertificatesRotate(t *testing.T) {
	t.Parallel()
	first, roots := selfSigned(t)
	second, _ := selfSigned(t)
	client, clientRoots := selfSigned(t)
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	write := func(file, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(ca, "CERTIFICATE", first.Certificate[0])
	write(cert, "CERTIFICATE", client.Certificate[0])
	write(key, "PRIVATE KEY", keyDER)
	var shown atomic.Pointer[tls.Certificate]
	shown.Store(&first)
	at := startPlainServer(t, server.Options{TLS: true, TLSTimeout: 5, TLSVerify: true, TLSConfig: &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientRoots,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil },
	}})
	b := nats.Broker("tls://" + at + "?cacertfile=" + ca + "&certfile=" + cert + "&keyfile=" + key)
	findings, err := b.Topology().Examine(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(findings); !strings.Contains(text, "the server's certificate ends") || !strings.Contains(text, "the client's certificate ends") {
		t.Errorf("%s", text)
	}
	links := make(chan outlast.Link, 10)
	ctx, stop := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		ended <- b.Publisher(outlast.PublisherConfig{Results: func([]outlast.Result) {}, Link: func(l outlast.Link) { links <- l }}).Run(ctx)
	}()
	if l := <-links; l.State != outlast.LinkUp || time.Until(l.Expires) <= 0 {
		t.Errorf("a link that does not tell when its certificates end: %+v", l)
	}
	stop()
	<-ended
	if _, err := nats.Broker("tls://"+at, nats.TLS(&tls.Config{RootCAs: roots})).Topology().Examine(testContext(t)); err == nil {
		t.Error("connected without a certificate")
	}
	shown.Store(&second)
	if _, err := b.Topology().Examine(testContext(t)); err == nil {
		t.Error("connected to a server that is not trusted")
	}
	write(ca, "CERTIFICATE", second.Certificate[0])
	if _, err := b.Topology().Examine(testContext(t)); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
