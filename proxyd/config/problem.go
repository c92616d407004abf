package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing to say about a configuration.
type Problem struct {
	// Key is the full key, "" for the file as a whole.
	Key string
	// Line is the line of the key, or of the nearest table around it; 0 when
	// unknown.
	Line int
	// Text says what is wrong and what to do.
	Text string
	// Unknown is true for keys that nothing reads.
	Unknown bool
}

// String returns "line 3: server.rpc_port: text".
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Text
}

// Faults is the error of Load: everything that is wrong, in the order of the
// lines.
type Faults []Problem

// Error lists the faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, p := range f {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text))
	})
}

// findings collects what is found while a file is read.
type findings struct {
	lines    lines
	faults   []Problem
	warnings []Problem
}

// fault records something that prevents a start.
func (f *findings) fault(at path, format string, args ...any) {
	f.faults = append(f.faults, Problem{Key: at.String(), Line: f.lines.of(at), Text: fmt.Sprintf(format, args...)})
}

// warn records something that an operator should know.
func (f *findings) warn(at path, format string, args ...any) {
	f.warnings = append(f.warnings, Problem{Key: at.String(), Line: f.lines.of(at), Text: fmt.Sprintf(format, args...)})
}

// path is a key as its segments; "[2]" is an index.
type path []string

func (p path) with(segments ...string) path {
	return append(slices.Clip(p), segments...)
}

// String joins the segments with dots and quotes what is not a bare key.
func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		index := strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]")
		if i > 0 && !index {
			b.WriteByte('.')
		}
		if index || bareKey(s) {
			b.WriteString(s)
		} else {
			fmt.Fprintf(&b, "%q", s)
		}
	}
	return b.String()
}

func bareKey(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}
