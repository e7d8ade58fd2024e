package rabbitmq_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/rabbitmq"
)

// TestF81_SilentNode: a node that says nothing any more is found out by its heartbeats.
func TestF81_SilentNode(t *testing.T) {
	t.Parallel()
	c := cluster(t, "")
	b := broker(c.URL() + "?heartbeat=2&connection_timeout=1000")
	g := group("billing", "order.placed.v1")
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
	sub.autoAck = true
	sub.link(outlast.LinkUp)
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	first := message("order.placed.v1") // opens the lane
	p.Send(0, []*outlast.Publishing{first})
	if got := r.result(first); got.Outcome != outlast.OutcomeConfirmed {
		t.Fatalf("%v, %v", got.Outcome, got.Err)
	}
	if err := c.Node(0).Pause(); err != nil {
		t.Fatal(err)
	}
	lost := messages(100, "order.placed.v1")
	p.Send(0, lost)
	r.link(outlast.LinkDown)
	sub.link(outlast.LinkDown)
	for _, x := range lost {
		if got := r.result(x); got.Outcome != outlast.OutcomeUnknown {
			t.Fatalf("%v, %v", got.Outcome, got.Err)
		}
	}
	if err := c.Node(0).Continue(); err != nil {
		t.Fatal(err)
	}
	r.link(outlast.LinkUp)
	sub.link(outlast.LinkUp)
	x := message("order.placed.v1")
	p.Send(0, []*outlast.Publishing{x})
	if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
		t.Errorf("%v, %v", got.Outcome, got.Err)
	}
	sub.until("the message", func() bool {
		for _, d := range sub.deliveries {
			if d.Message.ID == x.Message.ID {
				return true
			}
		}
		return false
	})
}

// TestF62_ConsumerTimeout: the broker closes the channel of a consumer that keeps a message
// for too long, and the subscription starts again.
func TestF62_ConsumerTimeout(t *testing.T) {
	t.Parallel()
	c := cluster(t, "consumer_timeout = 1000")
	ctl(t, c, "eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
	b := broker(c.URL())
	g := group("slow", "slow.v1")
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Declare: true})
	sub.link(outlast.LinkUp)
	p, r := publisher(t, b)
	r.link(outlast.LinkUp)
	p.Send(0, messages(1, "slow.v1"))
	sub.until("a second delivery", func() bool { return len(sub.deliveries) >= 2 })
	sub.mu.Lock()
	old, again, reason := sub.deliveries[0], sub.deliveries[1], sub.links[1].Reason
	sub.mu.Unlock()
	if old.Message.ID != again.Message.ID || !again.Redelivered || !strings.Contains(reason, "time") {
		t.Errorf("delivered %q, then %q, redelivered %v, after %q", old.Message.ID, again.Message.ID, again.Redelivered, reason)
	}
	old.Ack() // must not meet the new channel's first tag
	again.Ack()
	if b.(interface{ StaleAcks() uint64 }).StaleAcks() == 0 {
		t.Error("the stale acknowledgement was not counted")
	}
}

// freePort is below the ports that the system gives to outgoing connections.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 15_000 + mathrand.IntN(15_000)
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			return port
		}
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	a.file, _ = a.write(name, template)
	return a
}

// issue returns the files of a certificate and its key.
func (a *authority) issue(name string, until time.Time, ips ...net.IP) (cert, key string) {
	return a.write(name, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: ips,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until})
}

func (a *authority) write(name string, template *x509.Certificate) (certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTLS: what does not verify fails closed, on both sides.
func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	serverCert, serverKey := ours.issue("server", time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1))
	clientCert, clientKey := ours.issue("client", time.Now().Add(time.Hour))
	oldCert, oldKey := ours.issue("old", time.Now().Add(-time.Hour))
	port := freePort(t)
	cluster(t, fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d\nssl_options.cacertfile = %s\nssl_options.certfile = %s\n"+
		"ssl_options.keyfile = %s\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true", port, ours.file, serverCert, serverKey))
	url := fmt.Sprintf("amqps://guest:guest@127.0.0.1:%d/", port)
	// TLS 1.3 refuses a client after its handshake: by an alert, or a reset that is faster.
	const refused = "connect to amqps://"
	for name, c := range map[string]struct {
		url    string
		opts   []rabbitmq.Option
		reason string
	}{
		"good":               {url, []rabbitmq.Option{rabbitmq.CACertificate(ours.file), rabbitmq.ClientCertificate(clientCert, clientKey)}, ""},
		"good by parameters": {url + "?cacertfile=" + ours.file + "&certfile=" + clientCert + "&keyfile=" + clientKey, nil, ""},
		"system authorities": {url, []rabbitmq.Option{rabbitmq.ClientCertificate(clientCert, clientKey)}, "unknown authority"},
		"wrong authority":    {url, []rabbitmq.Option{rabbitmq.CACertificate(theirs.file), rabbitmq.ClientCertificate(clientCert, clientKey)}, "unknown authority"},
		"wrong name":         {strings.Replace(url, "127.0.0.1", "localhost", 1), []rabbitmq.Option{rabbitmq.CACertificate(ours.file), rabbitmq.ClientCertificate(clientCert, clientKey)}, "not valid for any names"},
		"no certificate":     {url, []rabbitmq.Option{rabbitmq.CACertificate(ours.file)}, refused},
		"old certificate":    {url, []rabbitmq.Option{rabbitmq.CACertificate(ours.file), rabbitmq.ClientCertificate(oldCert, oldKey)}, refused},
		"missing file":       {url, []rabbitmq.Option{rabbitmq.CACertificate("/nowhere.pem")}, "/nowhere.pem"},
	} {
		b := broker(c.url, c.opts...)
		err := b.Topology().Apply(t.Context(), outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}})
		if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
