package journey

import (
	"context"
	"fmt"

	"github.com/outlastmq/outlast"
)

// Imbalance is what the books of an outbox lack, as they were looked at last.
type Imbalance struct {
	// Minutes are unbalanced, at most MostUnbalanced; MoreMinutes says that there are others,
	// which are older and were not looked into.
	Minutes     int  `json:"minutes"`
	MoreMinutes bool `json:"more_minutes,omitempty"`
	// Missing counts the messages that their lines name, each once however many groups lack
	// it. More says that there are others.
	Missing int  `json:"missing"`
	More    bool `json:"more,omitempty"`
}

// MostUnbalanced bounds the minutes that Unbalanced looks into.
const MostUnbalanced = 100

// Unbalanced asks the books of an outbox what is missing, the newest minutes first. Of types
// that may is not true of nothing is counted; nil: of all. Where there are no tables of
// tracking nothing is known to be missing.
func Unbalanced(ctx context.Context, store outlast.Store, may func(typ string) bool) (x Imbalance, err error) {
	list, err := store.Books().Minutes(ctx, outlast.MinuteQuery{State: outlast.MinuteUnbalanced, Limit: MostUnbalanced + 1})
	if outlast.CodeOf(err) == outlast.CodeSchema {
		return x, nil
	}
	if err != nil {
		return x, err
	}
	if len(list) > MostUnbalanced {
		list, x.MoreMinutes, x.More = list[:MostUnbalanced], true, true
	}
	missing := map[string]bool{}
	for _, m := range list {
		lines, err := store.Books().Lines(ctx, m.Minute)
		if err != nil {
			return x, err
		}
		lacks := false
		for _, l := range lines {
			if may != nil && !may(l.Type) {
				continue
			}
			for _, id := range l.Missing {
				missing[id] = true
			}
			x.More = x.More || l.More
			lacks = lacks || l.More || len(l.Missing) > 0
		}
		if lacks {
			x.Minutes++
		}
	}
	x.Missing = len(missing)
	return x, nil
}

// Text says it in words, "2 minutes of orders are unbalanced: 3 messages are missing"; empty
// when nothing is missing.
func (x Imbalance) Text(service string) string {
	if x.Minutes == 0 {
		return ""
	}
	minutes := fmt.Sprintf("%d minutes of %s are", x.Minutes, service)
	switch {
	case x.MoreMinutes:
		minutes = "more than " + minutes
	case x.Minutes == 1:
		minutes = fmt.Sprintf("1 minute of %s is", service)
	}
	missing := fmt.Sprintf("%d messages are missing", x.Missing)
	if x.Missing == 1 {
		missing = "1 message is missing"
	}
	if x.More {
		missing = "at least " + missing
	}
	return minutes + " unbalanced: " + missing
}
