package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// It is measured in a process of its own, as at the program's start: memory that
// other tests have used and freed would be written to for the floor.
func TestHeapFloorPutsCollectionsOffAndTakesNoMemory(t *testing.T) {
	if os.Getenv("PROXYD_TEST_FRESH") == "" {
		fresh := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		fresh.Env = append(os.Environ(), "PROXYD_TEST_FRESH=1")
		if out, err := fresh.CombinedOutput(); err != nil || !strings.Contains(string(out), t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	t.Setenv("GOGC", "")
	before := resident(t)
	floor := newHeapFloor()
	debug.FreeOSMemory()
	if grown := resident(t) - before; grown > 4<<20 {
		t.Errorf("the floor took %d bytes of memory", grown)
	}
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.NextGC < 24<<20 {
		t.Errorf("the next collection begins at %d bytes", m.NextGC)
	}
	floor.keep()
}

func TestOperatorsGOGCIsLeftAlone(t *testing.T) {
	t.Setenv("GOGC", "50")
	if newHeapFloor() != nil {
		t.Error("a floor beside the operator's own setting")
	}
}

// resident is the memory of this process in bytes.
func resident(t *testing.T) int {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
