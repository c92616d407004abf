package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway.internal/bench/internal/measure"
)

func TestCoreListReadsRanges(t *testing.T) {
	got, err := coreList("0-2,8,10-11")
	if err != nil || !slices.Equal(got, []int{0, 1, 2, 8, 10, 11}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a", "3-1", "1-", "1,,2"} {
		if got, err := coreList(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestMedianIsTheMiddle(t *testing.T) {
	for _, tc := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(tc.of); got != tc.want {
			t.Errorf("%v: %g", tc.of, got)
		}
	}
}

func TestRoundsAreSummedUp(t *testing.T) {
	r := row{Rounds: []measure.Result{
		{Requests: 100, Seconds: 1, CPU: 0.001, P99: 5, Slow: 1, Failed: map[string]int{"x": 1}},
		{Requests: 300, Seconds: 1, CPU: 0.009, P99: 7, Failed: map[string]int{"x": 2}, Wrong: map[string]int{"y": 1}},
		{Requests: 200, Seconds: 1, CPU: 0.004, P99: 6, Slow: 2},
		{Failed: map[string]int{"z": 1}}, // did not take place
	}}
	r.sumUp()
	if r.CPU != 20 || r.CPULow != 10 || r.CPUHigh != 30 || r.Failed["z"] != 1 || r.Rate != 200 || r.P99 != 6 || r.Slow != 3 || r.Requests != 600 || r.Failed["x"] != 3 || r.Wrong["y"] != 1 {
		t.Errorf("%+v", r)
	}
}

// small is a report of work a with so much time for each gateway.
func small(proxyd, haproxy float64) *report {
	return &report{Machine: new(machine), Rows: []row{
		{Work: "a", Title: "small", Gateway: nameProxyd, CPU: proxyd, Requests: 10, Sent: 120, Received: 110},
		{Work: "a", Title: "small", Gateway: nameHAProxy, CPU: haproxy, Requests: 10},
	}}
}

func TestReportComparesWithHAProxyAndWithTheTargets(t *testing.T) {
	text := small(30, 15).markdown()
	for _, want := range []string{"| a small (bodies 120 → 110 bytes) | proxyd | 30.0 |", "| 2.00 |\n|  | haproxy | 15.0 | – |", "| 1.6 | 2.00 | missed |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := small(15, 15).markdown(); !strings.Contains(text, "| 1.6 | 1.00 | met |") {
		t.Errorf("target not met in\n%s", text)
	}
}

func TestThisGatewayIsTheFirstAndTheRatioTheLast(t *testing.T) {
	for _, w := range works {
		if w.gateways[0] != nameProxyd {
			t.Errorf("work %s begins with %s", w.id, w.gateways[0])
		}
	}
	if text := small(1, 1).markdown(); !strings.Contains(text, " | × HAProxy |\n") {
		t.Errorf("the last column is another:\n%s", text)
	}
}

func TestVerdictJudgesAnswersAndNotTimes(t *testing.T) {
	slow := small(1e9, 1)
	if err := slow.verdict(); err != nil {
		t.Errorf("slow: %v", err)
	}
	one := map[string]int{"why": 1}
	for name, spoil := range map[string]func(o *row){
		"wrong":            func(o *row) { o.Wrong = one },
		"failed":           func(o *row) { o.Failed = one },
		"nothing answered": func(o *row) { o.Requests = 0 },
	} {
		own, other := small(1, 1), small(1, 1)
		spoil(&own.Rows[0])
		spoil(&other.Rows[1])
		if own.verdict() == nil {
			t.Errorf("%s by this gateway: no error", name)
		}
		if err := other.verdict(); err != nil {
			t.Errorf("%s by another: %v", name, err)
		}
	}
}

func TestEveryTargetNamesAWorkThatThisGatewayDoes(t *testing.T) {
	for _, g := range targets {
		i := slices.IndexFunc(works, func(w work) bool { return w.id == g.work })
		if i < 0 || !slices.Contains(works[i].gateways, nameProxyd) {
			t.Errorf("target %q of work %q", g.what, g.work)
		}
	}
}

func TestSlowBackendIsComparedWithAllFast(t *testing.T) {
	fast := measure.Result{Requests: 400, Seconds: 1, P50: 5000, P99: 6000, Asked: 400, Upstream: []int{400, 0, 0}}
	slow := measure.Result{Requests: 400, Seconds: 1, P50: 5000, P99: 15000, Asked: 400, Upstream: []int{4, 10, 394}}
	r := &report{Machine: new(machine), Rows: []row{
		{Work: "l0", Title: "fast", Gateway: nameProxyd, Rounds: []measure.Result{fast, fast}},
		{Work: "l", Title: "slow", Gateway: nameProxyd, Rounds: []measure.Result{slow, slow}},
	}}
	for i := range r.Rows {
		r.Rows[i].sumUp()
	}
	text := r.markdown()
	for _, want := range []string{"| l0 fast | 5.00 | 6.00 | 800 | 800 | 0 | 0 | 0.00 |", "| l slow | 5.00 | 15.00 | 800 | 8 | 20 | 788 | 2.00 |",
		"× all fast | 3 | 2.50 | met |", "% | 5 | 2.00 | met |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| × HAProxy |\n") {
		t.Errorf("they are in the table of the gateways too:\n%s", text)
	}
}

func TestViemIsShownWithAndWithoutThisGateway(t *testing.T) {
	one := measure.Result{Requests: 99, Seconds: 2, P50: 4000, P99: 9000, Asked: 99, Failed: map[string]int{"lost": 1}}
	r := &report{Machine: new(machine), Rows: []row{
		{Work: "m1", Title: "refuses", Gateway: nameProxyd, Rounds: []measure.Result{one}},
		{Work: "m1", Title: "refuses", Gateway: nameViem, Rounds: []measure.Result{one}},
	}}
	for i := range r.Rows {
		r.Rows[i].sumUp()
	}
	text := r.markdown()
	for _, want := range []string{"| m1 refuses | its http transport, to proxyd | 100 | 99 | 1 | 0 | 4.0 | 9.0 | 0 | 2.00 |", "|  | its fallback transport | 100 |", "refuses | 0 | 1.00 | missed |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if r.verdict() == nil {
		t.Error("a read lost by this gateway is no error")
	}
}

func TestWorksConfigureTheGroupOfThisGateway(t *testing.T) {
	b := &bench{dir: t.TempDir(), out: t.TempDir()}
	i := slices.IndexFunc(works, func(w work) bool { return w.id == "l" })
	s := &setting{upstreams: []string{"127.0.0.1:1", "127.0.0.1:2"}, group: works[i].group, timeout: 1}
	if _, err := proxydCommand(b, s, "127.0.0.1:3", b.dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "proxyd.toml"))
	want := "backends = [\"node1\", \"node2\"]\nrouting_strategy = \"scored\"\n\n[backend_groups.main.hedge]\ndelay = \"p95\"\n"
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%v, no %s in\n%s", err, want, text)
	}
}

func TestWorksWithWebSocketsConfigureThem(t *testing.T) {
	b := &bench{dir: t.TempDir(), out: t.TempDir()}
	s := &setting{upstreams: []string{"127.0.0.1:1", "127.0.0.1:2"}, ws: true, timeout: 1}
	args, err := proxydCommand(b, s, "127.0.0.1:3", b.dir)
	if err != nil || s.metrics == "" || !slices.Contains(args, portOf(s.metrics)) {
		t.Fatalf("%v, metrics at %q: %v", args, s.metrics, err)
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "proxyd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// Keys without a table must come before the first one.
	if !strings.HasPrefix(string(text), "ws_backend_group = \"main\"\nws_method_whitelist = [\"eth_subscribe\", \"eth_unsubscribe\", \"eth_getBalance\", \"eth_chainId\"]\n\n[server]\n") {
		t.Errorf("no WebSockets in\n%s", text)
	}
	if n := strings.Count(string(text), "\"\nws_url = \"ws://127.0.0.1:"); n != 2 {
		t.Errorf("%d backends of 2 have WebSockets in\n%s", n, text)
	}
}

// webSockets is a report of works n and o.
func webSockets() *report {
	r := &report{Machine: new(machine), Rows: []row{
		{Work: "n", Title: "idle", Gateway: nameProxyd, Rounds: []measure.Result{{Requests: 50, Seconds: 1, PerConnection: 12 << 10, Goroutines: 2, IdleCPU: 0.25}}},
		{Work: "n", Title: "idle", Gateway: nameSocket, Rounds: []measure.Result{{Requests: 50, Seconds: 1, PerConnection: 24 << 10, Goroutines: 1}}},
		{Work: "o", Title: "subscribers", Gateway: nameProxyd, Rounds: []measure.Result{
			{Requests: 500, Seconds: 1, CPU: 0.006, P50: 30000, Max: 50000, Heads: 5, Subscriptions: 1, Received: 746},
			{Requests: 500, Seconds: 1, CPU: 0.007, P50: 34000, Max: 40000, Heads: 5, Received: 746}, // with the subscription of the round before
		}},
		{Work: "o", Title: "subscribers", Gateway: nameSocket, Rounds: []measure.Result{{Requests: 500, Seconds: 1, CPU: 0.005, P50: 20000, Max: 21000, Heads: 5, Received: 746}}},
	}}
	for i := range r.Rows {
		r.Rows[i].sumUp()
	}
	return r
}

func TestWebSocketsHaveTablesOfTheirOwn(t *testing.T) {
	text := webSockets().markdown()
	for _, want := range []string{
		"| n idle | proxyd | 12.0 | 2.00 | 0.25 | 0 | 0 | 0 | 0.50 |\n|  | coder/websocket bare | 24.0 | 1.00 | 0.00 | 0 | 0 | 0 | 1.00 |\n",
		"| o subscribers | proxyd | 13.0 | 12.0–14.0 | 1.30 | 32.0 | 50.0 | 1.60 | 10 | 1000 | 746 | 1 | 0 | 0 | 0 |\n|  | coder/websocket bare | 10.0 | 10.0–10.0 | 1.00 | 20.0 | 21.0 | 1.00 | 5 | 500 | 746 | – |",
		"KiB | 16 | 12.00 | met |", "goroutines of an idle WebSocket | 2 | 2.00 | met |", "% of a core | 1 | 0.25 | met |",
		"| o | CPU of a notification, × a bare loop of writes | 1.3 | 1.30 | met |", "bare loop of writes | 1.3 | 1.60 | missed |", "at the upstreams | 1 | 1.00 | met |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| × HAProxy |\n") {
		t.Errorf("they are in the tables of the others too:\n%s", text)
	}
}

func TestNoTargetIsMetByOneThatAnswersNothing(t *testing.T) {
	r := webSockets()
	for i := range r.Rows {
		r.Rows[i].Rounds = []measure.Result{{Failed: map[string]int{"no WebSockets": 5000}}}
		r.Rows[i] = row{Work: r.Rows[i].Work, Gateway: r.Rows[i].Gateway, Rounds: r.Rows[i].Rounds}
		r.Rows[i].sumUp()
	}
	if all := r.targets(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	if r.verdict() == nil {
		t.Error("it is no error either")
	}
}

func TestCountsAreAskedOfThoseWhoHaveThem(t *testing.T) {
	b, s := new(bench), &setting{upstreams: []string{"127.0.0.1:1"}}
	for _, tc := range []struct {
		work, gateway, metrics string
		want                   []string
	}{
		{"a", nameProxyd, "", nil},
		{"l", nameProxyd, "", []string{"-counts", "127.0.0.1:1"}},
		{"n", nameProxyd, "127.0.0.1:2", []string{"-metrics", "127.0.0.1:2"}},
		{"o", nameProxyd, "127.0.0.1:2", []string{"-counts", "127.0.0.1:1", "-metrics", "127.0.0.1:2"}},
		{"o", nameSocket, "127.0.0.1:2", []string{"-metrics", "127.0.0.1:2"}}, // it publishes by itself
	} {
		i := slices.IndexFunc(works, func(w work) bool { return w.id == tc.work })
		if got := b.counters(&works[i], &gateway{name: tc.gateway}, s, &server{metrics: tc.metrics}); !slices.Equal(got, tc.want) {
			t.Errorf("work %s, %s: %v, want %v", tc.work, tc.gateway, got, tc.want)
		}
	}
}

func TestNamesOfLinesDoNotOverlap(t *testing.T) {
	const bottom = plotTop + innerHeight
	for _, ends := range [][]float64{{100, 200}, {100, 101, 99, 100}, {bottom, bottom, bottom - 1}, {plotTop, bottom - 20, bottom, bottom - 2}} {
		names := make([]name, len(ends))
		for i, at := range ends {
			names[i].end, names[i].at = at, at
		}
		spread(names)
		for i, n := range names {
			if n.at > bottom || n.at < plotTop {
				t.Errorf("%v: a name at %g stands outside", ends, n.at)
			}
			if i > 0 && (n.at < names[i-1].at+nameGap || n.end < names[i-1].end) {
				t.Errorf("%v: %+v", ends, names)
			}
		}
	}
}

func TestAxesEndAtRoundValues(t *testing.T) {
	for _, tc := range []struct{ of, want []float64 }{
		{[]float64{13, 47}, []float64{10, 20, 50}},
		{[]float64{0.3, 4}, []float64{0.2, 0.5, 1, 2, 5}},
		{[]float64{20, 1000}, []float64{20, 50, 100, 200, 500, 1000}},
		{[]float64{5}, []float64{5, 10, 20, 50}},
		{nil, []float64{1, 2, 5, 10}},
	} {
		a := newAxis(100)
		for _, v := range tc.of {
			a.cover(v)
		}
		a.open()
		got := a.round()
		near := func(a, b float64) bool { return math.Abs(a/b-1) < 1e-9 }
		if !slices.EqualFunc(got, tc.want, near) || !near(math.Pow(10, a.low), got[0]) || !near(math.Pow(10, a.high), got[len(got)-1]) {
			t.Errorf("%v: %v, from %g to %g", tc.of, got, a.low, a.high)
		}
	}
}

func TestPlotsAreWellFormed(t *testing.T) {
	for name, p := range map[string]plot{
		"nothing": {title: "a < b"},
		"a point": {number: number, lines: []line{{"x", []point{{1, 5}}}}},
		"lines":   {title: "t", number: size, lines: []line{{"x", []point{{1, 5}, {1 << 20, 5000}}}, {"y", []point{{1, 0}, {10, 3}}}}},
	} {
		d := xml.NewDecoder(strings.NewReader(p.svg()))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, p.svg())
			}
		}
		if strings.Contains(p.svg(), "NaN") || strings.Contains(p.svg(), "Inf") {
			t.Errorf("%s: a coordinate is no number:\n%s", name, p.svg())
		}
	}
}
