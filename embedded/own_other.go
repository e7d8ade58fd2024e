//go:build !unix

package embedded

import "os"

// own only opens the file: without file locks the port, which stays the same, keeps
// a second server away.
func own(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
