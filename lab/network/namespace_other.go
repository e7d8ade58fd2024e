//go:build !linux

package network

import "errors"

// Lacks says why namespaces cannot be made here; empty when they can.
func Lacks() string { return "network namespaces need Linux" }

// Isolate returns why it cannot.
func Isolate() error { return errors.New(Lacks()) }

// New returns why it cannot.
func New() (*Net, error) { return nil, errors.New(Lacks()) }

type namespace struct{}

func newNamespace() (namespace, error)        { return namespace{}, errors.New(Lacks()) }
func (namespace) path() string                { return "" }
func (namespace) enter(func() error) error    { return errors.New(Lacks()) }
func (namespace) close() error                { return nil }
func run(string, ...string) error             { return errors.New(Lacks()) }
func runWith(string, string, ...string) error { return errors.New(Lacks()) }
