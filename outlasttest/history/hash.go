package history

import (
	"encoding/binary"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/outlastmq/outlast"
)

// hashOf is of all that must arrive as it was sent.
func hashOf(m *outlast.Message) string {
	h := fnv.New64a()
	add := func(s string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		_, _ = h.Write(size[:])
		_, _ = io.WriteString(h, s)
	}
	contentType := m.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	for _, s := range []string{m.ID, m.Type, m.Envelope.Key, contentType, m.CorrelationID, m.CausationID} {
		add(s)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		add(name)
		add(m.Headers[name])
	}
	_, _ = h.Write(m.Body)
	return strconv.FormatUint(h.Sum64(), 16)
}
