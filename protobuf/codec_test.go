package protobuf_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest"
	"github.com/outlastmq/outlast/protobuf"
)

var named = outlast.Event[*wrapperspb.StringValue]("thing.named", 1, outlast.WithCodec(protobuf.Codec))

func TestCodecCarriesAMessageToItsHandler(t *testing.T) {
	t.Parallel()
	got := ""
	h := outlast.Handle(named, func(_ context.Context, _ outlast.Tx, m outlast.Received[*wrapperspb.StringValue]) error {
		got = m.Body.GetValue()
		return nil
	})
	m := named.Message(wrapperspb.String("käse"), outlast.Key("k"))
	if m.ContentType != "application/protobuf" {
		t.Errorf("content type %q", m.ContentType)
	}
	if r := outlasttest.Handle(t, h, outlasttest.NoDB(), m); r.Err != nil || got != "käse" {
		t.Errorf("got %q, %v", got, r.Err)
	}
}

func TestS14_CodecKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	newer, err := proto.Marshal(wrapperspb.Int64(7)) // field 1 as a varint, which StringValue does not know
	if err != nil {
		t.Fatal(err)
	}
	var v *wrapperspb.StringValue
	if err := protobuf.Codec.Decode(newer, &v); err != nil {
		t.Fatal(err)
	}
	back, err := protobuf.Codec.Encode(v)
	if err != nil || !bytes.Equal(back, newer) {
		t.Errorf("encoded again: %x, %v; want %x", back, err, newer)
	}
}

func TestS14_CodecRefuses(t *testing.T) {
	t.Parallel()
	if _, err := protobuf.Codec.Encode("text"); err == nil || !strings.Contains(err.Error(), "string") {
		t.Errorf("a string: %v", err)
	}
	if _, err := protobuf.Codec.Encode((*wrapperspb.StringValue)(nil)); err == nil {
		t.Error("a nil message was encoded")
	}
	var s string
	if err := protobuf.Codec.Decode(nil, &s); err == nil {
		t.Error("decoded into a string")
	}
	var v *wrapperspb.StringValue
	if err := protobuf.Codec.Decode([]byte{0xff}, &v); err == nil {
		t.Error("broken bytes were decoded")
	}
	deep := structpb.NewNullValue()
	for range 200 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	data, err := proto.Marshal(deep)
	if err != nil {
		t.Fatal(err)
	}
	var d *structpb.Value
	if err := protobuf.Codec.Decode(data, &d); err == nil {
		t.Error("a body nested 200 deep was decoded")
	}
}
