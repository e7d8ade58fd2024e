//go:build !linux

package journey_test

import "testing"

// usage is told on Linux alone.
func usage(testing.TB) cpu { return cpu{} }
