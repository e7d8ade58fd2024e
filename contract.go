package outlast

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Contract is one type of message, declared once and used by both sides: the
// producer makes messages from it, the consumer handles it. Declare contracts as
// package variables with [Event] or [Command]; a bad declaration is reported when
// a message is published and by [NewService], never by a panic.
type Contract[T any] struct{ c *contract }

// AnyContract is a contract of any body type, for lists of them.
type AnyContract interface{ contract() *contract }

func (c Contract[T]) contract() *contract { return c.c }

// contract is the part of a declaration that does not depend on the body's type.
type contract struct {
	name     string
	major    int
	typ      string // name.vMAJOR
	kind     Kind
	codec    Codec
	within   time.Duration
	unheard  bool
	exchange string
	routing  string
	key      []int // index path of the field tagged "key"; nil when there is none
	find     []findField
	show     []string
	err      error
}

// ContractOption refines a declaration.
type ContractOption func(*contract)

// Within says that every group is expected to have handled the message d after
// its enqueue; later it counts as overdue.
func Within(d time.Duration) ContractOption { return func(c *contract) { c.within = d } }

// MayBeUnheard says that it is fine when no group is bound: such a message is
// settled and counted instead of being held as unroutable.
func MayBeUnheard() ContractOption { return func(c *contract) { c.unheard = true } }

// WithCodec replaces [JSON].
func WithCodec(codec Codec) ContractOption { return func(c *contract) { c.codec = codec } }

// OnExchange publishes to a foreign exchange with a fixed routing key, for
// receivers that do not know Outlast. An empty exchange is AMQP's default one,
// where the routing key is a queue's name.
func OnExchange(exchange, routingKey string) ContractOption {
	return func(c *contract) { c.exchange, c.routing = exchange, routingKey }
}

// Event declares a fact that any number of groups may hear: Event[Placed]("order.placed", 1).
// The field of T tagged `outlast:"key"` is the ordering key; by those tagged
// `outlast:"find"` the message can be found (outlast find VALUE), and those tagged
// `outlast:"show"`, wherever they are in T, are what the console does not mask.
func Event[T any](name string, major int, opts ...ContractOption) Contract[T] {
	return declare[T](KindEvent, name, major, opts)
}

// Command declares a request to one group to do something.
func Command[T any](name string, major int, opts ...ContractOption) Contract[T] {
	return declare[T](KindCommand, name, major, opts)
}

func declare[T any](kind Kind, name string, major int, opts []ContractOption) Contract[T] {
	c := &contract{name: name, major: major, kind: kind, codec: JSON, typ: fmt.Sprintf("%s.v%d", name, major)}
	for _, o := range opts {
		o(c)
	}
	var bad fieldErrors
	if !validName(c.typ, MaxType) {
		bad.add("name", fmt.Sprintf("at most %d bytes of letters, digits, '-', '_', in parts joined by '.'", MaxType-8), quoted(name))
	}
	if major < 1 || major > 9999 {
		bad.add("major", "1 to 9999", major)
	}
	if c.within < 0 {
		bad.add("within", "positive", c.within)
	}
	if c.codec == nil {
		bad.add("codec", "not nil", "nil")
	}
	t := reflect.TypeFor[T]()
	if t.Kind() == reflect.Pointer {
		bad.add("body type", "a value type, not a pointer (generated protobuf messages are handled by their codec)", t)
		if _, proto := reflect.New(t).Elem().Interface().(interface{ ProtoMessage() }); proto {
			bad = bad[:len(bad)-1]
		}
	}
	var err error
	if c.key, err = findKey(t); err != nil {
		bad.add("key", "one exported field of string, integer or fmt.Stringer type", err.Error())
	}
	if c.find, err = findFields(t); err != nil {
		bad.add("find", fmt.Sprintf("at most %d exported fields of string, integer or fmt.Stringer type", MaxFind), err.Error())
	}
	if c.show, err = showPaths(t); err != nil {
		bad.add("show", fmt.Sprintf("at most %d exported fields, with names of at most %d bytes in all", MaxShow, maxShowBytes), err.Error())
	}
	c.err = bad.err(fmt.Sprintf("declare %s %s", kind, quoted(name)), "")
	return Contract[T]{c}
}

// Type returns the type with its major version: "order.placed.v1".
func (c Contract[T]) Type() string { return c.c.typ }

// Message makes a message of this contract. A body that cannot be encoded is
// reported by [Outbox.Publish].
func (c Contract[T]) Message(body T, opts ...MessageOption) Message {
	d := c.c
	m := Message{
		Envelope: Envelope{Type: d.typ, Kind: d.kind},
		Exchange: d.exchange, RoutingKey: d.routing, MayBeUnheard: d.unheard,
	}
	if d.err != nil {
		m.err = d.err
		return m
	}
	data, err := d.codec.Encode(body)
	if err != nil {
		m.err = &Error{Op: "encode " + d.typ, Code: CodeInvalid, Err: err}
		return m
	}
	m.Body = data
	m.ContentType = d.codec.ContentType()
	if d.key != nil {
		m.Envelope.Key = keyText(reflect.ValueOf(body), d.key)
	}
	m.Within, m.Show = d.within, slices.Clone(d.show)
	for _, f := range d.find {
		if value := keyText(reflect.ValueOf(body), f.path); value != "" {
			if m.Find == nil {
				m.Find = make(map[string]string, len(d.find))
			}
			m.Find[f.name] = value
		}
	}
	for _, o := range opts {
		o(&m)
	}
	return m
}

// findField is a field tagged "find", with its name in the body.
type findField struct {
	name string
	path []int
}

func findFields(t reflect.Type) ([]findField, error) {
	if t.Kind() != reflect.Struct {
		return nil, nil
	}
	var found []findField
	for _, f := range reflect.VisibleFields(t) {
		if !hasTag(f.Tag.Get("outlast"), "find") {
			continue
		}
		if !f.IsExported() || !keyable(f.Type) {
			return nil, fmt.Errorf("%s.%s of type %s", t, f.Name, f.Type)
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !validHeaderName(name) {
			name = f.Name
		}
		found = append(found, findField{name, f.Index})
	}
	if len(found) > MaxFind {
		return nil, fmt.Errorf("%d fields of %s", len(found), t)
	}
	return found, nil
}

// decode returns the typed body of a received message.
func (c Contract[T]) decode(m *Message) (T, error) {
	var body T
	if err := c.c.codec.Decode(m.Body, &body); err != nil {
		return body, &Error{Op: "decode " + m.Type, Code: CodeInvalid, Err: err, Hint: "the body does not fit the contract"}
	}
	return body, nil
}

// findKey returns the index path of the field tagged `outlast:"key"`, or nil.
func findKey(t reflect.Type) ([]int, error) {
	if t.Kind() != reflect.Struct {
		return nil, nil
	}
	var found []int
	for _, f := range reflect.VisibleFields(t) {
		if !hasTag(f.Tag.Get("outlast"), "key") {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two fields of %s", t)
		}
		if !f.IsExported() || !keyable(f.Type) {
			return nil, fmt.Errorf("%s.%s of type %s", t, f.Name, f.Type)
		}
		found = f.Index
	}
	return found, nil
}

func hasTag(tag, word string) bool {
	for part := range strings.SplitSeq(tag, ",") {
		if strings.TrimSpace(part) == word {
			return true
		}
	}
	return false
}

func keyable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return t.Implements(reflect.TypeFor[fmt.Stringer]())
}

func keyText(v reflect.Value, path []int) string {
	f, err := v.FieldByIndexErr(path)
	if err != nil {
		return "" // an embedded nil pointer: there is no key
	}
	if f.Kind() == reflect.String {
		return f.String()
	}
	return fmt.Sprint(f.Interface())
}
