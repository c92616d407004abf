package integration_tests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// proxydBin is the program under test.
var proxydBin string

func TestMain(m *testing.M) {
	// The tests mostly wait for other programs, so more of them run at once than there are processors.
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	proxydBin = os.Getenv("PROXYD_BIN")
	if proxydBin == "" {
		dir, err := os.MkdirTemp("", "proxyd-integration-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		proxydBin = filepath.Join(dir, "proxyd")
		args := []string{"build", "-o", proxydBin}
		if os.Getenv("PROXYD_RACE") == "1" {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "./cmd/proxyd")...)
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build proxyd: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// missing ends a test whose real component is not installed: an error in CI, a named skip elsewhere.
func missing(t *testing.T, component string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: run scripts/install-test-tools", component)
	}
	t.Skipf("%s is not installed: run scripts/install-test-tools", component)
}

// eventually asks until ok returns nil, and fails the test with its last error when the limit has passed. It is the
// only way to wait here.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s for %s: %v", limit, what, err)
		}
	}
}
