package servers

import (
	"os"
	"sync"
	"testing"
)

// TestFoldersOfManyAtOnce: nobody's folder is taken for an orphan while it is being made.
func TestFoldersOfManyAtOnce(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				f, err := newFolder() // looks for orphans, too
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.Mkdir(f.join("home"), 0o755); err != nil {
					t.Error(err)
				}
				if err := f.remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
