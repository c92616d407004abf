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
	// socket is what differs over WebSocket, nil over HTTP.
	socket *socketRoutes
}

// NewRoutes returns routes without mappings over a method table.
func NewRoutes(table *jsonrpc.Table) *Routes { return &Routes{table: table} }

// Map sends a method, or a pattern of methods, to a target.
func (r *Routes) Map(pattern string, t *Target) { r.mapped.Set(pattern, t) }

// socketRoutes are what differs over WebSocket.
type socketRoutes struct {
	allowed       jsonrpc.Patterns[bool]
	all           bool    // that is mapped, and subscriptions
	group         *Target // for what is allowed and not mapped
	subscriptions *Target
}

// OverWebSocket returns the routes for WebSocket connections: the methods that
// allowed names or catches go where they are mapped to, and those that are not mapped
// to group; eth_subscribe and eth_unsubscribe go to subscriptions. Where allowed is
// nil, what is mapped is allowed, and subscriptions are.
func (r *Routes) OverWebSocket(allowed []string, group, subscriptions *Target) *Routes {
	over := &Routes{mapped: r.mapped, table: r.table, socket: &socketRoutes{all: allowed == nil, group: group, subscriptions: subscriptions}}
	for _, pattern := range allowed {
		over.socket.allowed.Set(pattern, true)
	}
	return over
}

// overSocket returns where a method goes over WebSocket, and the name or pattern that
// it was found by.
func (r *Routes) overSocket(method string) (target *Target, pattern string) {
	w := r.socket
	_, pattern, ok := w.allowed.Lookup(method)
	if method == "eth_unsubscribe" && !ok { // of one's own: whoever may begin may end
		_, pattern, ok = w.allowed.Lookup("eth_subscribe")
	}
	target, mappedBy, mapped := r.mapped.Lookup(method)
	switch {
	case !ok && !w.all, mapped && target.Handler == nil: // refused by the mapping
		return nil, ""
	case method == "eth_subscribe" || method == "eth_unsubscribe":
		return w.subscriptions, method
	case mapped:
		return target, mappedBy
	case w.all:
		return nil, ""
	}
	return w.group, pattern
}

// subscribes reports whether a target serves subscriptions.
func (r *Routes) subscribes(t *Target) bool { return r.socket != nil && t == r.socket.subscriptions }

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
	var target *Target
	var pattern string
	if r.socket != nil {
		target, pattern = r.overSocket(c.Method)
	} else {
		target, pattern, _ = r.mapped.Lookup(c.Method)
	}
	if target == nil || target.Handler == nil {
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
