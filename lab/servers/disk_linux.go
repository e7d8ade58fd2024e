package servers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// mountDisk mounts a file system in memory on folder.
func mountDisk(folder string, size int64) error {
	if err := unix.Mount("outlast-lab", folder, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

func resizeDisk(folder string, size int64) error {
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("change the size of the disk: %w", err)
	}
	return nil
}

// usedDisk returns the bytes in use.
func usedDisk(folder string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("look at the disk: %w", err)
	}
	return int64(s.Blocks-s.Bfree) * s.Bsize, nil
}

func unmountDisk(folder string) error {
	if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount the disk: %w", err)
	}
	return nil
}
