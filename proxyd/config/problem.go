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

// touchesUnread reports whether a table, or a part of it, could not be read.
func (f *findings) touchesUnread(at path) bool {
	if f.isUnread(at) {
		return true
	}
	for key := range f.unread {
		if strings.HasPrefix(key, at.String()+".") {
			return true
		}
	}
	return false
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
	// moved are the keys of [backend] that stand under [backends] in the file.
	moved map[string]bool
	// unread are the keys whose value could not be read. Nothing further is
	// said of them: it would be about a value that nobody wrote.
	unread map[string]bool
	// faulty are the keys with a fault.
	faulty map[string]bool
}

// fault records something that prevents a start.
func (f *findings) fault(at path, format string, args ...any) {
	if !f.isUnread(at) {
		if f.faulty == nil {
			f.faulty = map[string]bool{}
		}
		f.faulty[at.String()] = true
		f.faults = append(f.faults, f.problem(at, fmt.Sprintf(format, args...)))
	}
}

// warn records something that an operator should know.
func (f *findings) warn(at path, format string, args ...any) {
	if !f.isUnread(at) {
		f.warnings = append(f.warnings, f.problem(at, fmt.Sprintf(format, args...)))
	}
}

func (f *findings) problem(at path, text string) Problem {
	if len(at) > 1 && at[0] == "backend" && f.moved[at[1]] {
		at = append(path{"backends"}, at[1:]...)
	}
	line := f.lines.of(at)
	if at[0] == "authentication" {
		at = at[:1] // its keys are secrets
	}
	return Problem{Key: at.String(), Line: line, Text: text}
}

// isUnread reports whether the value of a key, or of a table around it, could
// not be read.
func (f *findings) isUnread(at path) bool {
	for n := len(at); n > 0 && len(f.unread) > 0; n-- {
		if f.unread[at[:n].String()] {
			return true
		}
	}
	return false
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
		index := isIndex(s)
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

func isIndex(s string) bool {
	digits, ok := strings.CutPrefix(s, "[")
	digits, end := strings.CutSuffix(digits, "]")
	return ok && end && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func bareKey(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}
