package console

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// Authenticator says who makes a request. It returns nil when it has answered the
// request itself: refused it, or sent the person to a login. It is called for every
// request, by many goroutines.
type Authenticator func(w http.ResponseWriter, r *http.Request) *Identity

// User is an account for [Basic].
type User struct {
	// Password is what [HashPassword] returned.
	Password string  `json:"password"`
	Grants   []Grant `json:"grants"`
}

const (
	hashName   = "pbkdf2-sha256"
	hashRounds = 600_000
	mostRounds = 10_000_000
	// verifiedFor bounds how long a password that was right is not hashed again.
	verifiedFor = 5 * time.Minute
)

// HashPassword returns what may be kept of a password: PBKDF2 with SHA-256, 600,000
// rounds and a random salt.
func HashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, hashRounds, 32)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s$%d$%s$%s", hashName, hashRounds, base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

// passwordHash is a parsed hash.
type passwordHash struct {
	rounds    int
	salt, key []byte
}

func parseHash(text string) (h passwordHash, ok bool) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 || parts[0] != hashName {
		return h, false
	}
	var errs [3]error
	h.rounds, errs[0] = strconv.Atoi(parts[1])
	h.salt, errs[1] = base64.RawStdEncoding.DecodeString(parts[2])
	h.key, errs[2] = base64.RawStdEncoding.DecodeString(parts[3])
	return h, errs == [3]error{} && h.rounds >= 100_000 && h.rounds <= mostRounds && len(h.salt) >= 8 && len(h.key) == 32
}

func (h passwordHash) matches(password string) bool {
	key, err := pbkdf2.Key(sha256.New, password, h.salt, h.rounds, len(h.key))
	return err == nil && hmac.Equal(key, h.key)
}

// Basic authenticates by name and password (RFC 7617). Serve it over TLS beyond this
// machine. It returns an error that names users whose hash cannot be read.
func Basic(users map[string]User) (Authenticator, error) {
	b := &basic{users: map[string]basicUser{}, verified: map[[32]byte]time.Time{}, hashing: make(chan struct{}, 2)}
	if _, err := rand.Read(b.secret[:]); err != nil {
		return nil, err
	}
	var bad []outlast.FieldError
	for name, u := range users {
		hash, ok := parseHash(u.Password)
		if !ok || name == "" || strings.Contains(name, ":") {
			bad = append(bad, outlast.FieldError{Field: "user " + strconv.Quote(name), Limit: "a name without a colon, with a hash made by HashPassword", Given: "another one"})
		}
		b.users[name] = basicUser{hash, u.Grants}
		b.rounds = max(b.rounds, hash.rounds)
	}
	if len(bad) > 0 || len(users) == 0 {
		return nil, &outlast.Error{Op: "read the console's users", Code: outlast.CodeInvalid, Fields: bad}
	}
	return b.authenticate, nil
}

type basicUser struct {
	hash   passwordHash
	grants []Grant
}

type basic struct {
	users   map[string]basicUser
	secret  [32]byte
	rounds  int           // the most of any user
	hashing chan struct{} // guesses must not take every processor

	mu       sync.Mutex
	verified map[[32]byte]time.Time
}

func (b *basic) authenticate(w http.ResponseWriter, r *http.Request) *Identity {
	name, password, ok := r.BasicAuth()
	if ok && b.right(r, name, password) {
		return &Identity{Name: name, Grants: b.users[name].grants}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Outlast", charset="UTF-8"`)
	http.Error(w, "name and password, please", http.StatusUnauthorized)
	return nil
}

func (b *basic) right(r *http.Request, name, password string) bool {
	mac := hmac.New(sha256.New, b.secret[:])
	fmt.Fprintf(mac, "%d:%s:%s", len(name), name, password)
	sum := [32]byte(mac.Sum(nil))
	now := time.Now()
	b.mu.Lock()
	until := b.verified[sum]
	b.mu.Unlock()
	if now.Before(until) {
		return true
	}
	select {
	case b.hashing <- struct{}{}:
		defer func() { <-b.hashing }()
	case <-r.Context().Done():
		return false
	}
	user, known := b.users[name]
	if !known { // an unknown name takes as long as a known one
		user.hash = passwordHash{rounds: b.rounds, salt: b.secret[:16], key: make([]byte, 32)}
	}
	if !user.hash.matches(password) || !known {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	forget(b.verified, now)
	b.verified[sum] = now.Add(verifiedFor)
	return true
}

// forget keeps the map of verified passwords small.
func forget(verified map[[32]byte]time.Time, now time.Time) {
	for sum, until := range verified {
		if now.After(until) {
			delete(verified, sum)
		}
	}
}

// Forwarded takes the identity from a header that a proxy sets, such as
// "X-Forwarded-User", and only from peers within trusted: anybody else could write it.
// The proxy must remove the header from what comes from outside. grants says what a name
// may do; nil means nothing.
func Forwarded(header string, trusted []netip.Prefix, grants func(name string) []Grant) Authenticator {
	return func(w http.ResponseWriter, r *http.Request) *Identity {
		names := r.Header.Values(header)
		if len(names) != 1 || names[0] == "" || !within(r.RemoteAddr, trusted) {
			http.Error(w, "no identity came from a trusted proxy", http.StatusUnauthorized)
			return nil
		}
		return &Identity{Name: names[0], Grants: grants(names[0])}
	}
}

func within(address string, trusted []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	for _, p := range trusted {
		if p.Contains(peer.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// onThisMachine authenticates nobody: it lets in whoever is on this machine. The name in
// the request must be one of this machine's too, or any web page could have its own name
// lead here, and what a proxy forwards comes from elsewhere.
func onThisMachine(w http.ResponseWriter, r *http.Request) *Identity {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	forwarded := r.Header.Get("Forwarded") + r.Header.Get("X-Forwarded-For") + r.Header.Get("X-Forwarded-Host") + r.Header.Get("X-Real-Ip")
	if local == nil || !loopback(local.String()) || !loopback(r.RemoteAddr) || !thisMachine(host) || forwarded != "" {
		http.Error(w, "without an authenticator the console answers to this machine alone", http.StatusForbidden)
		return nil
	}
	return &Identity{Name: "somebody on this machine", Grants: All()}
}

func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

func thisMachine(host string) bool {
	host = strings.Trim(host, "[]")
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// CheckListen returns an error of CodeInvalid when a console with this configuration may
// not listen at the address: without an authenticator only loopback addresses will do
// (TestS31_NoWideListenerWithoutAuthenticator).
func (c *Config) CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err == nil && (c.Authenticate != nil || thisMachine(host)) {
		return nil
	}
	return &outlast.Error{Op: "listen for the console", Code: outlast.CodeInvalid, Err: err,
		Fields: []outlast.FieldError{{Field: "address", Limit: "one of this machine, such as 127.0.0.1:8440, as long as nobody is asked who they are", Given: address}}}
}
