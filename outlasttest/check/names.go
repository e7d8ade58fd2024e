package check

import (
	"encoding/binary"
	"strconv"

	"github.com/google/uuid"
)

// invariant is the number of one.
type invariant int

const invariants = 24

// titles by number.
var titles = [invariants + 1]string{
	1: "no loss", 2: "no ghost", 3: "integrity", 4: "one effect", 5: "key order", 6: "ack safety",
	7: "mark safety", 8: "settle uniqueness", 9: "lease exclusion", 10: "state machine", 11: "duplicate bound",
	12: "retry discipline", 13: "liveness", 14: "producer independence", 15: "dead letters", 16: "clean-up",
	17: "no dangling unknown", 18: "resources", 19: "request and reply", 20: "saga", 21: "telemetry truth",
	22: "tenants", 23: "shared data", 24: "the test was real",
}

// notYet says why no history of this version exercises an invariant.
var notYet = map[invariant]string{
	19: "there are no requests yet", 20: "there are no sagas yet", 21: "counters are not in a history: they are compared with what happened where they are made",
	22: "there are no tenants yet", 23: "there is no shared data yet",
}

// id is a UUID, or what stands for a text that is none.
type id [16]byte

func idOf(s string) id {
	if u, err := uuid.Parse(s); err == nil && len(s) == 36 {
		return id(u)
	}
	return id(uuid.NewSHA1(uuid.NameSpaceOID, []byte(s)))
}

// number is that of a hash.
func number(hash string) uint64 {
	n, err := strconv.ParseUint(hash, 16, 64)
	if err != nil && hash != "" {
		return binary.BigEndian.Uint64(idOfText(hash))
	}
	return n
}

func idOfText(s string) []byte { u := uuid.NewSHA1(uuid.NameSpaceOID, []byte(s)); return u[:] }

// names are texts that come again and again, by number from 1; 0 is none.
type names struct {
	list  []string
	index map[string]int32
}

func (n *names) of(s string) int32 {
	if s == "" {
		return 0
	}
	if i, ok := n.index[s]; ok {
		return i
	}
	if n.index == nil {
		n.index = map[string]int32{}
	}
	n.list = append(n.list, s)
	n.index[s] = int32(len(n.list))
	return int32(len(n.list))
}

func (n *names) text(i int32) string {
	if i == 0 {
		return ""
	}
	return n.list[i-1]
}

// slab is a list that grows without being copied.
type slab[T any] struct {
	chunks [][]T
	n      int32
}

const chunk = 1 << 7

// add returns the index of a new item, from 1.
func (s *slab[T]) add() int32 {
	if int(s.n)%chunk == 0 {
		s.chunks = append(s.chunks, make([]T, chunk))
	}
	s.n++
	return s.n
}

func (s *slab[T]) at(i int32) *T { i--; return &s.chunks[i/chunk][i%chunk] }
