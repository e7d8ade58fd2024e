package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/outlastmq/outlast/console"
)

// oidcAccess is the part "oidc" of an access file. Who may do what follows from one claim
// of the ID token and from its list "groups".
type oidcAccess struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	// Secret is env:NAME, or empty for a public client.
	Secret string `json:"client_secret"`
	// Redirect is the console's own address with the path /callback.
	Redirect string `json:"redirect"`
	// Claim names a person. Default "sub"; "email" counts only when it is verified.
	Claim  string                  `json:"claim"`
	Users  map[string]console.User `json:"users"`
	Groups map[string]console.User `json:"groups"`
}

const (
	sessionCookie = "outlast_session"
	loginCookie   = "outlast_login"
	sessionLasts  = 8 * time.Hour
	loginLasts    = 10 * time.Minute
	mostSessions  = 10_000
)

// oidcLogin keeps sessions in memory: a restart asks everybody to log in again, which
// their provider usually does without a question.
type oidcLogin struct {
	a        *oidcAccess
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	client   *http.Client
	secure   bool
	farewell string // where the issuer ends its own session, when it says so

	mu       sync.Mutex
	sessions map[string]oidcSession
	logins   map[string]oidcStart
}

type oidcSession struct {
	who   *console.Identity
	until time.Time
}

type oidcStart struct {
	nonce, verifier, back string
	until                 time.Time
}

// newOIDC asks the issuer for its configuration.
func newOIDC(ctx context.Context, a *oidcAccess, getenv func(string) string) (console.Authenticator, error) {
	redirect, err := url.Parse(a.Redirect)
	if err != nil || a.Issuer == "" || a.ClientID == "" || redirect.Path != "/callback" || redirect.Scheme != "https" && !isLoopback(redirect.Hostname()) {
		return nil, errors.New(`"oidc" needs "issuer", "client_id" and "redirect", the console's https address with the path /callback`)
	}
	secret, fromEnv := strings.CutPrefix(a.Secret, "env:")
	if secret != "" && (!fromEnv || getenv(secret) == "") {
		return nil, errors.New(`"client_secret" must be env:NAME of a variable that is set`)
	}
	if a.Claim == "" {
		a.Claim = "sub"
	}
	l := &oidcLogin{a: a, client: &http.Client{Timeout: 10 * time.Second}, secure: redirect.Scheme == "https", sessions: map[string]oidcSession{}, logins: map[string]oidcStart{}}
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), l.client), a.Issuer)
	if err != nil {
		return nil, err
	}
	l.verifier = provider.Verifier(&oidc.Config{ClientID: a.ClientID})
	var more struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, err
	}
	if u, err := url.Parse(more.EndSession); err == nil && u.Scheme == "https" {
		l.farewell = more.EndSession
	}
	l.oauth = oauth2.Config{ClientID: a.ClientID, Endpoint: provider.Endpoint(), RedirectURL: a.Redirect, Scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
	if secret != "" {
		l.oauth.ClientSecret = getenv(secret)
	}
	return l.authenticate, nil
}

func (l *oidcLogin) authenticate(w http.ResponseWriter, r *http.Request) *console.Identity {
	if r.URL.Path == "/callback" && r.Method == http.MethodGet {
		l.finish(w, r)
		return nil
	}
	if r.URL.Path == "/logout" && r.Method == http.MethodPost {
		l.leave(w, r)
		return nil
	}
	if c, err := r.Cookie(sessionCookie); err == nil {
		l.mu.Lock()
		s, ok := l.sessions[c.Value]
		l.mu.Unlock()
		if ok && time.Now().Before(s.until) {
			return s.who
		}
	}
	if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return nil
	}
	l.begin(w, r)
	return nil
}

// leave ends the session of this browser. A request from another site does not get here:
// the console refuses it before it asks who it is from.
func (l *oidcLogin) leave(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		l.mu.Lock()
		delete(l.sessions, c.Value)
		l.mu.Unlock()
	}
	l.cookie(w, sessionCookie, "", -time.Second)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = loggedOut.Execute(w, l.farewell)
}

var loggedOut = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Logged out · Outlast</title></head>
<body><main><h1>You are logged out of the console</h1>
<p>Who runs your login may still know you, and let this browser in again without a question.</p>
{{with .}}<p><a href="{{.}}">Log out there too</a></p>{{end}}<p><a href="./">Log in again</a></p></main></body></html>
`))

// begin sends the person to the issuer. The login belongs to this browser: its cookie
// and the state of the answer must be the same.
func (l *oidcLogin) begin(w http.ResponseWriter, r *http.Request) {
	state := rand.Text()
	s := oidcStart{nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), back: r.URL.RequestURI(), until: time.Now().Add(loginLasts)}
	if !strings.HasPrefix(s.back, "/") || strings.HasPrefix(s.back, "//") || strings.ContainsRune(s.back, '\\') {
		s.back = "/"
	}
	l.mu.Lock()
	expire(l.logins, func(s oidcStart) time.Time { return s.until })
	l.logins[state] = s
	l.mu.Unlock()
	l.cookie(w, loginCookie, state, loginLasts)
	http.Redirect(w, r, l.oauth.AuthCodeURL(state, oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier)), http.StatusSeeOther)
}

// expire drops what is over, and everything when there is far too much.
func expire[V any](m map[string]V, until func(V) time.Time) {
	now := time.Now()
	for k, v := range m {
		if now.After(until(v)) {
			delete(m, k)
		}
	}
	if len(m) >= mostSessions {
		clear(m)
	}
}

func (l *oidcLogin) cookie(w http.ResponseWriter, name, value string, lasts time.Duration) {
	// Lax: the way back from the issuer is a navigation from another site.
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(lasts.Seconds()), HttpOnly: true, Secure: l.secure, SameSite: http.SameSiteLaxMode})
}

// finish makes a session of the issuer's answer.
func (l *oidcLogin) finish(w http.ResponseWriter, r *http.Request) {
	state := r.FormValue("state")
	c, err := r.Cookie(loginCookie)
	l.mu.Lock()
	s, ok := l.logins[state]
	delete(l.logins, state)
	l.mu.Unlock()
	if err != nil || !ok || time.Now().After(s.until) || subtle.ConstantTimeCompare([]byte(c.Value), []byte(state)) != 1 {
		http.Error(w, "this login is not one of this browser, or it took too long: open the console again", http.StatusForbidden)
		return
	}
	who, err := l.identify(oidc.ClientContext(r.Context(), l.client), r.FormValue("code"), s)
	if err != nil {
		http.Error(w, "the login failed", http.StatusForbidden)
		return
	}
	id := rand.Text()
	l.mu.Lock()
	expire(l.sessions, func(s oidcSession) time.Time { return s.until })
	l.sessions[id] = oidcSession{who, time.Now().Add(sessionLasts)}
	l.mu.Unlock()
	l.cookie(w, sessionCookie, id, sessionLasts)
	w.Header().Set("Location", s.back)
	w.WriteHeader(http.StatusSeeOther)
}

func (l *oidcLogin) identify(ctx context.Context, code string, s oidcStart) (*console.Identity, error) {
	token, err := l.oauth.Exchange(ctx, code, oauth2.VerifierOption(s.verifier))
	if err != nil {
		return nil, err
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := l.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(s.nonce)) != 1 {
		return nil, errors.New("the token is of another login")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, err
	}
	name, _ := claims[l.a.Claim].(string)
	if name == "" || l.a.Claim == "email" && claims["email_verified"] != true {
		return nil, errors.New("the token does not name a person")
	}
	who := &console.Identity{Name: name, Grants: l.a.Users[name].Grants, LogOut: "logout"}
	groups, _ := claims["groups"].([]any)
	for _, g := range groups {
		if text, ok := g.(string); ok {
			who.Grants = append(who.Grants[:len(who.Grants):len(who.Grants)], l.a.Groups[text].Grants...)
		}
	}
	return who, nil
}
