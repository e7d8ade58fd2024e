// Package servers runs real PostgreSQL and RabbitMQ servers for tests.
//
// Every server is a child process on free loopback ports with its own data folder. A test
// may stop it, kill it as a power cut would, freeze it, and start it again on the same
// ports and data. Nothing global is touched: a RabbitMQ cluster brings its own epmd, home
// folder and Erlang cookie, so that several test binaries run side by side.
//
// Most tests share one server per test binary and separate themselves by database or
// virtual host:
//
//	func TestMain(m *testing.M) { servers.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		t.Parallel()
//		db := servers.Database(t) // URL of a fresh database
//		vhost := servers.NewVHost(t)
//		...
//	}
//
// Tests that break servers start their own with [Postgres] and [RabbitMQ].
//
// A missing server is an error that names the command which installs it, never a skip.
// When OUTLAST_TEST_POSTGRES_URL or OUTLAST_TEST_AMQP_URL is set, the shared server is the
// one at that address: what would stop or freeze it returns [ErrNotOurs]. A virtual host
// on such a broker is made through its management API, at OUTLAST_TEST_AMQP_API
// (http://user:password@host:15672).
//
// Servers die with the test process, however it ends, on Linux. Data folders that a killed
// test process left behind are removed by the next one.
package servers
