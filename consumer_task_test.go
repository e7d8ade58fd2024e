package outlast

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestNewTask(t *testing.T) {
	t.Parallel()
	c := &Consumer{conf: ConsumerConfig{Group: "billing"}, ordered: true}
	foreign := &ForeignQueue{Queue: "legacy", Type: "order.placed.v1", IDHeader: "no", KeyHeader: "customer"}
	task := c.newTask(NewDelivery(&Message{Envelope: Envelope{Headers: Headers{"no": "17", "customer": "c"}}}, "legacy", false, nil), nil, foreign)
	if m := task.mark; task.unfit != nil || m.ID != "17" || m.Source != "legacy" || m.Key != "c" || task.m.Type != "order.placed.v1" {
		t.Errorf("mark %+v of %+v, unfit %+v", m, task.m, task.unfit)
	}

	foreign = &ForeignQueue{Queue: "legacy", Type: "order.placed.v1", DeriveID: true}
	one := c.newTask(NewDelivery(&Message{Body: []byte("1")}, "legacy", false, nil), nil, foreign)
	same := c.newTask(NewDelivery(&Message{Body: []byte("1")}, "legacy", true, nil), nil, foreign)
	other := c.newTask(NewDelivery(&Message{Body: []byte("2")}, "legacy", false, nil), nil, foreign)
	if one.mark.ID == "" || one.mark.ID != same.mark.ID || one.mark.ID == other.mark.ID {
		t.Errorf("derived ids %q %q %q", one.mark.ID, same.mark.ID, other.mark.ID)
	}

	large := &Message{Envelope: Envelope{ID: "1", Type: "a b", Key: "k"}, Body: make([]byte, MaxBody+1)}
	d := NewDelivery(large, "billing.0", false, nil)
	d.Problem = errors.New("receive: bad type")
	task = c.newTask(d, nil, nil)
	if task.unfit == nil || task.mark.Key != "" || task.mark.ID == "1" || len(task.m.Body) != MaxBody || task.m.Type != "unknown" ||
		!strings.Contains(task.unfit.text, "was cut") || len(large.Body) != MaxBody+1 {
		t.Errorf("mark %+v, unfit %+v", task.mark, task.unfit)
	}
}

func TestContentHashSeesEveryPart(t *testing.T) {
	t.Parallel()
	base := Message{Envelope: Envelope{Type: "a", Key: "b", ContentType: "c"}, Body: []byte("d")}
	change := []func(*Message){
		func(m *Message) { m.Type = "ab"; m.Envelope.Key = "" },
		func(m *Message) { m.Envelope.Key = "x" },
		func(m *Message) { m.ContentType = "cd"; m.Body = nil },
		func(m *Message) { m.Body = []byte("e") },
	}
	for i, f := range change {
		m := base
		f(&m)
		if contentHash(&m) == contentHash(&base) {
			t.Errorf("change %d leaves the hash as it was", i)
		}
	}
}

func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	var p RetryPolicy
	if h := p.Horizon(); h < 30*time.Minute || h > 90*time.Minute {
		t.Errorf("horizon %v, want half an hour in the middle and twice that at most", h)
	}
	p.setDefaults()
	var sum time.Duration
	for range 2000 {
		for n := 1; n < p.Attempts; n++ {
			d := p.backoff(n)
			if d < 0 || d > p.longest(n) {
				t.Fatalf("backoff %d is %v", n, d)
			}
			sum += d
		}
	}
	if mean := sum / 2000; mean < p.Horizon()*45/100 || mean > p.Horizon()*55/100 {
		t.Errorf("mean %v of a horizon of %v: the jitter is not full", mean, p.Horizon())
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	same := []string{
		`charge "4711": account 018f4e9a-0000-7000-8000-000000000000 at 0xc000123 has 17 left`,
		`charge "4712": account 018f4e9a-1111-7000-8000-00000000abcd at 0xc000999 has 1 left`,
	}
	if a, b := Fingerprint("t", "r", same[0]), Fingerprint("t", "r", same[1]); a != b {
		t.Errorf("%s and %s differ", a, b)
	}
	if Fingerprint("t", "r", "no account") == Fingerprint("t", "r", "no money") || Fingerprint("t", "r", "x") == Fingerprint("u", "r", "x") {
		t.Error("different causes have one fingerprint")
	}
}

func TestPeers(t *testing.T) {
	t.Parallel()
	p := newPeers(30 * time.Second)
	p.look([]Instance{{Name: "a", Age: 4 * time.Second}})
	if !p.anyDead() {
		t.Error("an instance that was not seen to advance may be dead")
	}
	p.look([]Instance{{Name: "a", Age: time.Second}})
	if n, early := p.living(); p.anyDead() || n != 1 || early {
		t.Errorf("an instance that advances: dead %v, living %d, early %v", p.anyDead(), n, early)
	}
	p.look([]Instance{{Name: "a", Age: 31 * time.Second}})
	if n, early := p.living(); !p.anyDead() || n != 0 || early {
		t.Errorf("an instance that fell silent: dead %v, living %d, early %v", p.anyDead(), n, early)
	}
	p.look([]Instance{{Name: "a", Age: 11 * time.Minute}})
	if names := p.forgotten(); len(names) != 1 {
		t.Errorf("forgotten %q", names)
	}
}
