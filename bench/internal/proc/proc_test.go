package proc

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestOwnProcessUsesTimeAndMemory(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := CPU(self)
	if err != nil {
		t.Fatal(err)
	}
	for started := time.Now(); time.Since(started) < 50*time.Millisecond; {
	}
	after, err := CPU(self)
	if err != nil || after <= before {
		t.Errorf("processor time went from %v to %v, error %v", before, after, err)
	}
	now, err := Memory(self)
	if err != nil || now < 1<<20 {
		t.Errorf("memory %d, error %v", now, err)
	}
	peak, err := PeakMemory(self)
	if err != nil || peak < now/2 {
		t.Errorf("peak %d below %d, error %v", peak, now, err)
	}
}

func TestTreeHoldsChildren(t *testing.T) {
	cmd := exec.Command("sleep", "10")
	if err := cmd.Start(); err != nil {
		t.Skipf("no sleep to start: %v", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	tree, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(tree, cmd.Process.Pid) {
		t.Errorf("tree %v lacks %d, error %v", tree, cmd.Process.Pid, err)
	}
	if _, err := Tree(1 << 30); err == nil {
		t.Error("a process that does not exist has a tree")
	}
}
