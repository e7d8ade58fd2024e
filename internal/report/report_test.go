package report_test

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast/internal/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func table() *report.Table {
	t := &report.Table{Name: "relay", Title: "rows & <messages>"}
	for _, rate := range []float64{12000, 15000.4, 13000} {
		t.Add("outlast", report.Value{Name: "msg/s", Value: rate}, report.Value{Name: "us", Value: 20.04})
	}
	t.Add("by hand", report.Value{Name: "msg/s", Value: 950})
	return t
}

func TestTable_shows_medians_with_their_spread(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	if err := table().Text(&text); err != nil {
		t.Fatal(err)
	}
	want := `relay: rows & <messages>
  case                      msg/s    us
  outlast  13,000 (12,000-15,000)  20.0
  by hand                     950` + "      \n\n"
	if text.String() != want {
		t.Errorf("got\n%q\nwant\n%q", text.String(), want)
	}
	var markdown strings.Builder
	if err := table().Markdown(&markdown); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(markdown.String(), "| outlast | 13,000 (12,000-15,000) | 20.0 |\n") {
		t.Errorf("the document's table is\n%s", markdown.String())
	}
}

func TestTable_draws_bars_in_proportion(t *testing.T) {
	t.Parallel()
	var bars strings.Builder
	if err := table().Bars(&bars); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(bars.String(), "\n")
	if long, short := strings.Count(lines[0], "#"), strings.Count(lines[1], "#"); long != 40 || short != 3 {
		t.Errorf("bars of %d and %d signs, want 40 and 3", long, short)
	}
}

func TestSVG_is_well_formed_whatever_the_titles(t *testing.T) {
	t.Parallel()
	var svg strings.Builder
	if err := report.SVG(&svg, []*report.Table{table(), {Name: "empty"}, table()}); err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(strings.NewReader(svg.String())); ; {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg.String())
		}
	}
	if n := strings.Count(svg.String(), "<path"); n != 4 {
		t.Errorf("%d ranges are drawn, want 4", n)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 3}, 1, 3},
		{[]float64{7}, 0.99, 7},
	} {
		if got := report.Quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.values, got, c.want)
		}
	}
	if got := report.Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("the quantile of nothing is %v", got)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]string{1234567: "1,234,567", -1234: "-1,234", 999.6: "1000", 15.44: "15.4", 0: "0", 0.055: "0.06", math.NaN(): "-"} {
		if got := report.Number(value); got != want {
			t.Errorf("%v is shown as %q, want %q", value, got, want)
		}
	}
}
