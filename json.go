package outlast

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// jsonLevel is one object or array that is open.
type jsonLevel struct {
	object bool
	keys   [][]byte        // of an object with few of them
	many   map[string]bool // of one with more
}

// manyKeys is from where on keys are looked up in a map.
const manyKeys = 32

// checkJSON refuses what the decoder would accept and should not: nesting beyond
// maxJSONDepth, and an object with the same key twice, of which one reader takes the first
// and another one the last. It says nothing about what is no JSON: the decoder does.
func checkJSON(data []byte) error {
	var levels []jsonLevel
	wantKey := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '"':
			end := jsonTextEnd(data, i)
			if wantKey && len(levels) > 0 {
				if err := levels[len(levels)-1].add(data[i:end]); err != nil {
					return err
				}
			}
			wantKey, i = false, end-1
		case '{', '[':
			if len(levels) == maxJSONDepth {
				return fmt.Errorf("JSON nested deeper than %d", maxJSONDepth)
			}
			levels = append(levels, jsonLevel{object: c == '{'})
			wantKey = c == '{'
		case '}', ']':
			levels = levels[:max(0, len(levels)-1)]
			wantKey = false
		case ',':
			wantKey = len(levels) > 0 && levels[len(levels)-1].object
		}
	}
	return nil
}

// jsonTextEnd returns the index behind the text that begins at data[start].
func jsonTextEnd(data []byte, start int) int {
	for i := start + 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// add notes a key, quoted as it stands.
func (l *jsonLevel) add(quotedKey []byte) error {
	key := bytes.Trim(quotedKey, `"`)
	if bytes.IndexByte(key, '\\') >= 0 { // one key has several forms: "a", "\u0061"
		var plain string
		if json.Unmarshal(quotedKey, &plain) != nil {
			return nil // no JSON
		}
		key = []byte(plain)
	}
	if l.many == nil && len(l.keys) < manyKeys {
		for _, other := range l.keys {
			if string(other) == string(key) {
				return fmt.Errorf("JSON object with the key %s twice", quoted(string(key)))
			}
		}
		l.keys = append(l.keys, key)
		return nil
	}
	if l.many == nil {
		l.many = make(map[string]bool, 2*manyKeys)
		for _, other := range l.keys {
			l.many[string(other)] = true
		}
	}
	if l.many[string(key)] {
		return fmt.Errorf("JSON object with the key %s twice", quoted(string(key)))
	}
	l.many[string(key)] = true
	return nil
}
