package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast/console"
)

// issuer is a provider of OpenID Connect that lets everybody in, as the claims say.
type issuer struct {
	*httptest.Server
	key    *rsa.PrivateKey
	claims map[string]any
	nonce  string
	proof  string // the challenge of PKCE
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, claims: map[string]any{}}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys", "end_session_endpoint": "https://login.example/end",
			"id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		i.nonce, i.proof = q.Get("nonce"), q.Get("code_challenge")
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=c&state="+url.QueryEscape(q.Get("state")), http.StatusSeeOther)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if base64.RawURLEncoding.EncodeToString(sum[:]) != i.proof {
			http.Error(w, "wrong verifier", http.StatusBadRequest)
			return
		}
		answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": i.token(t)})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T) string {
	claims := map[string]any{"iss": i.URL, "aud": "outlast", "sub": "ada", "nonce": i.nonce, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range i.claims {
		claims[k] = v
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Error(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// browser logs in at a server that says who came, and returns what it says.
func (i *issuer) login(t *testing.T, a *oidcAccess, visit func(client *http.Client, address string) (*http.Response, error)) (int, string) {
	t.Helper()
	var auth console.Authenticator
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who := auth(w, r); who != nil {
			_, _ = w.Write([]byte(who.Name + " may see: " + map[bool]string{true: "yes", false: "no"}[who.Somewhere(console.View)] + " at " + r.URL.Path))
		}
	}))
	t.Cleanup(server.Close)
	a.Issuer, a.ClientID, a.Redirect = i.URL, "outlast", server.URL+"/callback"
	var err error
	if auth, err = newOIDC(context.Background(), a, func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := visit(&http.Client{Jar: jar, Transport: transport, Timeout: 20 * time.Second}, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text := make([]byte, 200)
	n, _ := res.Body.Read(text)
	return res.StatusCode, string(text[:n])
}

func open(client *http.Client, address string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, address+"/failures?x=1", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/html")
	return client.Do(req)
}

func TestS31_OIDC(t *testing.T) {
	t.Parallel()
	ops := map[string]console.User{"ops": {Grants: console.All()}}
	for name, c := range map[string]struct {
		claims map[string]any
		access oidcAccess
		code   int
		text   string
	}{
		"a person":           {nil, oidcAccess{Users: map[string]console.User{"ada": {Grants: console.All()}}}, 200, "ada may see: yes at /failures"},
		"by a group":         {map[string]any{"groups": []string{"ops"}}, oidcAccess{Groups: ops}, 200, "may see: yes"},
		"of no group":        {map[string]any{"groups": []string{"sales"}}, oidcAccess{Groups: ops}, 200, "may see: no"},
		"an email":           {map[string]any{"email": "a@x", "email_verified": true}, oidcAccess{Claim: "email"}, 200, "a@x may see: no"},
		"an email of anyone": {map[string]any{"email": "a@x"}, oidcAccess{Claim: "email"}, 403, "failed"},
		"for another client": {map[string]any{"aud": "other"}, oidcAccess{}, 403, "failed"},
		"of another login":   {map[string]any{"nonce": "x"}, oidcAccess{}, 403, "failed"},
		"of long ago":        {map[string]any{"exp": 1}, oidcAccess{}, 403, "failed"},
		"of another issuer":  {map[string]any{"iss": "https://evil.example"}, oidcAccess{}, 403, "failed"},
		"without the person": {map[string]any{"sub": ""}, oidcAccess{}, 403, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t)
			i.claims = c.claims
			if code, text := i.login(t, &c.access, open); code != c.code || !strings.Contains(text, c.text) {
				t.Errorf("%d %q, want %d %q", code, text, c.code, c.text)
			}
		})
	}
	t.Run("an answer for another browser", func(t *testing.T) {
		t.Parallel()
		i := newIssuer(t)
		code, text := i.login(t, &oidcAccess{}, func(client *http.Client, address string) (*http.Response, error) {
			client.Jar = nil
			return open(client, address)
		})
		if code != http.StatusForbidden {
			t.Errorf("%d %q", code, text)
		}
	})
	t.Run("logging out", func(t *testing.T) {
		t.Parallel()
		i := newIssuer(t)
		code, text := i.login(t, &oidcAccess{Groups: ops}, func(client *http.Client, address string) (*http.Response, error) {
			res, err := open(client, address)
			if err != nil {
				return nil, err
			}
			_ = res.Body.Close()
			u, err := url.Parse(address)
			if err != nil {
				return nil, err
			}
			old := client.Jar.Cookies(u)
			if res, err = client.PostForm(address+"/logout", nil); err != nil {
				return nil, err
			}
			page, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(page), "You are logged out") || !strings.Contains(string(page), `href="https://login.example/end"`) {
				t.Errorf("logging out: %d %q, %v", res.StatusCode, page, err)
			}
			for _, c := range client.Jar.Cookies(u) {
				if c.Name == sessionCookie {
					t.Error("the browser keeps the session")
				}
			}
			client.Jar.SetCookies(u, old) // who kept the cookie
			return client.PostForm(address+"/discard", nil)
		})
		if code != http.StatusUnauthorized {
			t.Errorf("with the session that was ended: %d %q", code, text)
		}
	})
	t.Run("an action without a login", func(t *testing.T) {
		t.Parallel()
		i := newIssuer(t)
		code, _ := i.login(t, &oidcAccess{}, func(client *http.Client, address string) (*http.Response, error) {
			return client.PostForm(address+"/discard", nil)
		})
		if code != http.StatusUnauthorized {
			t.Errorf("%d", code)
		}
	})
}
