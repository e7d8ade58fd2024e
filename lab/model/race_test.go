//go:build race

package model

// raceEnabled: the race detector makes an exploration ten times as long.
const raceEnabled = true
