package protobuf_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outlastmq/outlast/protobuf"
)

// FuzzCodec: no body makes the codec panic; what it decodes, it encodes and decodes again
// as the same.
func FuzzCodec(f *testing.F) {
	for _, v := range []any{nil, 1.5, "text", true, []any{"a", []any{nil}}, map[string]any{"k": map[string]any{"l": 1}}} {
		value, err := structpb.NewValue(v)
		if err != nil {
			f.Fatal(err)
		}
		data, err := proto.Marshal(value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1024 {
			return
		}
		var v, again *structpb.Value
		if protobuf.Codec.Decode(data, &v) != nil {
			return
		}
		encoded, err := protobuf.Codec.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := protobuf.Codec.Decode(encoded, &again); err != nil {
			t.Fatal(err)
		}
		reencoded, err := protobuf.Codec.Encode(again)
		if err != nil || string(reencoded) != string(encoded) {
			t.Fatalf("%x became %x, %v", encoded, reencoded, err)
		}
	})
}
