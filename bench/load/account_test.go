package main

import (
	"testing"
	"time"
)

func TestAnAccountKnowsWhatCameWhen(t *testing.T) {
	for name, tc := range map[string]struct {
		numbers []uint64
		faults  string // of each: . for none, t for twice, d for disordered
		missed  int    // of 10 to 15
	}{
		"all":               {[]uint64{9, 10, 11, 12, 13, 14, 15, 16}, "........", 0},
		"nothing":           {nil, "", 6},
		"late begin":        {[]uint64{12, 13, 14, 15}, "....", 2},
		"early end":         {[]uint64{10, 11, 12}, "...", 3},
		"one missing":       {[]uint64{10, 11, 13, 14, 15}, ".....", 1},
		"two missing":       {[]uint64{10, 13, 14, 15}, "....", 2},
		"twice":             {[]uint64{10, 10, 11, 12, 13, 12, 14, 15}, ".t...t..", 0},
		"one late":          {[]uint64{10, 12, 11, 13, 14, 15}, "..d...", 0},
		"one late and soon": {[]uint64{10, 12, 11, 11, 13, 14, 15}, "..dt...", 0},
		"before the first":  {[]uint64{10, 11, 9, 12, 13, 14, 15}, "..d....", 0},
	} {
		var a account
		got := ""
		for _, n := range tc.numbers {
			switch a.got(n, time.Now()) {
			case "":
				got += "."
			case twice:
				got += "t"
			case disordered:
				got += "d"
			}
		}
		if missed := a.missed(10, 15); got != tc.faults || missed != tc.missed {
			t.Errorf("%s: %s, %d missed, want %s, %d", name, got, missed, tc.faults, tc.missed)
		}
	}
}

func TestPausesAreFeltInTheOutageTheyFallInto(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	o := outages{all: []outage{{killed: at(10), started: at(20)}, {killed: at(30)}}}
	for _, tc := range []struct {
		from, to int
		want     int // which outage, -1 for none
	}{{1, 9, -1}, {5, 11, 0}, {11, 19, 0}, {15, 25, 0}, {5, 25, 0}, {21, 29, -1}, {25, 31, 1}, {40, 50, 1}, {15, 35, 1}} {
		for i := range o.all {
			o.all[i].longest = 0
		}
		felt := o.felt(at(tc.from), at(tc.to), time.Minute)
		for i := range o.all {
			if (o.all[i].longest != 0) != (i == tc.want) || felt != (tc.want >= 0) {
				t.Errorf("%+v: felt %v, %+v", tc, felt, o.all)
			}
		}
	}
}

func TestOutagesAreSpreadOverTheRun(t *testing.T) {
	for window, want := range map[int]int{1: 3, 12: 3, 14: 3, 15: 4, 40: 12} {
		o := outages{interval: time.Second}
		if got := o.cycle(time.Duration(window) * time.Second); got != want {
			t.Errorf("%d s: every %d blocks, want %d", window, got, want)
		}
	}
}
