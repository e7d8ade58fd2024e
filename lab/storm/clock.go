package storm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// clockEnv sets the wall clock of a process with a clock of its own: "seconds@after", the
// jump and how many seconds after its start it comes. Monotonic time is left alone.
const clockEnv = "OUTLAST_LAB_CLOCK"

// labClock is added to the package time of a build with a clock of its own. What is preloaded
// into servers has no effect on Go programs, which do not ask the C library for the time.
const labClock = `package time

import (
	"sync"
	"syscall"
)

var labOnce sync.Once
var labJump, labAfter int64

// labSkew is the difference of the clock, in seconds.
func labSkew(mono int64) int64 {
	labOnce.Do(func() {
		text, _ := syscall.Getenv("` + clockEnv + `")
		negative, at := false, &labJump
		for _, c := range []byte(text) {
			switch {
			case c == '-':
				negative = true
			case c == '@':
				at = &labAfter
			case c >= '0' && c <= '9':
				*at = *at*10 + int64(c-'0')
			}
		}
		if negative {
			labJump = -labJump
		}
	})
	if mono-startNano < labAfter*1e9 {
		return 0
	}
	return labJump
}
`

const ownNow = "sec, nsec, mono := runtimeNow()\n\tif mono == 0"

// BuildSkewed builds the program at pkg, a package of the lab that begins with role.Main, with
// a wall clock of its own, and returns its path in folder.
func BuildSkewed(ctx context.Context, pkg, folder string) (program string, err error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("find the source of the lab")
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	if strings.Count(string(source), ownNow) != 1 {
		return "", fmt.Errorf("package time of %s does not look as expected", runtime.Version())
	}
	patched := strings.Replace(string(source), ownNow, "sec, nsec, mono := runtimeNow()\n\tsec += labSkew(mono)\n\tif mono == 0", 1)
	at := func(name string) string { return filepath.Join(folder, name) }
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(std, "time.go"): at("time.go"), filepath.Join(std, "labclock.go"): at("labclock.go"),
	}})
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{"time.go": patched, "labclock.go": labClock, "overlay.json": string(overlay)} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", at("overlay.json"), "-o", at("skewed"), pkg)
	build.Dir = filepath.Join(filepath.Dir(here), "..")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with a clock of its own: %w\n%s", err, out)
	}
	return at("skewed"), nil
}

// clockSetting is the environment of a process whose clock jumps.
func clockSetting(jump, after time.Duration) string {
	return fmt.Sprintf("%s=%d@%d", clockEnv, int(jump.Seconds()), int(after.Seconds()))
}
