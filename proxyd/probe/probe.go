// Package probe makes the gateway's own calls to backends and tells each
// backend's health state machine what they found. It decides nothing about
// calls of clients, and counts in none of their metrics.
package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/backend"
)

const (
	// firstRoundMost is how long FirstRound waits at the most.
	firstRoundMost = 10 * time.Second
	// restartAfter is the pause before a loop that panicked is begun again.
	restartAfter = time.Second
)

// Options configures a Prober. Zero values mean the stated default.
type Options struct {
	// Enabled is true when there is a [health] table. Without it only probe_url
	// is asked, and references.
	Enabled bool
	// Interval is the time between two checks of a backend; 0 makes checks only
	// after a failure, until the backend is well.
	Interval time.Duration
	// Checks are the methods that one check asks, in this order: eth_blockNumber,
	// eth_syncing and eth_chainId, whose results are judged, and other reads,
	// which must be answered without an error. Default: those three.
	Checks []string
	// FailureThreshold failed checks in a row make a backend unfit, and
	// SuccessThreshold passed ones fit again. Defaults 2 and 2.
	FailureThreshold, SuccessThreshold int
	// Concurrency bounds the checks under way at once. Default 20.
	Concurrency int
	// EphemeralInterval is the time between two checks after a failure when
	// Interval is 0. Default 30 s.
	EphemeralInterval time.Duration
	// EphemeralHealthyThreshold is how many of them must pass in a row: then
	// they end. Default 3.
	EphemeralHealthyThreshold int

	// Targets are the backends, each once.
	Targets []Target
	// References are nodes outside the groups.
	References []Reference
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Target is a backend that is checked.
type Target struct {
	Backend *backend.Backend
	// SkipSyncing leaves eth_syncing out: skip_is_syncing_check.
	SkipSyncing bool
	// Peers are the other members of the backend's groups. A block number of 0
	// speaks against the backend only if the head of one is above 0.
	Peers []*backend.Backend

	// URL is probe_url, "" for none, and TLS configures its https. They may hold
	// secrets.
	URL string
	TLS *tls.Config
	// FailureThreshold failed probes in a row make the backend unfit, and
	// SuccessThreshold good ones fit again. Defaults 1 and 2.
	FailureThreshold, SuccessThreshold int
	// Period is the time between two probes, Timeout bounds each. Defaults 4 s
	// and 1 s.
	Period, Timeout time.Duration
	// Client makes the probes; nil for one with TLS.
	Client *http.Client
}

// Reference is a node that is only observed: its head beside those of a group
// shows a stall that all members share.
type Reference struct {
	// Group is the name of the group, Members are its backends.
	Group   string
	Members []*backend.Backend
	// URL is where the node is asked. It may hold secrets.
	URL string
	// Interval is the time between two looks. Default 30 s.
	Interval time.Duration
}

// Prober checks backends until it is stopped.
type Prober struct {
	o     Options
	loops []loop
	slots chan struct{}

	unseen   atomic.Int32 // what FirstRound waits for
	first    chan struct{}
	endFirst func()

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// loop is what runs in a goroutine of its own.
type loop interface {
	// run goes on until ctx ends.
	run(ctx context.Context)
	// about names it in a log.
	about() slog.Attr
}

// New builds a Prober. It starts nothing.
func New(o Options) *Prober {
	if o.Checks == nil {
		o.Checks = []string{blockNumber, syncing, chainID}
	}
	o.FailureThreshold = orElse(o.FailureThreshold, 2)
	o.SuccessThreshold = orElse(o.SuccessThreshold, 2)
	o.Concurrency = orElse(o.Concurrency, 20)
	o.EphemeralInterval = orElse(o.EphemeralInterval, 30*time.Second)
	o.EphemeralHealthyThreshold = orElse(o.EphemeralHealthyThreshold, 3)
	p := &Prober{o: o, slots: make(chan struct{}, o.Concurrency), first: make(chan struct{})}
	p.endFirst = sync.OnceFunc(func() { close(p.first) })
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, t := range o.Targets {
		if o.Enabled {
			p.loops = append(p.loops, newWatch(p, t))
		}
		if t.URL != "" {
			p.loops = append(p.loops, newGetter(p, t))
		}
	}
	for _, r := range o.References {
		p.loops = append(p.loops, newReference(p, r))
	}
	return p
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Start begins the checks. It is called once.
func (p *Prober) Start() {
	if p.unseen.Load() == 0 {
		p.endFirst()
	} else {
		time.AfterFunc(firstRoundMost, p.endFirst)
	}
	for _, l := range p.loops {
		p.running.Go(func() {
			for !p.ended(l) && p.sleep(p.ctx, restartAfter) {
			}
		})
	}
}

// ended runs l and reports whether it ended as it should.
func (p *Prober) ended(l loop) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			p.o.Log.LogAttrs(p.ctx, slog.LevelError, "panic in a prober, it begins again", l.about(), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
		}
	}()
	l.run(p.ctx)
	return true
}

// FirstRound is closed when every backend was checked, and its probe_url asked,
// once; after ten seconds in any case, and at once when nothing is.
func (p *Prober) FirstRound() <-chan struct{} { return p.first }

// seen returns what a loop calls when its first check is over. The first round
// waits for it from now on.
func (p *Prober) seen() func() {
	p.unseen.Add(1)
	return sync.OnceFunc(func() {
		if p.unseen.Add(-1) == 0 {
			p.endFirst()
		}
	})
}

// Stop ends the checks, waits for those under way, and forgets the gauges.
func (p *Prober) Stop() {
	p.cancel()
	p.running.Wait()
	p.o.Metrics.forget(p.o)
}

// take waits for its turn to make a check. It returns false when ctx ends first.
func (p *Prober) take(ctx context.Context) bool {
	select {
	case p.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *Prober) release() { <-p.slots }

// sleep waits for d. It returns false when ctx ends first.
func (p *Prober) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
