package rabbitmq_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/rabbitmq"
)

const loopbackIP = "127.0.0.1"

// secured is a broker that takes TLS alone from clients with a certificate.
type secured struct {
	*servers.RabbitCluster
	ours              *servers.Authority
	url               string
	cert, key, caFile string // of the broker
}

func startSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{ours: servers.NewAuthority(t, "ours")}
	s.cert, s.key = s.ours.Files("server", time.Now().Add(48*time.Hour), loopbackIP)
	s.caFile = filepath.Join(filepath.Dir(s.ours.File), "trusted.pem")
	s.ours.Join(s.caFile, s.ours.File)
	port := freePort(t)
	s.RabbitCluster = cluster(t, fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d\nssl_options.cacertfile = %s\nssl_options.certfile = %s\n"+
		"ssl_options.keyfile = %s\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true", port, s.caFile, s.cert, s.key))
	s.url = fmt.Sprintf("amqps://guest:guest@127.0.0.1:%d/", port)
	// The node answers on its other port before it listens on this one.
	for limit := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return s
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

// reload makes the broker read its files again: it keeps them for two minutes otherwise.
func (s *secured) reload(t *testing.T) { ctl(t, s.RabbitCluster, "eval", "ssl:clear_pem_cache().") }

func declare(ctx context.Context, b outlast.Broker) error {
	return b.Topology().Apply(ctx, outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}})
}

// TestS25_S26_TLS: what does not verify fails closed, on both sides.
func TestS25_S26_TLS(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	theirs := servers.NewAuthority(t, "theirs")
	clientCert, clientKey := s.ours.Files("client", time.Now().Add(time.Hour))
	oldCert, oldKey := s.ours.Files("old", time.Now().Add(-time.Hour))
	foreignCert, foreignKey := theirs.Files("client", time.Now().Add(time.Hour))
	client := rabbitmq.ClientCertificate(clientCert, clientKey)
	// TLS 1.3 refuses a client after its handshake: by an alert, or a reset that is faster.
	const refused = "connect to amqps://"
	try := func(name, url, reason string, opts ...rabbitmq.Option) {
		t.Helper()
		err := declare(t.Context(), broker(url, opts...))
		if reason == "" && err != nil || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	ca := rabbitmq.CACertificate(s.ours.File)
	try("good", s.url, "", ca, client)
	try("good by parameters", s.url+"?cacertfile="+s.ours.File+"&certfile="+clientCert+"&keyfile="+clientKey, "")
	try("system authorities", s.url, "unknown authority", client)
	try("wrong authority", s.url, "unknown authority", rabbitmq.CACertificate(theirs.File), client)
	try("wrong name", strings.Replace(s.url, loopbackIP, "localhost", 1), "not valid for any names", ca, client)
	try("wrong name by parameter", s.url+"?server_name_indication=mq.example", "not valid for any names", ca, client)
	try("no certificate", s.url, refused, ca)
	try("old certificate", s.url, refused, ca, rabbitmq.ClientCertificate(oldCert, oldKey))
	try("certificate of others", s.url, refused, ca, rabbitmq.ClientCertificate(foreignCert, foreignKey))
	try("missing file", s.url, "/nowhere.pem", rabbitmq.CACertificate("/nowhere.pem"))
	try("a key that does not fit", s.url, "client certificate", ca, rabbitmq.ClientCertificate(clientCert, oldKey))
	try("not verifying", s.url, "InsecureSkipVerify", rabbitmq.TLS(&tls.Config{InsecureSkipVerify: true}))

	s.ours.Issue(s.cert, s.key, "server", time.Now().Add(-time.Minute), loopbackIP)
	s.reload(t)
	try("expired server", s.url, "expired", ca, client)
	theirs.Issue(s.cert, s.key, "server", time.Now().Add(time.Hour), loopbackIP)
	s.reload(t)
	try("server of another authority", s.url, "unknown authority", ca, client)
}

// TestS26_CertificatesRotateUnderLoad: authority, server and client certificate are all
// replaced while messages flow, the way it is done without an outage: first both sides
// trust the new authority, then each shows its new certificate. Nothing is restarted.
func TestS26_CertificatesRotateUnderLoad(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	dir := t.TempDir()
	trust, cert, key := filepath.Join(dir, "trust.pem"), filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	s.ours.Join(trust, s.ours.File)
	s.ours.Issue(cert, key, "client-1", time.Now().Add(time.Hour))
	b := broker(s.url, rabbitmq.CACertificate(trust), rabbitmq.ClientCertificate(cert, key))
	g := group("billing", "order.placed.v1")
	apply(t, b, g)
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Prefetch: 60_000}) // it acknowledges nothing
	p, r := publisher(t, b)
	sub.link(outlast.LinkUp)
	r.link(outlast.LinkUp)

	stop, loaded := make(chan struct{}), make(chan int, 1)
	go func() {
		sent := 0
		defer func() { loaded <- sent }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			x := message("order.placed.v1")
			for { // as a relay does: until it is confirmed
				try := *x
				p.Send(0, []*outlast.Publishing{&try})
				if r.result(&try).Outcome == outlast.OutcomeConfirmed {
					sent++
					break
				}
			}
		}
	}()
	replace := func() {
		t.Helper()
		s.reload(t)
		r.mu.Lock()
		before := len(r.links)
		r.mu.Unlock()
		ctl(t, s.RabbitCluster, "close_all_connections", "rotated")
		r.until("the publisher to come back", func() bool { return len(r.links) > before && r.links[len(r.links)-1].State == outlast.LinkUp })
	}
	next := servers.NewAuthority(t, "next")
	next.Join(trust, s.ours.File, next.File)
	next.Join(s.caFile, s.ours.File, next.File)
	replace()
	next.Issue(s.cert, s.key, "server", time.Now().Add(time.Hour), loopbackIP)
	next.Issue(cert, key, "client-2", time.Now().Add(time.Hour))
	replace()
	next.Join(trust, next.File)
	next.Join(s.caFile, next.File)
	replace()
	close(stop)
	sent := <-loaded
	sub.until("every confirmed message", func() bool {
		ids := map[string]bool{}
		for _, d := range sub.deliveries {
			ids[d.Message.ID] = true
		}
		return len(ids) >= sent
	})
	subjects, err := s.Ctl(t.Context(), "list_connections", "peer_cert_subject")
	if err != nil || strings.Contains(subjects, "client-1") || !strings.Contains(subjects, "client-2") {
		t.Errorf("connections of %q, %v", subjects, err)
	}
	if sent == 0 {
		t.Error("there was no load")
	}
}

// TestS26_DoctorAndLinksTellWhenCertificatesEnd: the doctor weeks before they do, and
// every connection, for the metric and its alert.
func TestS26_DoctorAndLinksTellWhenCertificatesEnd(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	cert, key := s.ours.Files("client", time.Now().Add(1000*time.Hour))
	b := broker(s.url, rabbitmq.CACertificate(s.ours.File), rabbitmq.ClientCertificate(cert, key))
	findings, err := b.Topology().Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	level := func(whose string) outlast.FindingLevel {
		i := slices.IndexFunc(findings, func(f outlast.Finding) bool { return strings.Contains(f.Text, whose+" certificate ends") })
		if i < 0 {
			t.Fatalf("nothing about %s: %v", whose, findings)
		}
		return findings[i].Level
	}
	if l := level("the server's"); l != outlast.FindingWarn { // in two days
		t.Errorf("the server's: %s", l)
	}
	if l := level("the client's"); l != outlast.FindingOK {
		t.Errorf("the client's: %s", l)
	}

	g := group("billing", "order.placed.v1")
	apply(t, b, g)
	sub, _ := subscriber(t, b, outlast.SubscriberConfig{Group: g, Prefetch: 1})
	_, r := publisher(t, b)
	for what, side := range map[string]*recorder{"publisher": r, "subscriber": sub} {
		side.link(outlast.LinkUp)
		side.mu.Lock()
		left := time.Until(side.links[len(side.links)-1].Expires)
		side.mu.Unlock()
		if left < 47*time.Hour || left > 48*time.Hour { // the server's, which ends first
			t.Errorf("the %s's link expires in %v", what, left)
		}
	}
}

// TestS19_TheBrokerVouchesForTheSender: a message of a service counts only when its own
// account published it, whatever its headers say.
func TestS19_TheBrokerVouchesForTheSender(t *testing.T) {
	t.Parallel()
	c := servers.SharedRabbitMQ(t)
	vhost := servers.NewVHost(t)
	as := map[string]string{}
	for _, user := range []string{"orders", "mallory"} {
		account := user + "-" + vhost.Name()
		ctl(t, c, "add_user", account, "pw")
		ctl(t, c, "set_permissions", "--vhost", vhost.Name(), account, ".*", ".*", ".*")
		u, err := url.Parse(vhost.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(account, "pw")
		as[user] = u.String()
	}
	g := group("billing", "order.placed.v1")
	receiver := broker(vhost.URL(), rabbitmq.Senders(map[string][]string{"lab": {"orders-" + vhost.Name()}}))
	apply(t, receiver, g)
	sub, _ := subscriber(t, receiver, outlast.SubscriberConfig{Group: g})
	sub.link(outlast.LinkUp)

	real, forged, bare := message("order.placed.v1"), message("order.placed.v1"), message("order.placed.v1")
	elsewhere := message("order.placed.v1")
	elsewhere.Message.Source = "not-in-the-map"
	for user, xs := range map[string][]*outlast.Publishing{as["orders"]: {real}, as["mallory"]: {forged, elsewhere}, as["orders"] + "?user_id=false": {bare}} {
		p, r := publisher(t, broker(user))
		r.link(outlast.LinkUp)
		p.Send(0, xs)
		for _, x := range xs {
			if got := r.result(x); got.Outcome != outlast.OutcomeConfirmed {
				t.Fatalf("%v, %v", got.Outcome, got.Err)
			}
		}
	}
	sub.until("all four", func() bool { return len(sub.deliveries) == 4 })
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for _, d := range sub.deliveries {
		good := d.Message.ID == real.Message.ID || d.Message.ID == elsewhere.Message.ID
		if good != (d.Problem == nil) || !good && (outlast.CodeOf(d.Problem) != outlast.CodeDenied || !strings.Contains(d.Problem.Error(), "user_id")) {
			t.Errorf("message %s of %s: %v", d.Message.ID, d.Message.Source, d.Problem)
		}
	}

	// The broker itself refuses who says to be another user; the lane knows its words.
	err := onChannel(as["mallory"], func(ch *amqp.Channel) error {
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Publish(outlast.EventExchange, "order.placed.v1.1", false, false, amqp.Publishing{UserId: "orders-" + vhost.Name()}); err != nil {
			return err
		}
		return <-closed
	})
	if err == nil || !strings.Contains(err.Error(), "user_id property") {
		t.Errorf("%v", err)
	}
}

// TestS23_S24_LogsHoldNeitherSecretsNorBodies: whatever goes wrong.
func TestS23_S24_LogsHoldNeitherSecretsNorBodies(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	var log syncBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	wrong := strings.Replace(vhost.URL(), "guest:guest", "guest:hunter2secret", 1)
	x := message("order.placed.v1")
	x.Message.Body = []byte(`{"card":"4111-planted-body"}`)
	for _, address := range []string{vhost.URL(), wrong} {
		b := rabbitmq.Broker(address, rabbitmq.Logger(logger), rabbitmq.MaxBackoff(10*time.Millisecond))
		r := newRecorder(t)
		p := b.Publisher(outlast.PublisherConfig{Results: r.onResults, Link: r.onLink})
		stop := start(t, p.Run)
		if address == wrong {
			r.until("refusals", func() bool { return len(r.links) > 0 })
			fmt.Fprint(&log, r.links)
		} else {
			r.link(outlast.LinkUp)
			p.Send(0, []*outlast.Publishing{x})
			fmt.Fprint(&log, r.result(x).Err) // unroutable: nobody is bound
		}
		stop()
	}
	if text := log.String(); text == "" || strings.Contains(text, "hunter2secret") || strings.Contains(text, "4111-planted-body") {
		t.Errorf("logged: %s", text)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
