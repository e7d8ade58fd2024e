package collector_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
)

func TestNewNamesEveryBadField(t *testing.T) {
	t.Parallel()
	_, err := collector.New(collector.Config{Every: time.Millisecond, Patience: -1, Share: 1.5, Look: 9, Rows: -1, Bytes: 1, Age: time.Second})
	for _, want := range []string{"Store", "Places", "Every 1ms: must be 1s..1h0m0s", "Patience", "Share 1.5: must be 0..1", "Look 9", "Rows -1", "Bytes", "Age"} {
		if outlast.CodeOf(err) != outlast.CodeInvalid || !strings.Contains(err.Error(), "Config."+want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for _, standard := range []string{"Grace", "History"} { // left out: their defaults
		if strings.Contains(err.Error(), "Config."+standard) {
			t.Errorf("the default of %s is refused: %v", standard, err)
		}
	}
}
