package rabbitmq

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// TestS17_NoCopiesToOtherQueues: the broker would send copies wherever CC and BCC say.
func TestS17_NoCopiesToOtherQueues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CC", "BCC", "cc", "Bcc"} {
		p := publishing()
		p.Message.Headers = outlast.Headers{name: "payroll.0"}
		_, err := encode(p, "", frameMax)
		if outlast.CodeOf(err) != outlast.CodeInvalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestS16_S18_PropertiesAreOurs: every message is persistent, and none carries an
// expiration, a priority or an address for replies, whatever headers it has.
func TestS16_S18_PropertiesAreOurs(t *testing.T) {
	t.Parallel()
	p := publishing()
	p.Message.Headers = outlast.Headers{"expiration": "-1", "priority": "300", "delivery_mode": "1", "reply_to": "payroll.0"}
	e, err := encode(p, "orders", frameMax)
	if err != nil {
		t.Fatal(err)
	}
	header := e.appendHeader(nil)
	flags := binary.BigEndian.Uint16(header[12:])
	const encoding, priority, replyTo, expiration = 0x4000, 0x0800, 0x0200, 0x0100
	if flags&(encoding|priority|replyTo|expiration) != 0 || flags&flagDeliveryMode == 0 || flags&flagUserID == 0 {
		t.Errorf("flags %#x", flags)
	}
	c := cursor{b: header[14:]}
	c.shortstr() // content type
	table := binary.BigEndian.Uint32(c.b)
	if mode := c.b[4+table]; mode != 2 {
		t.Errorf("delivery mode %d", mode)
	}
}
