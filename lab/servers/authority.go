package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Authority makes certificates for a test.
type Authority struct {
	// File is the authority's own certificate, in PEM.
	File string

	tb   testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that nobody trusts by himself. Its files are where servers
// reach them.
func NewAuthority(tb testing.TB, name string) *Authority {
	tb.Helper()
	home, err := newFolder()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := home.remove(); err != nil {
			tb.Error(err)
		}
	})
	a := &Authority{tb: tb, dir: home.path}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour)}
	a.File = filepath.Join(a.dir, "authority.pem")
	a.key = a.sign(a.cert, a.File, filepath.Join(a.dir, "authority.key"))
	return a
}

// Issue writes a certificate for a server at the hosts, or a client of the name, and its
// key. Both files are replaced whole, the certificate first.
func (a *Authority) Issue(certFile, keyFile, name string, until time.Time, hosts ...string) {
	a.tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	a.sign(template, certFile, keyFile)
}

// Files is Issue into new files, of the name.
func (a *Authority) Files(name string, until time.Time, hosts ...string) (certFile, keyFile string) {
	a.tb.Helper()
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.Issue(certFile, keyFile, name, until, hosts...)
	return certFile, keyFile
}

func (a *Authority) sign(template *x509.Certificate, certFile, keyFile string) *ecdsa.PrivateKey {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		a.tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatal(err)
	}
	a.replace(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	a.replace(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
	return key
}

// replace puts a file in the place of another, as who rotates certificates should. It
// belongs to whom the folder belongs to: a server may run as somebody else.
func (a *Authority) replace(file string, data []byte, mode os.FileMode) {
	a.tb.Helper()
	if err := os.WriteFile(file+".new", data, mode); err != nil {
		a.tb.Fatal(err)
	}
	if err := handOver(file+".new", filepath.Dir(file)); err != nil {
		a.tb.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		a.tb.Fatal(err)
	}
}

// handOver gives a file to the owner of a folder.
func handOver(file, folder string) error {
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return os.Chown(file, int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// Join writes the certificates of several files into one, for a trust in all of them.
func (a *Authority) Join(file string, parts ...string) {
	a.tb.Helper()
	var all []byte
	for _, part := range parts {
		text, err := os.ReadFile(part)
		if err != nil {
			a.tb.Fatal(err)
		}
		all = append(all, text...)
	}
	a.replace(file, all, 0o644)
}
