package outlast

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// Codec turns typed bodies into bytes and back. Implementations are safe for
// concurrent use and never panic on bytes that others wrote.
type Codec interface {
	// ContentType is what the envelope says of bodies of this codec.
	ContentType() string
	Encode(v any) ([]byte, error)
	// Decode fills v, a pointer.
	Decode(data []byte, v any) error
}

// maxJSONDepth bounds nesting before anything is decoded: deeper input costs
// stack and time, and no contract needs it.
const maxJSONDepth = 128

type jsonCodec struct{}

// JSON is the default codec: encoding/json, unknown members ignored (a newer
// producer may add some). Refused are data after the value, a key that is twice in one
// object, and nesting beyond 128.
var JSON Codec = jsonCodec{}

func (jsonCodec) ContentType() string          { return "application/json" }
func (jsonCodec) Encode(v any) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec) Decode(data []byte, v any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("the body is empty, which is not JSON")
	}
	if err := checkJSON(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	} else if err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("data after the JSON value")
	}
	return nil
}

type rawCodec struct{}

// Raw carries []byte bodies as they are.
var Raw Codec = rawCodec{}

func (rawCodec) ContentType() string { return "application/octet-stream" }

func (rawCodec) Encode(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return nil, fmt.Errorf("raw codec: want []byte, got %v", reflect.TypeOf(v))
}

func (rawCodec) Decode(data []byte, v any) error {
	if p, ok := v.(*[]byte); ok {
		*p = data
		return nil
	}
	return fmt.Errorf("raw codec: want *[]byte, got %v", reflect.TypeOf(v))
}
