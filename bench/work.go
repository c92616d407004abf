package main

import (
	"fmt"
	"slices"
	"time"

	"gateway.internal/bench/internal/content"
)

// work is one row of the comparison.
type work struct {
	id, title string
	// load are the arguments of the load generator.
	load []string
	// listeners is how many upstreams there are; 0 is 2.
	listeners int
	// first is the mode of the preferred upstream, "" for one that serves.
	first string
	// delays are how long the answers of the upstreams take, one for each; ""
	// for none. What comes to each is counted then.
	delays string
	// group is what this gateway's group of backends is configured with.
	group string
	// tls has the upstreams speak TLS.
	tls bool
	// idLast has the upstreams put the id behind the result, as some nodes do.
	idLast bool
	// gateways are those that take part, in the order of a round.
	gateways []string
	// timeout of the upstreams in milliseconds; 0 is 5000.
	timeout int
	// cold works begin with a gateway that was just started and without a
	// warm-up: how it finds out that an upstream is gone is what they are about.
	cold bool
	// once works have a single round. It is long times the usual length, but not
	// less than least; 0 is once.
	once  bool
	long  float64
	least time.Duration
	// learns is true where the gateway has to learn which backends are good: it
	// is warmed up for longer before the first round.
	learns bool
	// ws has this gateway forward WebSockets.
	ws bool
	// heads is how often the upstreams publish a head, 0 for never.
	heads time.Duration
	// outages has upstreams killed while the load generator listens.
	outages bool
	// reads is how many reads viem makes in a second of the usual length,
	// instead of the load generator; 0 for a work without viem.
	reads int
}

// Rates of the open loops in calls a second.
const (
	refusedRate = 2000
	hangingRate = 200
	// hangingLong times the usual length is that of work i: long enough for a
	// gateway to try the hanging upstream again.
	hangingLong = 34.0 / 3
)

// headInterval is how often heads are published in work o: seldom enough that one
// has come to all subscribers before the next, in a fraction of the time.
const headInterval = 500 * time.Millisecond

// headsLong times the usual length is that of work o, which is for some heads.
const headsLong = 2

// blockInterval is how often there is a block in work q, and outagesLeast how long
// its rounds are at least: for three upstreams that are killed.
const (
	blockInterval = time.Second
	outagesLong   = 4
	outagesLeast  = 12 * blockInterval
)

// The works with a slow upstream.
const (
	fastDelay = "5ms"
	slowDelay = "100ms"
	// hedgeMin is about twice what a call usually takes.
	hedgeMin = "10ms"
)

var (
	all     = []string{nameProxyd, nameHAProxy, nameNginx, nameReverse}
	several = []string{nameProxyd, nameHAProxy, nameNginx} // those that know a second upstream
	only    = []string{nameProxyd}
	viems   = []string{nameProxyd, nameViem}
	sockets = []string{nameProxyd, nameSocket}
)

// works is the table of all work. Letters are those of docs/performance.md.
var works = []work{
	{id: "a", title: "small call, not cached, 64 connections", gateways: all,
		load: []string{"-connections", "64", "-method", content.Small}},
	{id: "b", title: "cache hit, 64 connections (the others forward it)", gateways: all,
		load: []string{"-connections", "64", "-method", content.Chain}},
	{id: "c", title: "1 MiB result, 8 connections", gateways: all,
		load: []string{"-connections", "8", "-method", content.Logs, "-size", fmt.Sprint(1 << 20)}},
	{id: "c2", title: "1 MiB result, id last, 8 connections", gateways: all, idLast: true,
		load: []string{"-connections", "8", "-method", content.Logs, "-size", fmt.Sprint(1 << 20)}},
	{id: "d", title: "16 MiB result, 2 connections", gateways: all,
		load: []string{"-connections", "2", "-method", content.Logs, "-size", fmt.Sprint(16 << 20)}},
	{id: "e", title: "batch of 100, not cached, 8 connections", gateways: all,
		load: []string{"-connections", "8", "-batch", "100", "-method", content.Small}},
	{id: "f", title: "batch of 100 from the cache, 8 connections (the others forward it)", gateways: all,
		load: []string{"-connections", "8", "-batch", "100", "-method", content.Block}},
	{id: "g", title: "small call, 10,000 client addresses, 64 connections", gateways: all,
		load: []string{"-connections", "64", "-clients", "10000", "-method", content.Small}},
	{id: "h0", title: fmt.Sprintf("small call, %d a second", refusedRate), gateways: several, cold: true,
		load: []string{"-rate", fmt.Sprint(refusedRate), "-method", content.Small}},
	{id: "h", title: fmt.Sprintf("the same, first upstream refuses, %d a second", refusedRate), gateways: several, cold: true, first: "refuse",
		load: []string{"-rate", fmt.Sprint(refusedRate), "-method", content.Small}},
	{id: "i", title: fmt.Sprintf("first upstream hangs, timeout 1 s, %d a second", hangingRate), gateways: several, cold: true, first: "hang",
		timeout: 1000, once: true, long: hangingLong,
		load: []string{"-rate", fmt.Sprint(hangingRate), "-method", content.Small}},
	{id: "j", title: "5,000 idle connections", gateways: append(slices.Clone(all), nameBare), once: true,
		load: []string{"-idle", "5000", "-method", content.Chain}},
	{id: "k1", title: "small call over TLS, 64 connections", gateways: all, tls: true,
		load: []string{"-connections", "64", "-method", content.Small}},
	{id: "k2", title: "1 MiB result over TLS, 8 connections", gateways: all, tls: true,
		load: []string{"-connections", "8", "-method", content.Logs, "-size", fmt.Sprint(1 << 20)}},
	{id: "l0", title: "three backends of 5 ms, in the order of the list, no hedges", gateways: only, listeners: 3,
		delays: fastDelay + "," + fastDelay + "," + fastDelay,
		load:   []string{"-connections", "8", "-method", content.Small}},
	{id: "l1", title: "the first one takes 100 ms, in the order of the list, no hedges", gateways: only, listeners: 3,
		delays: slowDelay + "," + fastDelay + "," + fastDelay,
		load:   []string{"-connections", "8", "-method", content.Small}},
	{id: "l", title: "the first one takes 100 ms, scored, with hedges", gateways: only, listeners: 3,
		delays: slowDelay + "," + fastDelay + "," + fastDelay, learns: true,
		group: fmt.Sprintf("routing_strategy = \"scored\"\n\n[backend_groups.main.hedge]\ndelay = \"p95\"\nmin = %q\nmax = \"2s\"\nmax_extra = 1\n", hedgeMin),
		load:  []string{"-connections", "8", "-method", content.Small}},
	{id: "m1", title: "first backend refuses", gateways: viems, cold: true, first: "refuse", timeout: 1000, reads: 500},
	{id: "m2", title: "first backend answers status 503", gateways: viems, cold: true, first: "503", timeout: 1000, reads: 500},
	{id: "m3", title: "first backend hangs, timeout 1 s", gateways: viems, cold: true, first: "hang", timeout: 1000, reads: 20, once: true},
	{id: "n", title: "5,000 idle WebSockets that have asked nothing", gateways: sockets, ws: true, once: true,
		load: []string{"-ws", "-silent", "-idle", "5000", "-method", content.Chain}},
	{id: "n2", title: "5,000 idle WebSockets after a call on each", gateways: sockets, ws: true, once: true,
		load: []string{"-ws", "-idle", "5000", "-method", content.Chain}},
	{id: "o", title: "5,000 subscribers to newHeads", gateways: sockets, ws: true, heads: headInterval, long: headsLong,
		load: []string{"-subscribers", "5000"}},
	{id: "p", title: "small call over 64 WebSockets (HAProxy pipes them to the upstream's)", gateways: []string{nameProxyd, nameHAProxy}, ws: true,
		load: []string{"-ws", "-connections", "64", "-method", content.Small}},
	{id: "q", title: "upstream killed while 1,000 clients listen to heads and logs of a chain with 1 block/s", gateways: only, ws: true, cold: true,
		outages: true, heads: blockInterval, long: outagesLong, least: outagesLeast,
		load: []string{"-listeners", "1000", "-heads", blockInterval.String()}},
}

// needsFiles reports whether a work has so many connections that the limit of open
// files must be raised for it.
func (w *work) needsFiles() bool {
	return slices.Contains(w.load, "-idle") || slices.Contains(w.load, "-subscribers")
}
