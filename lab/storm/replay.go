package storm

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/postgres"
)

// mostReplayed bounds how many dead letters one operator brings back at once.
const mostReplayed = 20

// operatorKinds is what people do while everything else goes wrong.
func (s *stage) operatorKinds() []fault.Kind {
	return []fault.Kind{{Name: "replay dead letters", Weight: 2, Shortest: 100 * time.Millisecond, Longest: time.Second, Draw: func(r *rand.Rand) fault.Fault {
		group, odds, seed, brought := oneOf(r, []string{"audit", "billing"}), r.Float64(), r.Uint64(), 0 // those that hear poison
		return fault.Fault{Name: "replay dead letters of " + group, Hits: []string{"dead letters of " + group}, Off: nothing,
			On: func(ctx context.Context) (err error) {
				chance := rand.New(rand.NewPCG(seed, 1))
				if brought, err = s.replay(ctx, group, func() bool { return chance.Float64() < odds }); brought > 0 {
					return nil
				}
				return err
			},
			Struck: func() bool { return brought > 0 }}
	}}}
}

// replay brings the oldest dead letters of a group back, after their cause was put right for
// those that cure chooses: the others die again.
func (s *stage) replay(ctx context.Context, group string, cure func() bool) (brought int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db := s.databases[s.database(group)]
	dead := postgres.Store(db).Operator().Dead()
	letters, err := dead.List(ctx, outlast.Filter{Group: group, Limit: mostReplayed})
	if err != nil {
		return 0, err
	}
	for _, letter := range letters {
		id := letter.Envelope.ID
		if cure() {
			if _, err := db.ExecContext(ctx, `INSERT INTO ledger_cured (id) VALUES ($1) ON CONFLICT DO NOTHING`, id); err != nil {
				return brought, err
			}
		}
		// Noted before, as nobody may know afterwards whether it was done.
		s.replayed.Store([2]string{group, id}, true)
		if s.history != nil {
			s.history.Acted("replay", group, id, "")
		}
		n, err := dead.Replay(ctx, outlast.Filter{Group: group, IDs: []string{id}}, outlast.Action{Who: "lab", Reason: "the storm's operator"})
		if err != nil {
			return brought, err
		}
		brought += n
	}
	return brought, nil
}
