package main

import (
	"encoding/xml"
	"errors"
	"io"
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
	}}
	r.sumUp()
	if r.CPU != 20 || r.Rate != 200 || r.P99 != 6 || r.Slow != 3 || r.Requests != 600 || r.Failed["x"] != 3 || r.Wrong["y"] != 1 {
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
	for _, want := range []string{"| a small (bodies 120 → 110 bytes) | proxyd | 30.0 |", "| 2.00 |\n|  | haproxy | 15.0 |", "| 1.6 | 2.00 | missed |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := small(15, 15).markdown(); !strings.Contains(text, "| 1.6 | 1.00 | met |") {
		t.Errorf("target not met in\n%s", text)
	}
}

func TestVerdictJudgesAnswersAndNotTimes(t *testing.T) {
	slow := small(1e9, 1)
	if err := slow.verdict(); err != nil {
		t.Errorf("slow: %v", err)
	}
	one := map[string]int{"why": 1}
	for name, spoil := range map[string]func(r *report){
		"wrong by this gateway":          func(r *report) { r.Rows[0].Wrong = one },
		"wrong by another":               func(r *report) { r.Rows[1].Wrong = one },
		"failed by this gateway":         func(r *report) { r.Rows[0].Failed = one },
		"nothing answered":               func(r *report) { r.Rows[0].Requests = 0 },
		"wrong where others may fail":    func(r *report) { r.Rows[1].Wrong, r.Rows[1].mayFail = one, true },
		"failed by another without need": func(r *report) { r.Rows[1].Failed = one },
	} {
		r := small(1, 1)
		spoil(r)
		if r.verdict() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	r := small(1, 1)
	r.Rows[1].Failed, r.Rows[1].mayFail = one, true
	if err := r.verdict(); err != nil {
		t.Errorf("failed where it may: %v", err)
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

func TestPlotsAreWellFormed(t *testing.T) {
	for name, p := range map[string]plot{
		"nothing": {title: "a < b"},
		"a point": {lines: []line{{"x", []point{{1, 5}}}}},
		"lines":   {title: "t", lines: []line{{"x", []point{{1, 5}, {1 << 20, 5000}}}, {"y", []point{{1, 0}, {10, 3}}}}},
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
