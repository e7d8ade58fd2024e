package otel

import (
	"maps"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// other stands for what would exceed the bound of a label.
const other = "_OTHER"

// maxLabels bounds the sets of labels of one kind of measurement: types come from
// tables that anybody may write to.
const maxLabels = 500

// labels is a set of labels, ready to be used without an allocation.
type labels struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newLabels(kvs ...attribute.KeyValue) labels {
	o := metric.WithAttributeSet(attribute.NewSet(kvs...))
	return labels{[]metric.AddOption{o}, []metric.RecordOption{o}}
}

// cache makes the labels of each key once. When there are too many keys, rest gives
// the key to use instead.
type cache[K comparable, V any] struct {
	build func(K) V
	rest  func(K) K
	mu    sync.RWMutex
	known map[K]*V
}

func newCache[K comparable, V any](build func(K) V, rest func(K) K) *cache[K, V] {
	return &cache[K, V]{build: build, rest: rest, known: map[K]*V{}}
}

// keys returns what was asked for so far.
func (c *cache[K, V]) keys() []K {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Keys(c.known))
}

func (c *cache[K, V]) get(k K) *V {
	c.mu.RLock()
	v := c.known[k]
	full := len(c.known) >= maxLabels
	c.mu.RUnlock()
	if v != nil {
		return v
	}
	if full {
		k = c.rest(k)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.known[k]; v != nil {
		return v
	}
	made := c.build(k)
	c.known[k] = &made
	return &made
}
