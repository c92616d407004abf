package main

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStoppingEndsTheWholeGroup(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh")
	}
	var ps processes
	// The first ignores what it is told and has a child.
	p, err := ps.start("stubborn", -1, nil, "sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	ps.stopAll()
	for deadline := time.Now().Add(5 * time.Second); syscall.Kill(-p.pid(), 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process of the group still runs")
		}
	}
	if _, err := ps.start("late", -1, nil, "true"); err == nil {
		t.Error("started after the end")
	}
}

func TestAProcessThatEndsAtOnceIsQuoted(t *testing.T) {
	var ps processes
	p, err := ps.start("brief", -1, nil, "sh", "-c", "echo no such key >&2; exit 3")
	if err != nil {
		t.Skipf("no sh: %v", err)
	}
	defer ps.stop(p)
	err = p.ready(context.Background(), "127.0.0.1:1")
	if gone := p.alive(); gone == nil || !strings.Contains(gone.Error(), "exit status 3") {
		t.Errorf("alive: %v", gone)
	}
	if err == nil || !strings.Contains(err.Error(), "no such key") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}
