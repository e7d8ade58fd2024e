package model

import "testing"

// TestFreeFaultsLoseNothing visits every state, without taking those for one between
// which only faults lead: for each of them there is its representative among those that
// the proofs without bound visit.
func TestFreeFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	confs := []Config{{Half: RelayHalf, Keys: aab, Messages: 1}}
	if long() {
		confs = append(confs, Config{Half: RelayHalf, Keys: aab, Messages: 2})
	}
	for _, conf := range confs {
		few := reach(New(conf), nil)
		conf.EveryState = true
		all := reach(New(conf), func(s State) {
			conf.EveryState = false
			New(conf).canonical(&s)
			if !few[s] {
				t.Fatalf("not visited: %+v", s)
			}
		})
		t.Logf("%d messages: %d states stand for %d", conf.Messages, len(few), len(all))
	}
}

// reach returns all states.
func reach(m *Model, see func(s State)) map[State]bool {
	known := map[State]bool{m.Init(): true}
	for work := []State{m.Init()}; len(work) > 0; {
		s := work[len(work)-1]
		work = work[:len(work)-1]
		if see != nil {
			see(s)
		}
		m.Next(&s, func(_ Step, next *State) {
			if !known[*next] {
				known[*next] = true
				work = append(work, *next)
			}
		})
	}
	return known
}
