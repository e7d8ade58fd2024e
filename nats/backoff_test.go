package nats

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A session that ends as soon as it has begun, as by a pull that is refused, does not
// start the pauses anew: the server is not asked ten times a second for ever.
func TestShortSessionsDoNotResetThePauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pause := backoff{limit: 10 * time.Second}
		began := time.Now()
		n := 0
		for ; time.Since(began) < 10*time.Minute; n++ {
			pause.lived(time.Now())
			pause.wait(t.Context(), errors.New("refused"))
		}
		if n > 400 {
			t.Errorf("%d sessions in ten minutes", n)
		}
		up := time.Now()
		time.Sleep(10 * time.Second)
		if pause.lived(up); pause.last != 0 {
			t.Errorf("after a session of ten seconds the next pause is still up to %v", 2*pause.last)
		}
	})
}
