package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// test is a test or a part of one whose name carries IDs.
type test struct {
	ids  []string
	name string // of the function, or of the part
	file string // from the root
	// top is the function to run; empty for a part of a suite that other packages run.
	top string
}

var named = regexp.MustCompile(`^(?:Test|Fuzz)?((?:[FS][0-9]{2}_)+)[A-Za-z0-9]`)

// idsOf returns the IDs that a name begins with.
func idsOf(name string) []string {
	m := named.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(m[1], "_"), "_")
}

// findTests looks through all Go files that hold tests.
func findTests(root string) ([]test, error) {
	var tests []test
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "catalogue" || strings.HasPrefix(d.Name(), ".") && path != root):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		case !strings.HasSuffix(path, "_test.go") && filepath.Base(filepath.Dir(path)) != "outlasttest":
			return nil
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found, err := testsOf(path, filepath.ToSlash(file))
		tests = append(tests, found...)
		return err
	})
	return tests, err
}

func testsOf(path, file string) ([]test, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var tests []test
	for _, decl := range tree.Decls {
		top := ""
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
			top = f.Name.Name
			if ids := idsOf(top); ids != nil {
				tests = append(tests, test{ids, top, file, top})
			}
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if name, err := strconv.Unquote(lit.Value); err == nil && idsOf(name) != nil {
					tests = append(tests, test{idsOf(name), strings.ReplaceAll(name, " ", "_"), file, top})
				}
			}
			return true
		})
	}
	return tests, nil
}
