package server

import (
	"gateway.internal/proxyd/jsonrpc"
)

// Target is where the methods of one mapping go.
type Target struct {
	// Group is the backend group's name.
	Group string
	// Handler answers; nil refuses the methods, as if they were not mapped.
	Handler jsonrpc.Handler
}

// Routes says which handler answers a method. What is not mapped is refused.
type Routes struct {
	mapped jsonrpc.Patterns[*Target]
	table  *jsonrpc.Table
}

// NewRoutes returns routes without mappings over a method table.
func NewRoutes(table *jsonrpc.Table) *Routes { return &Routes{table: table} }

// Map sends a method, or a pattern of methods, to a target.
func (r *Routes) Map(pattern string, t *Target) { r.mapped.Set(pattern, t) }

// Labels of calls that have no method of their own in metrics.
const (
	labelUnknown    = "unknown"
	labelNotAllowed = "method_not_allowed"
)

// route fills in what the table says of the call's method and returns its
// handler, nil when the method is refused.
func (r *Routes) route(c *jsonrpc.Call) *Target {
	c.Label = labelNotAllowed
	var label string
	c.Row, label = r.table.Lookup(c.Method)
	if c.Method == "" {
		return nil
	}
	target, pattern, ok := r.mapped.Lookup(c.Method)
	if !ok || target.Handler == nil {
		return nil
	}
	// The label is bounded: a method mapped by its name, one that the table
	// knows by its name, or the pattern that caught it.
	switch {
	case pattern == c.Method:
		c.Label = pattern
	case label != "":
		c.Label = label
	default:
		c.Label = pattern
	}
	return target
}
