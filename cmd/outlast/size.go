package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// size is a flag in bytes: "65536", "500MB", "2GiB".
type size int64

func (s *size) String() string { return strings.ReplaceAll(sizeText(int64(*s)), ".0 ", " ") }
func (s *size) Type() string   { return "bytes" }

func (s *size) Set(text string) error {
	number := strings.TrimRight(text, "KMGTiBkb ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	factors := map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	factor, ok := factors[unit]
	n, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || n < 0 || n*factor >= math.MaxInt64 || math.IsNaN(n) {
		return errors.New("not a size")
	}
	*s = size(n * factor)
	return nil
}
