// Package tlsfile makes TLS settings of PEM files, and tells when certificates end.
package tlsfile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/outlastmq/outlast"
)

// Files are PEM files for a connection; empty names stand for none.
type Files struct {
	CA   string // authorities to trust, instead of the system's
	Cert string // the client's own certificate, and
	Key  string // its key
}

// Config returns base, which may be nil, with what the files hold now, TLS 1.2 as the
// least, and host as the name to verify unless base has one. Made anew for every connect,
// it uses rotated files without a restart. A file that cannot be read is an error: the
// connection fails closed.
func (f Files) Config(base *tls.Config, host string) (*tls.Config, error) {
	config := &tls.Config{}
	if base != nil {
		config = base.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if config.ServerName == "" {
		config.ServerName = host
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificate authorities: %q holds no PEM certificate", f.CA)
		}
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// soon is how long before its end a certificate is warned of: time enough to notice and
// to order another one, and shorter than the life of those that renew themselves.
const soon = 14 * 24 * time.Hour

// Findings tells when the certificates of a connection end: the server's and, when it
// shows one, the client's.
func Findings(subject string, state tls.ConnectionState, config *tls.Config, now time.Time) []outlast.Finding {
	var all []outlast.Finding
	add := func(whose string, c *x509.Certificate) {
		if c == nil {
			return
		}
		f := outlast.Finding{Subject: subject, Level: outlast.FindingOK, Text: whose + " certificate ends " + c.NotAfter.UTC().Format(time.RFC3339)}
		if c.NotAfter.Sub(now) < soon {
			f.Level, f.Hint = outlast.FindingWarn, "rotate it: Outlast reads the files at every connect, without a restart"
			f.Promise = "Self-healing: after the end, no new connection is possible"
		}
		all = append(all, f)
	}
	server, client := certificates(state, config)
	add("the server's", server)
	add("the client's", client)
	return all
}

// Expires is when the first of the certificates that [Findings] tells of ends.
func Expires(state tls.ConnectionState, config *tls.Config) time.Time {
	var first time.Time
	server, client := certificates(state, config)
	for _, c := range []*x509.Certificate{server, client} {
		if c != nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}

// certificates returns nil for one that was not shown.
func certificates(state tls.ConnectionState, config *tls.Config) (server, client *x509.Certificate) {
	if len(state.PeerCertificates) > 0 {
		server = state.PeerCertificates[0]
	}
	if config != nil && len(config.Certificates) > 0 {
		client = config.Certificates[0].Leaf
		if client == nil {
			client, _ = x509.ParseCertificate(config.Certificates[0].Certificate[0])
		}
	}
	return server, client
}
