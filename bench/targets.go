package main

import (
	"fmt"
	"strings"

	"gateway.internal/bench/internal/measure"
)

// verdict is a target and what this run says about it.
type verdict struct {
	Work    string  `json:"work"`
	What    string  `json:"what"`
	Target  float64 `json:"target"`
	Reached float64 `json:"reached"`
	Met     bool    `json:"met"`
}

// target is a figure that shall not be more than so much.
type target struct {
	work, what string
	most       float64
	figure     func(r *report) (float64, bool)
}

// targets is the table of what this gateway shall reach.
var targets = []target{
	{"a", "CPU of a small call, × HAProxy", 1.6, ratioTo("a", "a")},
	{"b", "CPU of a cache hit, × HAProxy's forwarded call", 1.1, ratioTo("b", "b")},
	{"c", "CPU of 1 MiB, × HAProxy", 0.7, ratioTo("c", "c")},
	{"d", "CPU of 16 MiB, × HAProxy", 0.5, ratioTo("d", "d")},
	{"d", "peak memory with 16 MiB results, MiB", 32, of("d", func(o *row) float64 { return mib(o.Peak) })},
	{"e", "CPU of a batch of 100, × HAProxy", 2.2, ratioTo("e", "e")},
	{"f", "CPU of a batch of 100 from the cache, × HAProxy's forwarded batch", 2, ratioTo("f", "f")},
	{"h", "failed with a first upstream that refuses", 0, of("h", faulty)},
	{"h", "p99 with a first upstream that refuses, × healthy", 1.5, func(r *report) (float64, bool) {
		sick, healthy := r.find("h", nameProxyd), r.find("h0", nameProxyd)
		if sick == nil || healthy == nil || healthy.P99 == 0 {
			return 0, false
		}
		return sick.P99 / healthy.P99, true
	}},
	{"i", "calls over 1 s with a first upstream that hangs", 20, of("i", func(o *row) float64 { return float64(o.Slow) })},
	{"i", "failed with a first upstream that hangs", 0, of("i", faulty)},
	{"j", "memory of an idle connection, × bare net/http", 1.1, func(r *report) (float64, bool) {
		own, bare := r.find("j", nameProxyd), r.find("j", nameBare)
		if own == nil || bare == nil || bare.Idle == 0 {
			return 0, false
		}
		return own.Idle / bare.Idle, true
	}},
	{"k1", "CPU of a small call over TLS, × HAProxy", 1.5, ratioTo("k1", "k1")},
	{"k2", "CPU of 1 MiB over TLS, × HAProxy", 1, ratioTo("k2", "k2")},
	{"l", "p99 with one of three backends 20 times slower, × all fast", 3, func(r *report) (float64, bool) {
		slow, fast := r.find("l", nameProxyd), r.find("l0", nameProxyd)
		if slow == nil || fast == nil || slow.P99 == 0 || fast.P99 == 0 {
			return 0, false
		}
		return slow.P99 / fast.P99, true
	}},
	{"l", "upstream calls beside those of the clients, %", 5, func(r *report) (float64, bool) {
		o := r.find("l", nameProxyd)
		if o == nil {
			return 0, false
		}
		return o.extra()
	}},
	{"m1", "reads failed through a first backend that refuses", 0, of("m1", faulty)},
	{"m2", "reads failed through a first backend that answers 503", 0, of("m2", faulty)},
	{"m3", "reads failed through a first backend that hangs", 0, of("m3", faulty)},
	{"n", "memory of an idle WebSocket, KiB", 16, ofAnswered("n", func(o *row) float64 { return o.Idle / 1024 })},
	{"n", "goroutines of an idle WebSocket", 2, ofAnswered("n", func(o *row) float64 { return o.Goroutines })},
	{"n", "CPU while 5,000 WebSockets are idle, % of a core", 1, ofAnswered("n", func(o *row) float64 { return o.IdleCPU })},
	{"o", "CPU of a notification, × a bare loop of writes", 1.3, toSocket("o", func(o *row) float64 { return o.CPU })},
	{"o", "time until all 5,000 have a head, × a bare loop of writes", 1.3, toSocket("o", func(o *row) float64 { return o.P50 })},
	{"o", "subscriptions at the upstreams", 1, ofAnswered("o", func(o *row) float64 { return float64(o.Subscriptions) })},
	{"p", "CPU of a small call over WebSockets, µs", 30, ofAnswered("p", func(o *row) float64 { return o.CPU })},
	{"q", "sockets closed, events missed, duplicated or out of order, and other faults, when upstreams are killed", 0, ofAnswered("q", faulty)},
}

// ratioTo compares this gateway's processor time in a work with HAProxy's in
// another.
func ratioTo(own, other string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		o, h := r.find(own, nameProxyd), r.find(other, nameHAProxy)
		if o == nil || h == nil || h.CPU == 0 || o.CPU == 0 {
			return 0, false
		}
		return o.CPU / h.CPU, true
	}
}

// toSocket compares this gateway with the bare loop of coder/websocket.
func toSocket(work string, figure func(*row) float64) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		o, bare := r.find(work, nameProxyd), r.find(work, nameSocket)
		if o == nil || bare == nil || figure(o) == 0 || figure(bare) == 0 {
			return 0, false
		}
		return figure(o) / figure(bare), true
	}
}

func of(work string, figure func(*row) float64) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		o := r.find(work, nameProxyd)
		if o == nil {
			return 0, false
		}
		return figure(o), true
	}
}

// ofAnswered is a figure of a work in which something was answered: without that,
// nothing costs nothing.
func ofAnswered(work string, figure func(*row) float64) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		o := r.find(work, nameProxyd)
		if o == nil || o.Requests == 0 {
			return 0, false
		}
		return figure(o), true
	}
}

func faulty(o *row) float64 { return float64(measure.Sum(o.Failed) + measure.Sum(o.Wrong)) }

// targets compares the run with the table.
func (r *report) targets() (all []verdict) {
	for _, t := range targets {
		if reached, ok := t.figure(r); ok {
			all = append(all, verdict{t.work, t.what, t.most, reached, reached <= t.most})
		}
	}
	return all
}

func (r *report) targetTable(b *strings.Builder) {
	all := r.targets()
	if len(all) == 0 {
		return
	}
	b.WriteString("\nTargets for proxyd; the exit code does not depend on those that are times or memory.\n\n| work | proxyd | target ≤ | reached | |\n|---|---|--:|--:|---|\n")
	for _, v := range all {
		met := "missed"
		if v.Met {
			met = "met"
		}
		fmt.Fprintf(b, "| %s | %s | %g | %.2f | %s |\n", v.Work, v.What, v.Target, v.Reached, met)
	}
}
