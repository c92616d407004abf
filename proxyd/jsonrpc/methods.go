package jsonrpc

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Class says what may be done with a method's calls.
type Class uint8

const (
	// Other methods are tried elsewhere only while no byte was written, or on
	// an answer that proves that nothing ran.
	Other Class = iota
	// Read methods may be repeated, hedged, coalesced and de-duplicated.
	Read
	// SignedSend methods carry a signed transaction, so that a repetition is
	// the same transaction again.
	SignedSend
)

var classNames = map[string]Class{"other": Other, "read": Read, "signed_send": SignedSend}

// String returns the name that the method table uses.
func (c Class) String() string {
	for name, class := range classNames {
		if class == c {
			return name
		}
	}
	return "unknown"
}

// Immutable says when a method's answer can never change.
type Immutable uint8

const (
	// Never is the default: the answer depends on the head or more.
	Never Immutable = iota
	// Always is for answers that are the same for the life of a chain, or that
	// a hash in the params names.
	Always
	// ByHash is for methods whose block parameter, when it is the only
	// parameter and a block hash, names the answer for good.
	ByHash
)

var immutableNames = map[string]Immutable{"never": Never, "always": Always, "by_hash": ByHash}

// Row is what the method table says of a method. The source of the rows is
// methods.toml beside this file; operators add rows with [methods."NAME"].
type Row struct {
	Class Class
	// Nullable methods may answer null; elsewhere null is a failure.
	Nullable bool
	// Block is the position of the block parameter, -1 for none.
	Block int
	// Immutable says when an answer may be cached without a rule.
	Immutable Immutable
	// EmptyIsNull methods answer [] for what is not there yet, so that an
	// empty array is cached no more than null.
	EmptyIsNull bool
	// Cacheable methods may be cached by a rule.
	Cacheable bool
	// Coalesce methods may share one attempt while in flight.
	Coalesce bool
	// Hedge methods may be asked of a second backend while the first runs.
	Hedge bool
}

// RowSpec is a row as TOML spells it: a pointer is nil where nothing is said,
// and the class then decides.
type RowSpec struct {
	Class       string `toml:"class"`
	Nullable    *bool  `toml:"nullable"`
	Block       *int   `toml:"block_param"`
	Immutable   string `toml:"immutable"`
	EmptyIsNull *bool  `toml:"empty_is_null"`
	Cacheable   *bool  `toml:"cacheable"`
	Coalesce    *bool  `toml:"coalesce"`
	Hedge       *bool  `toml:"hedge"`
}

// Row checks the spec and fills in what the class decides: reads are cacheable,
// may be coalesced and hedged; sends cannot answer null; of others nothing is
// assumed.
func (s RowSpec) Row() (*Row, error) {
	class, ok := classNames[s.Class]
	if !ok {
		return nil, fmt.Errorf("class %q: must be one of %s", s.Class, names(classNames))
	}
	immutable := Never
	if s.Immutable != "" {
		if immutable, ok = immutableNames[s.Immutable]; !ok {
			return nil, fmt.Errorf("immutable %q: must be one of %s", s.Immutable, names(immutableNames))
		}
	}
	read := class == Read
	row := &Row{
		Class:       class,
		Nullable:    or(s.Nullable, class == Other),
		Block:       or(s.Block, -1),
		Immutable:   immutable,
		EmptyIsNull: or(s.EmptyIsNull, false),
		Cacheable:   or(s.Cacheable, read),
		Coalesce:    or(s.Coalesce, read),
		Hedge:       or(s.Hedge, read),
	}
	if !read && (row.Cacheable || row.Coalesce || row.Hedge || row.Immutable != Never) {
		return nil, fmt.Errorf("class %q: only a read may be cacheable, immutable, coalesced or hedged", s.Class)
	}
	return row, nil
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func names[T any](m map[string]T) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// Table is the method table: what may be repeated, hedged, coalesced or cached
// is one row of it, and never a second list elsewhere.
type Table struct{ rows Patterns[*Row] }

//go:embed methods.toml
var builtinRows string

// unknown is the row of a method that nothing is known of.
var unknown = &Row{Class: Other, Nullable: true, Block: -1}

// NewTable returns the built-in table with the operator's rows on top.
func NewTable(extra map[string]RowSpec) (*Table, error) {
	var builtin struct {
		Rows []struct {
			Names []string `toml:"names"`
			RowSpec
		} `toml:"rows"`
	}
	if _, err := toml.Decode(builtinRows, &builtin); err != nil {
		return nil, fmt.Errorf("method table: %w", err)
	}
	t := new(Table)
	for _, r := range builtin.Rows {
		row, err := r.Row()
		if err != nil {
			return nil, fmt.Errorf("method table: %s: %w", r.Names[0], err)
		}
		for _, name := range r.Names {
			t.rows.Set(name, row)
		}
	}
	for name, spec := range extra {
		if err := CheckPattern(name); err != nil {
			return nil, err
		}
		row, err := spec.Row()
		if err != nil {
			return nil, fmt.Errorf("methods.%q: %w", name, err)
		}
		t.rows.Set(name, row)
	}
	return t, nil
}

// Lookup returns the row of a method, never nil, and the bounded label under
// which it is counted: its name when the table has it, the matching pattern
// otherwise, "" when nothing is known.
func (t *Table) Lookup(method string) (row *Row, label string) {
	row, label, ok := t.rows.Lookup(method)
	if !ok {
		return unknown, ""
	}
	return row, label
}
