// Package classify says what a provider's error means: may another backend be
// asked, does it speak against the backend's health, should the backend be left
// alone. The table is data (rules.toml); operators put rules of their own on
// top.
package classify

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"gateway.internal/proxyd/jsonrpc"
)

// Elsewhere says whether another backend may be asked.
type Elsewhere uint8

const (
	// No: the answer is about the call, and final.
	No Elsewhere = iota
	// Once: nothing is known of the error; one other backend may know better.
	Once
	// Yes: the answer is about this backend.
	Yes
)

// Hold says whether a backend asked to be left alone.
type Hold uint8

const (
	// None: it did not.
	None Hold = iota
	// Brief is for rate limits: a second, doubling.
	Brief
	// Long is for spent quotas and refused keys: half a minute, doubling.
	Long
)

// Outcome is what an error means.
type Outcome struct {
	// Class is the name of the class, "" for a success.
	Class string
	// Elsewhere says whether another backend may be asked.
	Elsewhere Elsewhere
	// Sick is true when the error speaks against the backend's health.
	Sick bool
	// Hold says whether, and how long, the backend is to be left alone.
	Hold Hold
	// NothingRan is true when the error proves that the call did not run.
	NothingRan bool
	// Firm is true when an HTTP status or a JSON-RPC code took part in the
	// decision. Text alone may hold a backend off for a moment only.
	Firm bool
}

// Evidence is what a backend answered, and to what.
type Evidence struct {
	// Backend is the backend's name in the configuration.
	Backend string
	// Status is the HTTP status; 0 counts as 200.
	Status int
	// RPC is true when there was a JSON-RPC error object: Code, Message and
	// Data are its members. Without one Message may be the text of the body.
	RPC     bool
	Code    int64
	Message string
	Data    []byte
	// Method and Params are the request's. Text that they may have put into
	// the message decides nothing.
	Method string
	Params []byte
}

// OperatorRule is a rule of the configuration, [[error_rules]]. All conditions
// that are given must hold.
type OperatorRule struct {
	// Match is a part of the message without regard to case, or /regexp/.
	Match string
	// Code is a JSON-RPC code, nil for any.
	Code *int64
	// Status is an HTTP status, 0 for any.
	Status int
	// Backend is a backend's name, "" for any.
	Backend string
	// Class is the class that the rule decides for.
	Class string
}

// Table is the list of rules. It is immutable.
type Table struct {
	rules   []rule
	unknown Outcome
}

type rule struct {
	backend  string
	codes    []int64
	statuses []int
	prefixes [][]byte // of data, with its opening quote
	texts    []text
	outcome  Outcome
}

// text is one condition on the message: a lower-case part, or a pattern.
type text struct {
	part    string
	pattern *regexp.Regexp
}

type tableFile struct {
	Classes map[string]struct {
		Elsewhere  string `toml:"elsewhere"`
		Sick       bool   `toml:"sick"`
		Hold       string `toml:"hold"`
		NothingRan bool   `toml:"nothing_ran"`
	} `toml:"classes"`
	Rules []struct {
		Class      string   `toml:"class"`
		DataPrefix []string `toml:"data_prefix"`
		Codes      []int64  `toml:"codes"`
		Statuses   []int    `toml:"statuses"`
		Text       []string `toml:"text"`
	} `toml:"rules"`
}

//go:embed rules.toml
var builtin string

var (
	elsewheres = map[string]Elsewhere{"": No, "no": No, "once": Once, "yes": Yes}
	holds      = map[string]Hold{"": None, "none": None, "brief": Brief, "long": Long}
)

func decode() (tableFile, map[string]Outcome, error) {
	var file tableFile
	if _, err := toml.Decode(builtin, &file); err != nil {
		return file, nil, fmt.Errorf("error table: %w", err)
	}
	classes := make(map[string]Outcome, len(file.Classes))
	for name, c := range file.Classes {
		elsewhere, ok := elsewheres[c.Elsewhere]
		hold, ok2 := holds[c.Hold]
		if !ok || !ok2 {
			return file, nil, fmt.Errorf("error table: class %s: elsewhere %q, hold %q", name, c.Elsewhere, c.Hold)
		}
		classes[name] = Outcome{Class: name, Elsewhere: elsewhere, Sick: c.Sick, Hold: hold, NothingRan: c.NothingRan}
	}
	return file, classes, nil
}

// Classes returns the names that a rule may decide for, sorted.
func Classes() []string {
	_, classes, err := decode()
	if err != nil {
		panic(err) // the embedded table; a test reads it
	}
	return slices.Sorted(maps.Keys(classes))
}

// CheckMatch says what is wrong with a rule's match, or nil.
func CheckMatch(match string) error {
	_, err := newText(match)
	return err
}

func newText(match string) (text, error) {
	if len(match) > 2 && match[0] == '/' && match[len(match)-1] == '/' {
		pattern, err := regexp.Compile("(?i)" + match[1:len(match)-1])
		if err != nil {
			return text{}, fmt.Errorf("match %q is not a regular expression: %w", match, err)
		}
		return text{pattern: pattern}, nil
	}
	return text{part: strings.ToLower(match)}, nil
}

// New returns the built-in table with the operator's rules before it.
func New(operator []OperatorRule) (*Table, error) {
	file, classes, err := decode()
	if err != nil {
		return nil, err
	}
	t := &Table{unknown: classes["unknown"]}
	for i, o := range operator {
		outcome, ok := classes[o.Class]
		if !ok {
			return nil, fmt.Errorf("error rule %d: class %q: must be one of %s", i+1, o.Class, strings.Join(Classes(), ", "))
		}
		r := rule{backend: o.Backend, outcome: outcome}
		if o.Match != "" {
			x, err := newText(o.Match)
			if err != nil {
				return nil, fmt.Errorf("error rule %d: %w", i+1, err)
			}
			r.texts = []text{x}
		}
		if o.Code != nil {
			r.codes = []int64{*o.Code}
		}
		if o.Status != 0 {
			r.statuses = []int{o.Status}
		}
		t.add(r)
	}
	for _, f := range file.Rules {
		outcome, ok := classes[f.Class]
		if !ok {
			return nil, fmt.Errorf("error table: rule for unknown class %q", f.Class)
		}
		r := rule{codes: f.Codes, statuses: f.Statuses, outcome: outcome}
		for _, p := range f.DataPrefix {
			r.prefixes = append(r.prefixes, []byte(`"`+p))
		}
		for _, match := range f.Text {
			x, err := newText(match)
			if err != nil {
				return nil, fmt.Errorf("error table: %w", err)
			}
			r.texts = append(r.texts, x)
		}
		t.add(r)
	}
	return t, nil
}

func (t *Table) add(r rule) {
	r.outcome.Firm = len(r.codes) > 0 || len(r.statuses) > 0
	t.rules = append(t.rules, r)
}

// maxMessage is how much of a message is looked at, in bytes.
const maxMessage = 2048

// Classify says what the evidence means.
func (t *Table) Classify(e Evidence) Outcome {
	message := e.Message
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	seen := reader{message: strings.ToLower(message), evidence: &e}
	for i := range t.rules {
		if r := &t.rules[i]; r.matches(&e, &seen) {
			return r.outcome
		}
	}
	return t.unknown
}

func (r *rule) matches(e *Evidence, seen *reader) bool {
	if r.backend != "" && r.backend != e.Backend {
		return false
	}
	if len(r.codes) > 0 && !(e.RPC && slices.Contains(r.codes, e.Code)) {
		return false
	}
	if len(r.statuses) > 0 && !slices.Contains(r.statuses, e.Status) && !slices.Contains(r.statuses, e.Status/100) {
		return false
	}
	if len(r.prefixes) > 0 && !slices.ContainsFunc(r.prefixes, func(p []byte) bool { return bytes.HasPrefix(e.Data, p) }) {
		return false
	}
	return len(r.texts) == 0 || slices.ContainsFunc(r.texts, seen.has)
}

// reader looks for texts in a message, but not in what the request brought into
// it: a client must not be able to write "rate limit" into a node's error and
// so hold the node off.
type reader struct {
	message  string // lower case
	evidence *Evidence
	echo     string // every string of the request, lower case; built when first needed
	haveEcho bool
}

func (s *reader) has(x text) bool {
	found := x.part
	if x.pattern != nil {
		if found = x.pattern.FindString(s.message); found == "" {
			return false
		}
	} else if !strings.Contains(s.message, found) {
		return false
	}
	if !s.haveEcho {
		s.haveEcho = true
		s.echo = requestText(s.evidence)
	}
	if !strings.Contains(s.echo, found) {
		return x.pattern == nil || !s.echoedPart(found)
	}
	return false
}

// echoedPart reports whether a word of a pattern's match, other than a single
// short one, came with the request.
func (s *reader) echoedPart(found string) bool {
	for word := range strings.FieldsSeq(found) {
		if len(word) > 5 && strings.Contains(s.echo, word) && !strings.Contains(strings.ToLower(s.evidence.Method), word) {
			return true
		}
	}
	return false
}

func requestText(e *Evidence) string {
	var b strings.Builder
	b.WriteString(e.Method)
	jsonrpc.Strings(e.Params, func(text []byte) bool {
		b.WriteByte('\n')
		b.Write(text)
		return true
	})
	return strings.ToLower(b.String())
}
