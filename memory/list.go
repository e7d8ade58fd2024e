package memory

import (
	"cmp"
	"slices"
)

// sequenced is a row of any table: its number orders it.
type sequenced interface{ number() int64 }

// list is a table in order of its rows' numbers.
type list[R sequenced] []R

func (l list[R]) find(seq int64) (int, bool) {
	return slices.BinarySearchFunc(l, seq, func(r R, seq int64) int { return cmp.Compare(r.number(), seq) })
}

func (l list[R]) get(seq int64) (r R, ok bool) {
	i, ok := l.find(seq)
	if ok {
		r = l[i]
	}
	return r, ok
}

func (l *list[R]) insert(r R) {
	i, _ := l.find(r.number())
	*l = slices.Insert(*l, i, r)
}

func (l *list[R]) remove(seq int64) {
	i, ok := l.find(seq)
	if !ok {
		return
	}
	if i == 0 { // the usual case, and cheap on a long list
		var none R
		(*l)[0] = none
		*l = (*l)[1:]
		return
	}
	*l = slices.Delete(*l, i, i+1)
}
