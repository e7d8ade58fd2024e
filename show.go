package outlast

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// headerShow travels and rests in the tables as headerFind does.
const headerShow = "outlast-show"

// Shown is a value of a body that people may see. See [Envelope.Shown].
type Shown struct {
	Path string `json:"path"` // names of JSON fields, joined by dots; arrays are passed through
	// Values has one for each occurrence, as JSON. Empty: the body has no such field.
	Values []json.RawMessage `json:"values,omitempty"`
}

// Shown returns the values of the fields that the contract lets everybody see who may look
// at the message, without the right to its body: those tagged `outlast:"show"`. All others
// stay masked, and so does everything in a body that is not JSON. At most 100 values of a
// path are returned.
func (e *Envelope) Shown(body []byte) []Shown {
	if len(e.Show) == 0 {
		return nil
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // as it was written
	if d.Decode(&tree) != nil {
		return nil
	}
	all := make([]Shown, 0, len(e.Show))
	for _, path := range e.Show {
		all = append(all, Shown{path, valuesAt(nil, tree, strings.Split(path, "."))})
	}
	return all
}

const mostShown = 100

func valuesAt(found []json.RawMessage, tree any, path []string) []json.RawMessage {
	if len(found) == mostShown {
		return found
	}
	if list, ok := tree.([]any); ok && len(path) > 0 {
		for _, element := range list {
			found = valuesAt(found, element, path)
		}
		return found
	}
	if len(path) > 0 {
		object, _ := tree.(map[string]any)
		if child, there := object[path[0]]; there {
			return valuesAt(found, child, path[1:])
		}
		return found
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return found
	}
	return append(found, text)
}

// showPaths returns the paths of the fields of t tagged `outlast:"show"`, within structs,
// pointers to them and lists of them. A path that may name a field without the tag as well
// is an error: the field would be seen.
func showPaths(t reflect.Type) ([]string, error) {
	w := shownWalk{masked: map[string]bool{}}
	if err := w.walk(t, nil, nil); err != nil {
		return nil, err
	}
	slices.Sort(w.shown)
	w.shown = slices.Compact(w.shown)
	if n := len(showText(w.shown)); len(w.shown) > MaxShow || n > maxShowBytes {
		return nil, fmt.Errorf("%d fields of %s, with names of %d bytes", len(w.shown), t, n)
	}
	for _, path := range w.shown {
		if w.masked[path] {
			return nil, fmt.Errorf("%s of %s is two fields, and one is not to be shown", quoted(path), t)
		}
	}
	return w.shown, nil
}

// shownWalk collects the paths of all fields, those with the tag and those without.
type shownWalk struct {
	shown  []string
	masked map[string]bool
}

func (w *shownWalk) walk(t reflect.Type, at []string, above []reflect.Type) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(above, t) { // a tree of itself has no end
		return nil
	}
	above = append(slices.Clip(above), t)
	for i := range t.NumField() {
		f := t.Field(i)
		show := hasTag(f.Tag.Get("outlast"), "show")
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if show && (!f.IsExported() || name == "-") {
			return fmt.Errorf("%s.%s is not in the body", t, f.Name)
		}
		if (!f.IsExported() && !f.Anonymous) || name == "-" {
			continue
		}
		names := slices.Clip(at)
		if name != "" || !f.Anonymous { // encoding/json lifts the fields of an embedded struct
			names = append(names, cmp.Or(name, f.Name))
		}
		path := strings.Join(names, ".")
		if !show {
			w.masked[path] = true
			if err := w.walk(f.Type, names, above); err != nil {
				return err
			}
			continue
		}
		if !validShow(path) || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, ".") }) {
			return fmt.Errorf("%s.%s, named %s in the body", t, f.Name, quoted(path))
		}
		w.shown = append(w.shown, path)
	}
	return nil
}

func validShow(path string) bool {
	return len(path) <= MaxHeaderName && !strings.Contains(path, ",") && cleanText(path) && !slices.Contains(strings.Split(path, "."), "")
}

// parseShow never fails: what cannot be read there shows nothing.
func parseShow(text string) []string {
	paths := strings.Split(text, ",")
	if len(text) > maxShowBytes || len(paths) > MaxShow {
		return nil
	}
	for i, p := range paths {
		if paths[i] = strings.TrimSpace(p); !validShow(paths[i]) {
			return nil
		}
	}
	return paths
}

func showText(paths []string) string { return strings.Join(paths, ",") }

func (f *fieldErrors) show(paths []string) {
	if len(paths) > MaxShow {
		f.add("show", fmt.Sprintf("at most %d paths", MaxShow), len(paths))
	}
	if n := len(showText(paths)); n > maxShowBytes {
		f.add("show", fmt.Sprintf("at most %d bytes in all", maxShowBytes), fmt.Sprintf("%d bytes", n))
	}
	for _, p := range paths {
		if !validShow(p) {
			f.add("show "+quoted(p), fmt.Sprintf("names joined by '.', without ',' and control characters, at most %d bytes", MaxHeaderName), quoted(p))
		}
	}
}
