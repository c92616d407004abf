// Package proc reads from /proc what a process and its children use.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat. Linux shows 100 a second to
// programs on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// Tree returns the process and all its descendants.
func Tree(pid int) ([]int, error) {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		return nil, fmt.Errorf("process %d is gone: %w", pid, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fields, err := stat(child)
		if err != nil {
			continue // ended since the list was read
		}
		parent, err := strconv.Atoi(fields[1])
		if err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// CPU is the user and system time that the processes have used so far.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		fields, err := stat(pid)
		if err != nil {
			return 0, err
		}
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// stat returns the fields of /proc/PID/stat from the third on, which is the
// state; proc(5) numbers them.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	// The second is the name in parentheses, which may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields)+2)
	}
	return fields, nil
}

// Memory is the resident memory of the processes now, in bytes.
func Memory(pids []int) (int64, error) { return status(pids, "VmRSS:") }

// PeakMemory is the most resident memory that each process has had, in bytes,
// added up.
func PeakMemory(pids []int) (int64, error) { return status(pids, "VmHWM:") }

func status(pids []int, key string) (sum int64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		_, after, found := strings.Cut(string(text), "\n"+key)
		line, _, _ := strings.Cut(after, "\n")
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
		if !found || err != nil {
			return 0, fmt.Errorf("/proc/%d/status has no %s in kB", pid, key)
		}
		sum += kib << 10
	}
	return sum, nil
}
