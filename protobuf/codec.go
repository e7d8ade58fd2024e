// Package protobuf carries generated protobuf messages as bodies:
//
//	var Placed = outlast.Event[*orderspb.Placed]("order.placed", 1, outlast.WithCodec(protobuf.Codec))
//
// Unknown fields are kept, as protobuf does: a newer producer may add some. A
// message's ordering key is given with [outlast.Key], since generated types carry
// no tags.
package protobuf

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/outlastmq/outlast"
)

// Codec is the protobuf binary encoding. Bodies are nested at most 100 deep.
// Encoding is deterministic within one build of the program.
var Codec outlast.Codec = codec{}

const maxDepth = 100

type codec struct{}

func (codec) ContentType() string { return "application/protobuf" }

func (codec) Encode(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf codec: want a generated message such as *pb.Order, got %T", v)
	}
	if !m.ProtoReflect().IsValid() {
		return nil, fmt.Errorf("protobuf codec: the message is a nil %T", v)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Decode fills v, a pointer to a variable of a generated message's pointer type.
func (codec) Decode(data []byte, v any) error {
	target := reflect.ValueOf(v)
	if target.Kind() == reflect.Pointer && !target.IsNil() && target.Elem().Kind() == reflect.Pointer {
		fresh := reflect.New(target.Elem().Type().Elem())
		if m, ok := fresh.Interface().(proto.Message); ok {
			if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(data, m); err != nil {
				return err
			}
			target.Elem().Set(fresh)
			return nil
		}
	}
	return fmt.Errorf("protobuf codec: want a pointer to a *pb.Order or the like, got %T", v)
}
