package journey

import "hash/fnv"

// sketchCells in three parts recover every difference of up to 100 ids, but for one in
// thousands (TestSketchRecovers). Then the ids are read one by one.
const (
	sketchParts = 3
	sketchCells = 384
)

// Sketch counts and sums a set of ids, and lets two sets be subtracted: when they differ
// in few ids, what is left names them, by their hashes. It is an invertible Bloom lookup
// table: each id is in one cell of every part, and a cell with a single id gives it away.
// Its size does not depend on the number of ids.
type Sketch struct {
	Count int64
	Sum   uint64
	cells [sketchCells]cell
}

type cell struct {
	count int64
	ids   uint64 // XOR of the hashes
	check uint32 // XOR of their checks
}

// Hash is the 64 bits by which a sketch knows an id.
func Hash(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return mix(h.Sum64())
}

// mix spreads the bits of FNV, whose high ones depend little on the last bytes.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func check(hash uint64) uint32 { return uint32(mix(hash^0x9e3779b97f4a7c15) >> 32) }

// Add puts an id in.
func (s *Sketch) Add(id string) { s.add(Hash(id), 1) }

func (s *Sketch) add(hash uint64, n int64) {
	s.Count += n
	s.Sum += uint64(n) * hash
	c := check(hash)
	for part := range sketchParts {
		x := &s.cells[position(hash, part)]
		x.count += n
		x.ids ^= hash
		x.check ^= c
	}
}

// position is the cell of a hash in a part.
func position(hash uint64, part int) int {
	const cells = sketchCells / sketchParts
	return part*cells + int(mix(hash+uint64(part+1)*0x9e3779b97f4a7c15)%cells)
}

// Subtract takes the ids of other out.
func (s *Sketch) Subtract(other *Sketch) {
	s.Count -= other.Count
	s.Sum -= other.Sum
	for i := range s.cells {
		s.cells[i].count -= other.cells[i].count
		s.cells[i].ids ^= other.cells[i].ids
		s.cells[i].check ^= other.cells[i].check
	}
}

// merge puts the ids of other in.
func (s *Sketch) merge(other *Sketch) {
	s.Count += other.Count
	s.Sum += other.Sum
	for i := range s.cells {
		s.cells[i].count += other.cells[i].count
		s.cells[i].ids ^= other.cells[i].ids
		s.cells[i].check ^= other.cells[i].check
	}
}

// Empty reports whether nothing is in it: after Subtract, whether the sets are the same.
func (s *Sketch) Empty() bool {
	return s.Count == 0 && s.Sum == 0 && s.cells == [sketchCells]cell{}
}

// Decode returns the hashes of what is in it, and of what was subtracted without being
// in it. It reports false when there are too many.
func (s *Sketch) Decode() (in, out map[uint64]bool, ok bool) {
	left := *s
	in, out = map[uint64]bool{}, map[uint64]bool{}
	for found := true; found && len(in)+len(out) < 2*sketchCells; {
		found = false
		for i := range left.cells {
			c := left.cells[i]
			if c.count != 1 && c.count != -1 || check(c.ids) != c.check || position(c.ids, i/(sketchCells/sketchParts)) != i {
				continue
			}
			if c.count == 1 {
				in[c.ids] = true
			} else {
				out[c.ids] = true
			}
			left.add(c.ids, -c.count)
			found = true
		}
	}
	return in, out, left.Empty()
}
