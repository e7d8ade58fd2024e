package model

// digest stands for a state. It has 96 bits: with n states the probability that any two
// of them are taken for one is below n*n/2^97, which is 1e-12 for three hundred million.
type digest struct {
	low  uint64
	high uint32
}

// known numbers digests. It is split, so that only a small part is there twice while it
// grows.
type known struct{ parts [1 << partBits]part }

const partBits = 10

type part struct {
	slots []slot // as many as a power of two, of which a quarter at least is free
	used  int
}

// slot is 16 bytes. The number is one more than the state's; 0 is a free slot.
type slot struct {
	low          uint64
	high, number uint32
}

func newKnown() *known {
	k := &known{}
	for i := range k.parts {
		k.parts[i].slots = make([]slot, 16)
	}
	return k
}

// add returns the number of a digest, which is n when it is new.
func (k *known) add(d digest, n uint32) (number uint32, fresh bool) {
	p := &k.parts[d.low>>(64-partBits)]
	if p.used*4 >= len(p.slots)*3 {
		p.grow()
	}
	s := p.find(d)
	if s.number != 0 {
		return s.number - 1, false
	}
	*s = slot{d.low, d.high, n + 1}
	p.used++
	return n, true
}

func (k *known) get(d digest) (number uint32, ok bool) {
	s := k.parts[d.low>>(64-partBits)].find(d)
	return s.number - 1, s.number != 0
}

// find returns the slot of a digest, or the free one where it belongs.
func (p *part) find(d digest) *slot {
	for i := d.low; ; i++ {
		s := &p.slots[i&uint64(len(p.slots)-1)]
		if s.number == 0 || s.low == d.low && s.high == d.high {
			return s
		}
	}
}

func (p *part) grow() {
	was := p.slots
	p.slots = make([]slot, 2*len(was))
	for _, s := range was {
		if s.number != 0 {
			*p.find(digest{s.low, s.high}) = s
		}
	}
}

// list is a long slice that grows without being copied.
type list[T any] struct {
	chunks [][]T
	n      int
}

const chunk = 1 << 14

func (l *list[T]) len() int { return l.n }

func (l *list[T]) at(i int) *T { return &l.chunks[i/chunk][i%chunk] }

func (l *list[T]) add(v T) {
	if l.n%chunk == 0 {
		l.chunks = append(l.chunks, make([]T, chunk))
	}
	l.chunks[l.n/chunk][l.n%chunk] = v
	l.n++
}
