package rabbitmq

import "fmt"

// Methods that are observed, as class<<16 | method.
const (
	methodStart        = 10<<16 | 10
	methodBlocked      = 10<<16 | 60
	methodUnblocked    = 10<<16 | 61
	methodChannelOpen  = 20<<16 | 11 // open-ok
	methodChannelClose = 20<<16 | 40
	methodReturn       = 60<<16 | 50
	methodAck          = 60<<16 | 80
	methodNack         = 60<<16 | 120
)

// serverMethods are those that a broker may send to us, with the fields of each: o an
// octet or bits, h a short, l a long, L a long long, s a short string, S a long string,
// F a table. connection.secure is missing: neither PLAIN nor EXTERNAL has a challenge.
var serverMethods = map[uint32]string{
	methodStart:        "ooFSS",
	10<<16 | 30:        "hlh", // tune
	10<<16 | 41:        "s",   // open-ok
	10<<16 | 50:        "hshh",
	10<<16 | 51:        "", // close-ok
	methodBlocked:      "s",
	methodUnblocked:    "",
	10<<16 | 71:        "",  // update-secret-ok
	methodChannelOpen:  "S", // open-ok
	20<<16 | 20:        "o", // flow
	20<<16 | 21:        "o",
	methodChannelClose: "hshh",
	20<<16 | 41:        "",
	40<<16 | 11:        "", // exchange: declare-ok
	40<<16 | 21:        "",
	40<<16 | 31:        "",
	40<<16 | 51:        "",
	50<<16 | 11:        "sll", // queue: declare-ok
	50<<16 | 21:        "",
	50<<16 | 31:        "l",
	50<<16 | 41:        "l",
	50<<16 | 51:        "",
	60<<16 | 11:        "", // basic: qos-ok
	60<<16 | 21:        "s",
	60<<16 | 30:        "so", // cancel
	60<<16 | 31:        "s",
	methodReturn:       "hsss",
	60<<16 | 60:        "sLoss", // deliver
	60<<16 | 71:        "Lossl", // get-ok
	60<<16 | 72:        "s",
	methodAck:          "Lo",
	60<<16 | 111:       "",
	methodNack:         "Lo",
	85<<16 | 11:        "", // confirm.select-ok
}

// checkMethod refuses what is not for a client, or is not exactly as long as its fields:
// the library would go on reading them from the frames behind, without a limit.
func checkMethod(class, method uint16, args []byte) error {
	fields, ok := serverMethods[uint32(class)<<16|uint32(method)]
	if !ok {
		return fmt.Errorf("the broker sent the method %d.%d, which no client expects", class, method)
	}
	c := cursor{b: args}
	for _, field := range fields {
		switch field {
		case 'o':
			c.octet()
		case 'h':
			c.short()
		case 'l':
			c.long()
		case 'L':
			c.longlong()
		case 's':
			c.shortstr()
		case 'S':
			c.longstr()
		case 'F':
			if err := checkTable(c.longstr(), c.failed); err != nil {
				return fmt.Errorf("method %d.%d: %w", class, method, err)
			}
		}
	}
	switch {
	case c.failed:
		return errShortFrame
	case len(c.b) > 0:
		return fmt.Errorf("the broker sent the method %d.%d with %d bytes too many", class, method, len(c.b))
	}
	return nil
}
