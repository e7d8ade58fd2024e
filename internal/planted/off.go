//go:build !outlast_planted

package planted

// On reports whether a bug is switched on: never, in this build.
func On(Bug) bool { return false }

// SQL changes statements for bugs that are in SQL: not in this build.
func SQL(map[string]string) {}
