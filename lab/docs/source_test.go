package docs_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exported are the exported names of a package, and the fields and methods of its types.
type exported struct {
	top     map[string]bool
	members map[string]map[string]bool
}

func load(t *testing.T, dir string) *doc.Package {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(set, files, "github.com/outlastmq/outlast/"+dir, doc.PreserveAST)
	if err != nil {
		t.Fatalf("no package in %q: %v", dir, err)
	}
	return p
}

func exportedNames(t *testing.T, dir string) exported {
	t.Helper()
	names := exported{map[string]bool{}, map[string]map[string]bool{}}
	p := load(t, dir)
	values := func(list []*doc.Value) {
		for _, v := range list {
			for _, name := range v.Names {
				names.top[name] = true
			}
		}
	}
	functions := func(list []*doc.Func) {
		for _, f := range list {
			names.top[f.Name] = true
		}
	}
	values(p.Consts)
	values(p.Vars)
	functions(p.Funcs)
	for _, typ := range p.Types {
		names.top[typ.Name] = true
		values(typ.Consts)
		values(typ.Vars)
		functions(typ.Funcs)
		members := map[string]bool{}
		for _, m := range typ.Methods {
			members[m.Name] = true
		}
		for _, f := range fieldsOf(typ) {
			for _, name := range f.Names {
				members[name.Name] = true
			}
			if id, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 {
				members[id.Name] = true
			}
		}
		names.members[typ.Name] = members
	}
	return names
}

// fieldsOf returns the fields of a struct or the methods of an interface.
func fieldsOf(typ *doc.Type) []*ast.Field {
	for _, spec := range typ.Decl.Specs {
		s, ok := spec.(*ast.TypeSpec)
		if !ok || s.Name.Name != typ.Name {
			continue
		}
		switch x := s.Type.(type) {
		case *ast.StructType:
			return x.Fields.List
		case *ast.InterfaceType:
			return x.Methods.List
		}
	}
	return nil
}

func typeOf(t *testing.T, dir, name string) *doc.Type {
	t.Helper()
	for _, typ := range load(t, dir).Types {
		if typ.Name == name {
			return typ
		}
	}
	t.Fatalf("%q has no type %s", dir, name)
	return nil
}

// fieldTable is one row for each documented setting of a struct. Fields that share a
// comment share a row.
func fieldTable(t *testing.T, dir, name string) string {
	var out strings.Builder
	out.WriteString("| setting | meaning, range, default |\n|---|---|\n")
	var pending []string
	for _, f := range fieldsOf(typeOf(t, dir, name)) {
		for _, id := range f.Names {
			if id.IsExported() {
				pending = append(pending, "`"+id.Name+"`")
			}
		}
		if f.Doc == nil || len(pending) == 0 {
			pending = nil
			continue
		}
		fmt.Fprintf(&out, "| %s | %s |\n", strings.Join(withSharers(t, dir, name, f, pending), ", "), oneLine(f.Doc.Text()))
		pending = nil
	}
	return out.String()
}

// withSharers adds the fields right below one, which have no comment of their own.
func withSharers(t *testing.T, dir, name string, first *ast.Field, names []string) []string {
	fields := fieldsOf(typeOf(t, dir, name))
	after := false
	for _, f := range fields {
		switch {
		case len(f.Names) > 0 && f.Names[0].Name == first.Names[0].Name:
			after = true
		case after && f.Doc == nil && len(f.Names) > 0 && f.Names[0].IsExported() && shares(first.Doc.Text(), f.Names[0].Name):
			names = append(names, "`"+f.Names[0].Name+"`")
		case after:
			return names
		}
	}
	return names
}

// shares reports whether a comment speaks of another field by name.
func shares(comment, name string) bool {
	return strings.Contains(comment, "and "+name) || strings.HasPrefix(comment, "First")
}

// optionTable is one row for each function that returns an option.
func optionTable(t *testing.T, dir, name string) string {
	var out strings.Builder
	out.WriteString("| option | meaning, range, default |\n|---|---|\n")
	for _, f := range typeOf(t, dir, name).Funcs {
		var params []string
		for _, p := range f.Decl.Type.Params.List {
			for _, id := range p.Names {
				params = append(params, id.Name)
			}
		}
		fmt.Fprintf(&out, "| `%s(%s)` | %s |\n", f.Name, strings.Join(params, ", "), oneLine(f.Doc))
	}
	return out.String()
}

// chapter is how doc comments name a chapter of the documents: "Title" in docs/file.md.
var chapter = regexp.MustCompile(`"([A-Za-z ]+)" in docs/([a-z]+\.md)`)

func oneLine(s string) string {
	s = strings.NewReplacer("[", "", "]", "", "|", "\\|").Replace(s)
	s = chapter.ReplaceAllStringFunc(strings.Join(strings.Fields(s), " "), func(part string) string {
		m := chapter.FindStringSubmatch(part)
		return fmt.Sprintf("[%s](%s#%s)", m[1], m[2], strings.ToLower(strings.ReplaceAll(m[1], " ", "-")))
	})
	return s
}

// code returns the declarations named of a Go file, or the whole file.
func code(t *testing.T, path string, names []string) string {
	t.Helper()
	source := read(t, path)
	if len(names) == 0 {
		return source
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, name := range names {
		from, to := declaration(file, name)
		if !from.IsValid() {
			t.Fatalf("%s declares no %s", path, name)
		}
		parts = append(parts, source[set.Position(from).Offset:set.Position(to).Offset])
	}
	text := strings.Join(parts, "\n\n") + "\n"
	if formatted, err := format.Source([]byte(text)); err == nil && !bytes.Equal(formatted, []byte(text)) {
		t.Fatalf("%s: %v is not a whole piece of code", path, names)
	}
	return text
}

func declaration(file *ast.File, name string) (from, to token.Pos) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == name {
				return start(d.Doc, d), d.End()
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if declares(spec, name) {
					return start(d.Doc, d), d.End()
				}
			}
		}
	}
	return token.NoPos, token.NoPos
}

func start(comment *ast.CommentGroup, d ast.Node) token.Pos {
	if comment != nil {
		return comment.Pos()
	}
	return d.Pos()
}

func declares(spec ast.Spec, name string) bool {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		return s.Name.Name == name
	case *ast.ValueSpec:
		for _, id := range s.Names {
			if id.Name == name {
				return true
			}
		}
	}
	return false
}
