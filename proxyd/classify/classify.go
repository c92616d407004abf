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
	"unicode/utf8"

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
	// Firm is true when an HTTP status or a JSON-RPC code that no client can
	// bring about took part in the decision. Anything less may hold a backend
	// off for a moment only.
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
	bare    string // the part's letters and digits
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
		Soft       bool     `toml:"soft"`
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

// Texts are texts to be found in messages, each a part of one without regard to
// case, or /regexp/.
type Texts []text

// NewTexts reads texts; CheckMatch says beforehand what is wrong with one.
func NewTexts(matches []string) (Texts, error) {
	var out Texts
	for _, m := range matches {
		x, err := newText(m)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// In reports whether the message has one of the texts, other than as an echo of
// the request.
func (t Texts) In(e Evidence) bool {
	seen := reader{message: strings.ToLower(e.Message[:min(len(e.Message), maxMessage)]), evidence: &e}
	return slices.ContainsFunc(t, func(x text) bool { return seen.find(&x) == present })
}

func newText(match string) (text, error) {
	if len(match) > 2 && match[0] == '/' && match[len(match)-1] == '/' {
		pattern, err := regexp.Compile("(?i)" + match[1:len(match)-1])
		if err != nil {
			return text{}, fmt.Errorf("match %q is not a regular expression: %w", match, err)
		}
		return text{pattern: pattern}, nil
	}
	part := strings.ToLower(match)
	return text{part: part, bare: string(appendBare(nil, part))}, nil
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
		// A success says nothing of a limit; the text beside it decides alone.
		t.add(r, len(r.codes) > 0 || o.Status >= 300)
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
		t.add(r, !f.Soft && len(r.codes)+len(r.statuses) > 0)
	}
	return t, nil
}

func (t *Table) add(r rule, firm bool) {
	r.outcome.Firm = firm
	t.rules = append(t.rules, r)
}

// maxMessage is how much of a message is looked at, in bytes, at its beginning
// and for parts of text also at its end, where wrapped errors have their cause.
const maxMessage = 1024

// Classify says what the evidence means.
func (t *Table) Classify(e Evidence) Outcome {
	if e.Status == 0 {
		e.Status = 200
	}
	seen := reader{message: strings.ToLower(e.Message[:min(len(e.Message), maxMessage)]), evidence: &e}
	if behind := len(e.Message) - maxMessage; behind > 0 {
		seen.end = strings.ToLower(e.Message[len(e.Message)-min(behind+64, maxMessage):])
	}
	// doubt is true when a text that would have cleared the backend stands in
	// the request too. Since it may be the node's all the same, a client could
	// otherwise turn a revert into a failure of the backend.
	doubt := false
	for i := range t.rules {
		r := &t.rules[i]
		switch r.matches(&e, &seen) {
		case absent:
		case echoed:
			doubt = doubt || !r.outcome.blames()
		case present:
			o := r.outcome
			if doubt && o.blames() {
				o.Sick, o.Hold, o.Firm = false, None, false
			}
			return o
		}
	}
	return t.unknown
}

func (o *Outcome) blames() bool { return o.Sick || o.Hold != None }

// finding is how far something is in a message.
type finding uint8

const (
	absent finding = iota
	// echoed: it is there, but the request may have brought it.
	echoed
	present
)

func (r *rule) matches(e *Evidence, seen *reader) finding {
	if r.backend != "" && r.backend != e.Backend {
		return absent
	}
	if len(r.codes) > 0 && !(e.RPC && slices.Contains(r.codes, e.Code)) {
		return absent
	}
	if len(r.statuses) > 0 && !slices.Contains(r.statuses, e.Status) && !slices.Contains(r.statuses, e.Status/100) {
		return absent
	}
	if len(r.prefixes) > 0 && !slices.ContainsFunc(r.prefixes, func(p []byte) bool { return bytes.HasPrefix(e.Data, p) }) {
		return absent
	}
	if len(r.texts) == 0 {
		return present
	}
	best := absent
	for i := range r.texts {
		if best = max(best, seen.find(&r.texts[i])); best == present {
			break
		}
	}
	return best
}

// reader looks for texts in a message, but not in what the request brought into
// it: a client must not be able to write "rate limit" into a node's error and
// so hold the node off.
type reader struct {
	message  string // its beginning, lower case
	end      string // of a long message, lower case
	evidence *Evidence
	echo     string // the request's letters and digits, lower case; "" until needed
	own      []byte // the message without the request's strings; nil until needed
}

func (s *reader) find(x *text) finding {
	if x.pattern != nil {
		if !x.pattern.MatchString(s.message) {
			return absent
		}
		if !x.pattern.Match(s.ownMessage()) {
			return echoed
		}
		return present
	}
	if !strings.Contains(s.message, x.part) && !strings.Contains(s.end, x.part) {
		return absent
	}
	if x.bare != "" && strings.Contains(s.echoed(), x.bare) {
		return echoed
	}
	return present
}

// echoed returns the request's strings in one, without what stands between
// words: a node may print ["rate", "limit"] as [rate limit].
func (s *reader) echoed() string {
	if s.echo == "" {
		b := appendBare(nil, strings.ToLower(s.evidence.Method))
		jsonrpc.Strings(s.evidence.Params, func(text []byte) bool {
			b = appendBare(b, strings.ToLower(string(text)))
			return true
		})
		s.echo = string(b) + "."
	}
	return s.echo
}

const (
	// leastEcho is the length from which the beginning of a string of the
	// request counts as its echo: nodes cut long ones short.
	leastEcho = 8
	// mostCutting bounds the work on a message that is full of beginnings.
	mostCutting = 1 << 18
)

// ownMessage returns the message with a hole for each string of the request. A
// pattern has gaps that are meant for such strings, so that only its fixed words
// must be the node's.
func (s *reader) ownMessage() []byte {
	if s.own != nil {
		return s.own
	}
	s.own = append(make([]byte, 0, len(s.message)), s.message...)
	left := mostCutting
	cut := func(text string) bool {
		if len(text) < 3 {
			return true
		}
		head := text[:min(len(text), leastEcho)]
		for at := 0; left > 0; at++ {
			i := strings.Index(s.message[at:], head)
			if i < 0 {
				break
			}
			at += i
			n := len(head)
			for n < len(text) && at+n < len(s.message) && s.message[at+n] == text[n] {
				n++
			}
			clear(s.own[at : at+n])
			left -= n
		}
		return left > 0
	}
	cut(strings.ToLower(s.evidence.Method))
	jsonrpc.Strings(s.evidence.Params, func(text []byte) bool { return cut(strings.ToLower(string(text))) })
	if left <= 0 {
		clear(s.own)
	}
	return s.own
}

// appendBare appends the letters and digits of a lower-case text.
func appendBare(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf {
			dst = append(dst, c)
		}
	}
	return dst
}
