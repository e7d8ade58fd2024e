package servers

import (
	"errors"
	"path/filepath"
)

// diskSize is that of a server's own disk while it is not full.
const diskSize = 4 << 30

// diskRoom is what a full disk still takes.
const diskRoom = 64 << 10

// FillDisk makes the server's disk full. It needs PostgresConfig.OwnDisk.
func (s *PostgresServer) FillDisk() error {
	if !s.disk {
		return errors.New("fill the disk: the server has none of its own")
	}
	used, err := usedDisk(s.diskFolder())
	if err != nil {
		return err
	}
	return resizeDisk(s.diskFolder(), used+diskRoom)
}

// FreeDisk gives the disk its room back. The server may have ended meanwhile.
func (s *PostgresServer) FreeDisk() error { return resizeDisk(s.diskFolder(), diskSize) }

func (s *PostgresServer) diskFolder() string { return filepath.Dir(s.process.dir) }
