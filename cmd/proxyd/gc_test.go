package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

func TestHeapFloorPutsCollectionsOffAndTakesNoMemory(t *testing.T) {
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
