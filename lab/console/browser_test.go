package console_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var (
	chromium context.Context // of the browser that all tests share
	axeCore  string          // the script; empty: not asked
	asked    sync.Map        // what the browser asked the consoles for, as "GET /outbox"
)

func TestMain(m *testing.M) {
	if os.Getenv("OUTLAST_TEST_BROWSER") == "" {
		os.Exit(m.Run()) // each test says that it looks at nothing
	}
	if err := readAxe(os.Getenv("OUTLAST_TEST_AXE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("force-color-profile", "srgb"))
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	var endBrowser context.CancelFunc
	chromium, endBrowser = chromedp.NewContext(allocator)
	code := m.Run()
	endBrowser()
	endAllocator()
	flag.Parse()
	if whole := flag.Lookup("test.run").Value.String()+flag.Lookup("test.skip").Value.String() == ""; code == 0 && whole {
		code = neverAsked()
	}
	os.Exit(code)
}

// readAxe reads axe-core. To look without it is said, and does not happen by itself.
func readAxe(name string) error {
	if name == "none" {
		return nil
	}
	script, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("OUTLAST_TEST_AXE=%s names no script: make console-test fetches axe-core with npm; without npm, name the axe.min.js of npm's package axe-core there, or say OUTLAST_TEST_AXE=none to look without it", name)
	}
	axeCore = string(script)
	return nil
}

// neverAsked tells which page or action of the console no test has asked for.
func neverAsked() (code int) {
	source, err := os.ReadFile("../../console/console.go")
	routes := regexp.MustCompile(`"((?:GET|POST) /[a-z-]*)(?:\{\$\})?"`).FindAllStringSubmatch(string(source), -1)
	if err != nil || len(routes) < 30 {
		fmt.Fprintf(os.Stderr, "read the routes of the console: %d, %v\n", len(routes), err)
		return 1
	}
	for _, r := range routes {
		if _, ok := asked.Load(r[1]); !ok {
			fmt.Fprintf(os.Stderr, "no test drives the browser to %s\n", r[1])
			code = 1
		}
	}
	return code
}

// tab is a tab of the browser.
type tab struct {
	ctx      context.Context
	mu       sync.Mutex
	problems []string // what the browser complained about
}

// newTab opens a tab.
func newTab(t *testing.T) *tab {
	t.Helper()
	if os.Getenv("OUTLAST_TEST_BROWSER") == "" {
		t.Skip("looks with a real browser: make console-test")
	}
	err := chromedp.Run(chromium)
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("there is no Chromium: install Debian's package chromium")
	}
	must(t, err)
	ctx, end := chromedp.NewContext(chromium)
	t.Cleanup(end)
	x := &tab{ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		x.mu.Lock()
		defer x.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			x.problems = append(x.problems, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			x.problems = append(x.problems, e.ExceptionDetails.Error())
		}
	})
	must(t, chromedp.Run(ctx, log.Enable(), runtime.Enable(), page.BringToFront()))
	return x
}

// in is the scene in a subtest.
func (s *scene) in(t *testing.T) *scene {
	part := *s
	part.T = t
	return &part
}

// patience bounds what a page is waited for.
const patience = time.Minute

func (s *scene) run(actions ...chromedp.Action) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.failed(chromedp.Run(ctx, actions...))
}

func (s *scene) failed(err error) {
	s.Helper()
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var text string
	_ = chromedp.Run(ctx, chromedp.Text("body", &text, chromedp.ByQuery))
	s.Fatalf("%v; the page says:\n%s", err, text)
}

// answer does what leads to another page, and returns its status.
func (s *scene) answer(actions ...chromedp.Action) int64 {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	r, err := chromedp.RunResponse(ctx, actions...)
	s.failed(err)
	return r.Status
}

func (s *scene) text() (text string) {
	s.Helper()
	s.run(chromedp.Text("main", &text, chromedp.ByQuery))
	return text
}

// says wants texts on the page.
func (s *scene) says(texts ...string) {
	s.Helper()
	page := s.text()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			s.Errorf("the page does not say %q:\n%s", text, page)
		}
	}
}

// quiet wants that the browser has not complained: nothing was blocked by the policy. Of
// an answer that is meant to refuse, it may tell the status.
func (s *scene) quiet(status int64) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.problems {
		if status < 400 || !strings.Contains(p, fmt.Sprintf("status of %d", status)) {
			s.Errorf("the browser says: %s", p)
		}
	}
	s.problems = nil
}

// until waits for an expression of the page to be true.
func (s *scene) until(expression string) {
	s.Helper()
	s.run(chromedp.Poll(expression, nil, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience/2)))
}

// link goes to a page and returns where the first such link of it leads.
func (s *scene) link(path, selector string) (to string) {
	s.Helper()
	s.run(chromedp.Navigate(s.url+path), chromedp.WaitVisible(selector, chromedp.ByQuery),
		chromedp.AttributeValue(selector, "href", &to, nil, chromedp.ByQuery))
	return to
}

// click presses the mouse in the middle of an element, or of the first line of one that has
// several. It is given in JavaScript.
func click(element string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		var at []float64
		err := chromedp.Evaluate(`(e => { e.scrollIntoView({block: 'center'}); const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; })(`+element+`)`, &at).Do(ctx)
		if err != nil {
			return fmt.Errorf("look for %s: %w", element, err)
		}
		return chromedp.MouseClickXY(at[0], at[1]).Do(ctx)
	})
}

// fill writes into a field of a form, which a click on its summary shows first. The page
// is not exchanged meanwhile for what is new: it waits for forms that are filled in.
func fill(form, field, text string) chromedp.Action {
	f := `document.querySelector('` + form + `')`
	return chromedp.ActionFunc(func(ctx context.Context) error {
		var closed bool
		err := chromedp.Evaluate(`(f => f.closest('details') !== null && !f.closest('details').open)(`+f+`)`, &closed).Do(ctx)
		if err == nil && closed {
			err = click(f + `.closest('details').querySelector('summary')`).Do(ctx)
		}
		if err != nil {
			return fmt.Errorf("open the form %s: %w", form, err)
		}
		input := f + `.querySelector('[name="` + field + `"]')`
		return chromedp.Tasks{chromedp.Evaluate(input+`.focus(), `+input+`.select()`, nil), chromedp.KeyEvent(text)}.Do(ctx)
	})
}

// press clicks on a button of a form: the first one, or the one of that selector.
func press(form, button string) chromedp.Action {
	if button == "" {
		button = "button"
	}
	return click(`document.querySelector('` + form + `').querySelector('` + button + `')`)
}

// axe returns what axe-core finds wrong with the page for people who use other senses or
// hands.
func (s *scene) axe() {
	s.Helper()
	if axeCore == "" {
		return
	}
	var found []string
	s.run(chromedp.Evaluate(axeCore+";0", nil), chromedp.Evaluate(
		`axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then(r =>
			r.violations.map(v => v.id + ' (' + v.impact + '): ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(' | ')))`,
		&found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	for _, v := range found {
		s.Errorf("axe says: %s", v)
	}
}

// look is how a person sees the pages.
type look struct {
	name, scheme  string
	width, height int64
}

var looks = []look{{"light", "light", 1280, 900}, {"dark", "dark", 1280, 900}, {"phone", "light", 390, 844}}

func (s *scene) as(l look) {
	s.Helper()
	s.run(chromedp.EmulateViewport(l.width, l.height), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}))
}

// picture keeps a picture of the page, of its whole width and so much of its height as is
// worth a look, in the folder that OUTLAST_TEST_SCREENSHOTS names.
func (s *scene) picture(name string) {
	s.Helper()
	folder := os.Getenv("OUTLAST_TEST_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture []byte
	s.run(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		_, _, _, _, _, size, err := page.GetLayoutMetrics().Do(ctx)
		if err != nil {
			return err
		}
		most := 1200.0
		if size.Width < 600 {
			most = 2000
		}
		picture, err = page.CaptureScreenshot().WithCaptureBeyondViewport(true).
			WithClip(&page.Viewport{Width: size.Width, Height: min(size.Height, most), Scale: 1}).Do(ctx)
		return err
	}))
	must(s.T, os.WriteFile(filepath.Join(folder, name+".png"), small(s.T, picture), 0o644))
}

// small is a picture with its 256 most frequent colours, in half the bytes. Most of the
// others are greys at the edges of letters, so what is not grey counts for more.
func small(t *testing.T, picture []byte) []byte {
	t.Helper()
	whole, err := png.Decode(bytes.NewReader(picture))
	must(t, err)
	weight, bounds := map[color.Color]int{}, whole.Bounds()
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			c := whole.At(x, y)
			r, g, b, _ := c.RGBA()
			weight[c] += 1 + int(max(r, g, b)-min(r, g, b))>>8
		}
	}
	colours := slices.SortedFunc(maps.Keys(weight), func(a, b color.Color) int { return weight[b] - weight[a] })
	paletted, index := image.NewPaletted(bounds, colours[:min(256, len(colours))]), map[color.Color]uint8{}
	for _, c := range colours {
		index[c] = uint8(paletted.Palette.Index(c))
	}
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			paletted.SetColorIndex(x, y, index[whole.At(x, y)])
		}
	}
	var out bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, paletted))
	return out.Bytes()
}
