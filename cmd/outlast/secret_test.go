package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const planted = "hunter2xyzzy"

// badURLs hold the planted password in every place where a hasty person puts one.
var badURLs = []string{
	"postgres://app:" + planted + "@127.0.0.1:1/orders?sslmode=nonsense",
	"postgres://app:" + planted + "@127.0.0.1:notaport/orders",
	"postgres://app:" + planted + "%zz@127.0.0.1/orders",
	"postgres://app:12/" + planted + "@127.0.0.1/orders",
	"postgres://app:" + planted + "/34@127.0.0.1/orders",
	"postgres://app:" + planted + "#34@127.0.0.1/orders",
	"postgres://app:" + planted + "?34@127.0.0.1/orders",
	"postgres://app:" + planted + " 34@127.0.0.1/orders",
	"postgres://app:" + planted + "\x01@127.0.0.1/orders",
	"postgres://app@127.0.0.1:1/orders?password=" + planted + "&sslmode=nonsense",
	"postgres://app@127.0.0.1:1/orders?connect_timeout=" + planted + "@",
	"postgres://app:" + planted + "@[::1/orders",
	"postgres:app:" + planted + "@127.0.0.1",
	"postgres://app:" + planted + ":/orders",
	"postgres//app:" + planted + "@127.0.0.1",
	"postgress://app:" + planted + "@127.0.0.1",
	"mysql://app:" + planted + "@127.0.0.1",
	"host=127.0.0.1 user=app password=" + planted,
	planted,
	planted + "@127.0.0.1",
	"app:" + planted + "@127.0.0.1",
	"://app:" + planted + "@127.0.0.1",
	"sqlite://app:" + planted + "@127.0.0.1/x",
	"sqlite:x.db?_key=" + planted,
	"embedded:app:" + planted + "@x",
	"env:postgres://app:" + planted + "@127.0.0.1",
	"amqp://app:" + planted + "@127.0.0.1:notaport",
	"amqp://app:" + planted + "@127.0.0.1:1,amqp://app:" + planted + "%@127.0.0.1",
	"amqp://app:" + planted + "@127.0.0.1:1/?heartbeat=" + planted,
	"amqp://app:" + planted + "@mq.example.invalid:5672/",
	"amqps://app:" + planted + "@127.0.0.1:1/?cacertfile=/none",
	"amqp:app:" + planted + "@127.0.0.1",
	"nats://" + planted + "@127.0.0.1:notaport",
	"nats://app:" + planted + "@nats.example.invalid:4222",
	"nats://" + planted + "%@127.0.0.1",
	"tls://app:" + planted + "@127.0.0.1:1",
	"AMQP://APP:" + planted + "@127.0.0.1:x",
}

func TestS23_SecretsNeverAppear(t *testing.T) {
	commands := [][]string{{"status"}, {"doctor"}, {"migrate", "print"}, {"topology", "check", "--group", "g", "--handles", "a.v1"}, {"relay", "--source", "orders"}}
	for _, url := range badURLs {
		for _, server := range []server{databaseServer, brokerServer} {
			for _, command := range commands {
				s := newShell(t)
				if server.noun == "broker" {
					s.env[databaseServer.env] = "sqlite:" + filepath.Join(s.dir, "none.db")
				}
				for _, more := range [][]string{{server.flag, url}, {server.flag + "=" + url}, {"--json", server.flag, url}, nil, {"env"}} {
					args := append([]string{"--timeout", "2s"}, command...)
					switch {
					case len(more) == 0:
						s.env[server.env] = url
					case more[0] == "env":
						s.env[server.env], s.env["PLANTED"] = "env:PLANTED", url
					default:
						args = append(args, more...)
					}
					mustNotLeak(t, s.run(args...), url)
				}
			}
		}
	}
}

func TestS23_SecretsInTheWrongPlaceNeverAppear(t *testing.T) {
	for _, url := range badURLs {
		s := newShell(t)
		for _, args := range [][]string{
			{url}, {"help", url}, {"completion", url}, {"completion", "bash", url}, {"status", url}, {"dead", url}, {"dead", "show", url}, {"peek", url, url}, {"--databse", url}, {"--databse=" + url},
			{"status", "--interval", url}, {"status", "--warn-bytes", url}, {"status", "--json=" + url}, {"status", "-x" + url},
			{"relay", "--log", url}, {"relay", "--log-level", url}, {"migrate", "print", "--engine", url}, {"publish", "--type", "a.v1", "--body", "{}", "--header", url},
		} {
			got := s.run(args...)
			mustNotLeak(t, got, url)
			if got.code != exitUsage {
				t.Errorf("exit code %d for a URL in the wrong place %q: %s", got.code, args[:len(args)-1], got.err)
			}
		}
	}
}

func mustNotLeak(t *testing.T, got outcome, url string) {
	t.Helper()
	if strings.Contains(got.out+got.err, planted) {
		t.Errorf("the password of %q was printed:\n%s%s", url, got.out, got.err)
	}
}

func TestSecretInAFlagWarns(t *testing.T) {
	s := newShell(t)
	got := s.run("status", "--database", "postgres://app:"+planted+"@127.0.0.1:1/orders", "--timeout", "1s")
	contains(t, got.err, "warning: --database holds a password", "OUTLAST_DATABASE_URL")
	mustNotLeak(t, got, "")
	s.env["DB"] = "postgres://app:" + planted + "@127.0.0.1:1/orders"
	if got := s.run("status", "--database", "env:DB", "--timeout", "1s"); strings.Contains(got.err, "warning") {
		t.Errorf("warns although the password is in the environment: %s", got.err)
	}
	if got := s.run("status", "--database", "postgres://app@127.0.0.1:1/orders", "--timeout", "1s"); strings.Contains(got.err, "warning") {
		t.Errorf("warns without a password: %s", got.err)
	}
}

func TestSecretsHide(t *testing.T) {
	var s secrets
	s.learn("postgres://app:pa%2Fss%40word@h/db?sslpassword=keyphrase")
	for text, want := range map[string]string{
		`invalid port ":pa%2Fss%40word"`:                 `invalid port ":***"`,
		"tried pa/ss@word":                               "tried ***",
		"key keyphrase is bad":                           "key *** is bad",
		"parse amqp://other:unknown1@mq/":                "parse amqp://***@mq/",
		"host=h password=unknown2 user=x":                "host=h password=*** user=x",
		"see postgres://app@db.example:5432/orders or x": "see postgres://app@db.example:5432/orders or x",
		"10:30 at a@b.example":                           "10:30 at a@b.example",
	} {
		if got := s.hide(text); got != want {
			t.Errorf("hide(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestUserNamesAreShown(t *testing.T) {
	s := newShell(t)
	s.env[databaseServer.env] = "postgres://application@127.0.0.1:1/orders"
	s.fails(exitFailure, []string{"postgres://application@127.0.0.1:1/orders"}, "status", "--timeout", "2s")
}

func TestAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"postgres://app:secret@db.example:5432/orders?sslmode=require": "postgres://app@db.example:5432/orders",
		"postgres://app:secret@a:5432,b:5432/orders":                   "postgres://app@a:5432,b:5432/orders",
		"postgresql:///orders?host=/run/postgresql":                    "postgresql:///orders",
		"sqlite:data/orders.db":                                        "sqlite:data/orders.db",
		"sqlite:///var/orders.db":                                      "sqlite:/var/orders.db",
		"POSTGRES://db/orders":                                         "postgres://db/orders",
	} {
		a, err := databaseServer.resolve(raw, os.Getenv)
		if err != nil || a.String() != want {
			t.Errorf("%s: %q, %v; want %q", raw, a, err, want)
		}
	}
	for raw, want := range map[string]string{
		"amqp://u:a,b@h1:5672,amqps://u:p@h2": "amqp://u@h1:5672,amqps://u@h2",
		"nats://token@h:4222":                 "nats://h:4222",
		"nats://u:p@h:4222":                   "nats://u@h:4222",
		"embedded:./mq":                       "embedded:./mq",
	} {
		a, err := brokerServer.resolve(raw, os.Getenv)
		if err != nil || a.String() != want {
			t.Errorf("%s: %q, %v; want %q", raw, a, err, want)
		}
	}
}

func TestAddressErrorsSayWhatToDo(t *testing.T) {
	s := newShell(t)
	dir := s.dir
	s.fails(exitUsage, []string{"--database", "not given", "OUTLAST_DATABASE_URL"}, "status")
	s.fails(exitUsage, []string{"mysql://...", "postgres, postgresql, sqlite"}, "status", "--database", "mysql://h/db")
	s.fails(exitUsage, []string{"amqp is the scheme of a broker", "--broker"}, "status", "--database", "amqp://h")
	s.fails(exitUsage, []string{"NOT_SET", "empty"}, "status", "--database", "env:NOT_SET")
	s.fails(exitUsage, []string{"%25"}, "status", "--database", "postgres://a:b%@h/db")
	s.fails(exitUsage, []string{"in memory"}, "status", "--database", "sqlite::memory:")
	s.fails(exitFailure, []string{"there is no such file", "outlast migrate up creates it"}, "status", "--database", "sqlite:"+filepath.Join(dir, "none.db"))
	s.fails(exitFailure, []string{"there is no directory"}, "migrate", "up", "--database", "sqlite:"+filepath.Join(dir, "no", "none.db"))
	s.fails(exitUsage, []string{"hint: there is a directory of this name: embedded:" + dir}, "peek", "billing", "--broker", dir)
	other := s.file("lending.db", strings.Repeat("no database ", 1000))
	s.fails(exitUsage, []string{"hint: there is a file of this name: sqlite:" + other}, "status", "--database", other)
	s.fails(exitFailure, []string{"read status in sqlite:" + other, "file is not a database", "hint: check the path"}, "status", "--database", "sqlite:"+other)
	s.fails(exitFailure, []string{"it is a directory"}, "status", "--database", "sqlite:"+dir)
	s.fails(exitFailure, []string{"there is no such directory"}, "peek", "billing", "--broker", "embedded:"+filepath.Join(dir, "none"))
	got := s.fails(exitUsage, []string{`"code":"invalid"`, `"field":"--database"`}, "status", "--json", "--database", "mysql://h/db")
	if got.out != "" {
		t.Errorf("an error wrote to stdout: %q", got.out)
	}
}
