// Package filters answers the calls of polled filters: eth_newFilter and its kin,
// over HTTP and sockets alike. A filter lives where it was made, in one node, so
// that later calls must find it again: in mode backend its id names the backend.
// In mode gateway filters live here and are evaluated by plain reads, so that they
// survive the node.
package filters

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// Mode says where filters live.
type Mode string

const (
	// ModeBackend leaves filters in the node that made them. Their ids name it, so
	// that any gateway with the same backends finds it without shared state.
	ModeBackend Mode = "backend"
	// ModeGateway keeps filters in the gateway, and asks any backend when their
	// clients ask. Another replica does not know them. Filters of pending
	// transactions live in a backend all the same: a pool is the node's own.
	ModeGateway Mode = "gateway"
)

// Defaults of Options.
const (
	DefaultExpiry       = 5 * time.Minute
	DefaultMaxPerClient = 100
	DefaultMaxBlocks    = 10_000
)

// Options configures Filters. Zero values mean the stated default.
type Options struct {
	// Mode says where filters live. Default ModeBackend.
	Mode Mode
	// Backends are the names of all backends that may answer. Ids are made from
	// them: gateways that share clients must have the same names.
	Backends []string
	// Expiry is how long a filter lives after its last use through this gateway.
	// In mode backend the node has its own idea of that, and only the count for
	// MaxPerClient goes by it. Default DefaultExpiry.
	Expiry time.Duration
	// MaxPerClient bounds the filters that one Client.Key has made and that live.
	// Default DefaultMaxPerClient; there is no way to have no bound.
	MaxPerClient int
	// MaxBlocks is how many blocks one eth_getFilterChanges or eth_getFilterLogs
	// looks at in mode gateway. The former goes on from there with the next call,
	// the latter is refused. It must not be more than what the backends allow for
	// one eth_getLogs. Default DefaultMaxBlocks.
	MaxBlocks uint64
	// Table is where the rows of the gateway's own calls come from. Default the
	// built-in table.
	Table *jsonrpc.Table
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Filters is a stage of the handler chain. It starts nothing by itself: what has
// expired goes when somebody looks.
type Filters struct {
	opts   Options
	tags   tags
	ledger *ledger
}

// New builds the stage.
func New(o Options) *Filters {
	if o.Mode == "" {
		o.Mode = ModeBackend
	}
	if o.Expiry <= 0 {
		o.Expiry = DefaultExpiry
	}
	if o.MaxPerClient <= 0 {
		o.MaxPerClient = DefaultMaxPerClient
	}
	if o.MaxBlocks == 0 {
		o.MaxBlocks = DefaultMaxBlocks
	}
	o.MaxBlocks = min(o.MaxBlocks, 1<<32) // so that sums fit
	if o.Table == nil {
		o.Table, _ = jsonrpc.NewTable(nil) // the built-in table has no faults
	}
	f := &Filters{opts: o, tags: newTags(o.Backends), ledger: newLedger(o.Expiry, o.MaxPerClient, o.Metrics)}
	o.Metrics.watch(f.ledger)
	return f
}

// Middleware answers calls of filters and passes the rest to next in one slice.
func (f *Filters) Middleware(next jsonrpc.Handler) jsonrpc.Handler {
	return jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) { f.serve(ctx, calls, next) })
}

func (f *Filters) serve(ctx context.Context, calls []*jsonrpc.Call, next jsonrpc.Handler) {
	if !slices.ContainsFunc(calls, concerns) {
		next.ServeRPC(ctx, calls)
		return
	}
	p := f.plan(calls)
	defer f.adopt(p.made) // also behind a panic, which must not keep what was reserved
	f.carryOut(ctx, &p, next)
}

// errPanic is answered for a call that a panic left open.
var errPanic = errors.New("internal error")
