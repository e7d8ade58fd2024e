package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// program is one run of the command, with what it touches besides servers.
type program struct {
	in       io.Reader
	out      io.Writer
	errs     io.Writer
	getenv   func(string) string
	terminal bool // errs is a terminal: progress lines make sense

	databaseURL string
	brokerURL   string
	schema      string
	prefix      string
	who         string
	json        bool
	progress    bool
	timeout     time.Duration
	// What is refused beyond this machine unless a flag says otherwise.
	insecurePlain bool
	insecureGuest bool

	secrets secrets
	// brokerLog is where adapters log; nil for commands that only ask: see adapterLog.
	brokerLog *slog.Logger
	// createFile lets a database file be made that is not there: for migrate up only.
	createFile bool
	// ownBroker lets the embedded broker run in this process, and its directory be
	// made: for relay only.
	ownBroker bool

	started bool // a command has begun; errors before it are of the command line
}

func newProgram(in io.Reader, out, errs io.Writer, getenv func(string) string) *program {
	return &program{in: in, out: out, errs: errs, getenv: getenv}
}

// commands is the program's list of commands, in the order of --help.
func (p *program) commands() []*cobra.Command {
	return []*cobra.Command{
		p.migrateCommand(),
		p.relayCommand(),
		p.publishCommand(),
		p.peekCommand(),
		p.statusCommand(),
		p.outboxCommand(),
		p.retryCommand(),
		p.deadCommand(),
		p.pauseCommand(),
		p.resumeCommand(),
		p.actionsCommand(),
		p.findCommand(),
		p.flowCommand(),
		p.booksCommand(),
		p.consoleCommand(),
		p.collectorCommand(),
		p.topologyCommand(),
		p.doctorCommand(),
		p.benchCommand(),
		p.checkCommand(),
		p.demoCommand(),
		p.demoRoleCommand(),
		p.versionCommand(),
	}
}

// run executes one command line and returns the exit code. Errors are printed
// here and nowhere else.
func (p *program) run(ctx context.Context, args []string) int {
	p.secrets.learn(p.getenv(databaseServer.env))
	p.secrets.learn(p.getenv(brokerServer.env))
	p.secrets.learn(p.getenv(collectorServer.env))
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// A wrong flag ends the parsing before a --json that follows it.
	inJSON := p.json || !p.started && slices.Contains(args, "--json")
	switch text := p.secrets.hide(explain(err)); {
	case inJSON:
		fmt.Fprintln(p.errs, explainJSON(err, p.secrets.hide))
	case strings.HasPrefix(text, "outlast"): // the command's own path
		fmt.Fprintln(p.errs, text)
	default:
		fmt.Fprintln(p.errs, "outlast: "+text)
	}
	return exitCode(err, p.started)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "outlast",
		Short: "Messages between services that survive failure",
		Long: `outlast migrates Outlast's tables, relays an outbox to a broker, and shows and
moves what waits: pending, held, retry and dead.

Where a message waits, and the commands for it:
  pending   in the outbox, to be sent            outlast outbox list|show|withdraw
  held      backing off, refused, unroutable,
            behind its key, or due later         outlast outbox list|show|release|withdraw
  retry     in the receiver's inbox, to be
            tried again                          outlast retry list|show|now
  dead      in the receiver's inbox, for you     outlast dead list|show|replay|discard

The database and the broker come from OUTLAST_DATABASE_URL and OUTLAST_BROKER_URL,
or from --database and --broker. A URL may also be "env:NAME", which reads the
variable NAME, so that no password stands in the process list.
  databases   postgres://app@db.example:5432/orders    sqlite:FILE
  brokers     amqp://, amqps:// (a comma list for a cluster)   nats://, tls://   embedded:DIR

Exit codes: 0 done, and all is well; 1 it could not be done, or a check found
something; 2 the command line or a setting is wrong, and nothing was done.`,
		Example: `  export OUTLAST_DATABASE_URL=postgres://app@db.example:5432/orders
  outlast migrate up --service orders
  outlast status
  outlast dead list --group billing`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: p.begin,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.databaseURL, "database", "", "database URL, or env:NAME (default $OUTLAST_DATABASE_URL)")
	flags.StringVar(&p.brokerURL, "broker", "", "broker URL, or env:NAME (default $OUTLAST_BROKER_URL)")
	flags.StringVar(&p.schema, "schema", "", "schema of the tables, PostgreSQL only (default $OUTLAST_SCHEMA, or the store's own)")
	flags.StringVar(&p.prefix, "prefix", "", "prefix of the tables' names (default $OUTLAST_PREFIX, or outlast_)")
	flags.StringVar(&p.who, "who", "", "who does this, for the record of actions (default $USER@host)")
	flags.BoolVar(&p.insecurePlain, "insecure-plain", false, "allow servers on other machines that are not verified by TLS: passwords and messages can be read")
	flags.BoolVar(&p.insecureGuest, "insecure-guest", false, "allow RabbitMQ's account guest on other machines: everybody knows it")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	flags.BoolVar(&p.progress, "progress", false, "show progress even when stderr is no terminal")
	flags.DurationVar(&p.timeout, "timeout", 30*time.Second, "longest wait for one answer of a server")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return flagError(c, err) })
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.errs)
	root.AddCommand(p.commands()...)
	asGroup(root)
	p.versionFlag(root)
	guardOwn(root)
	return root
}

// guardOwn gives cobra's own commands our handling of wrong arguments: cobra's
// echoes them, and they may hold a secret.
func guardOwn(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion") // a first argument lets it be added at all
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			asGroup(c)
			for _, shell := range c.Commands() {
				shell.Args = args()
			}
		case "help":
			c.Run = nil
			c.RunE = func(c *cobra.Command, names []string) error {
				if about, _, err := root.Find(names); err == nil && (about != root || len(names) == 0) {
					return about.Help()
				}
				return unknownCommand("outlast help", names[0], "see outlast --help")
			}
		}
	}
}

// begin runs before every command.
func (p *program) begin(cmd *cobra.Command, _ []string) error {
	if p.schema == "" {
		p.schema = p.getenv("OUTLAST_SCHEMA")
	}
	if p.prefix == "" {
		p.prefix = p.getenv("OUTLAST_PREFIX")
	}
	if p.timeout <= 0 {
		return usage(cmd.CommandPath(), "--timeout", "positive", p.timeout.String(), "")
	}
	p.guardFlag(databaseServer.flag, databaseServer.env, p.databaseURL)
	p.guardFlag(brokerServer.flag, brokerServer.env, p.brokerURL)
	p.started = true
	return nil
}

// guardFlag warns of a password in the process list. It is a warning, because the
// machine may be one person's own.
func (p *program) guardFlag(flag, env, value string) {
	p.secrets.learn(value)
	if holdsPassword(value) {
		p.warn("%s holds a password, and the process list shows it to everyone on this machine; use %s or %s env:NAME", flag, env, flag)
	}
}

// warn writes one line for people to stderr.
func (p *program) warn(format string, args ...any) {
	fmt.Fprintln(p.errs, "warning: "+p.secrets.hide(fmt.Sprintf(format, args...)))
}

// brief returns a context for one answer of a server.
func (p *program) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.timeout)
}

// action says who does something and why, for the record.
func (p *program) action(reason string) outlast.Action {
	who := p.who
	if who == "" {
		who = p.operator()
	}
	return outlast.Action{Who: who, Reason: reason}
}

func (p *program) operator() string {
	name := p.getenv("USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}

// asGroup makes a command that only has subcommands say so: without it cobra
// prints help and exits 0 on a misspelt subcommand.
func asGroup(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := "see " + c.CommandPath() + " --help"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + near[0] + "?"
		}
		return unknownCommand(c.CommandPath(), args[0], hint)
	}
	return cmd
}

// plainWord is what a misspelt command looks like, and a URL or a password rarely.
var plainWord = regexp.MustCompile(`^[a-z][a-z-]{0,19}$`)

// unknownCommand names the word that was typed, when it cannot be a misplaced secret.
func unknownCommand(op, word, hint string) error {
	given := "another text"
	if plainWord.MatchString(word) {
		given = strconv.Quote(word)
	}
	return usage(op, "command", "one of those in --help", given, hint)
}

// args accepts exactly the named arguments, and never echoes what came instead.
func args(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) == len(names) {
			return nil
		}
		limit := fmt.Sprintf("exactly %d: %v", len(names), names)
		if len(names) == 0 {
			limit = "none"
		}
		return usage(c.CommandPath(), "arguments", limit, fmt.Sprintf("%d", len(given)), "see "+c.CommandPath()+" --help")
	}
}
