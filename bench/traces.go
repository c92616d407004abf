package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// trace is a stack of a profile, leaf first, and how much was counted there.
type trace struct {
	value float64
	stack []string
}

// pprof runs Go's tool on a profile and returns what it says.
func pprof(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-symbolize=none"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return text, nil
}

// tracesOf reads the stacks of a profile.
func tracesOf(ctx context.Context, args ...string) ([]trace, error) {
	text, err := pprof(ctx, append([]string{"-traces"}, args...)...)
	if err != nil {
		return nil, err
	}
	all, err := parseTraces(text)
	if err != nil {
		return nil, fmt.Errorf("go tool pprof -traces: %w", err)
	}
	return all, nil
}

// parseTraces reads what -traces prints: sections between rules, in each labels
// first, then the value and the leaf in a line, then the callers.
func parseTraces(text []byte) (all []trace, err error) {
	const rule = "-----------+"
	var now *trace
	sections := false
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, rule):
			now, sections = nil, true
		case !sections || line == "":
		case now != nil:
			now.stack = append(now.stack, frame(line))
		default:
			number, leaf, _ := strings.Cut(line, " ")
			if strings.HasSuffix(number, ":") {
				continue // a label
			}
			value, err := strconv.ParseFloat(strings.TrimRight(number, "nsB"), 64)
			if err != nil {
				return nil, fmt.Errorf("%q begins with no number", line)
			}
			all = append(all, trace{value, []string{frame(leaf)}})
			now = &all[len(all)-1]
		}
	}
	return all, lines.Err()
}

// frame is a function's name without what pprof adds to it.
func frame(line string) string { return strings.TrimSuffix(strings.TrimSpace(line), " (inline)") }
