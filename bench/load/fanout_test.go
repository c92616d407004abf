package main

import (
	"testing"
	"time"

	"gateway.internal/bench/internal/measure"
)

// got has a subscriber get a head that is as many seconds old as its number says.
func (f *fanout) gotOld(i int, number uint64) bool {
	now := time.Now()
	return f.got(&f.subscribers[i], number, now.Add(-time.Duration(number)*time.Second), now)
}

func TestAHeadIsCompleteWhenTheLastHasIt(t *testing.T) {
	f := fanout{subscribers: make([]subscriber, 3)}
	for number := uint64(5); number < 8; number++ {
		for i := range 3 {
			if complete := f.gotOld(i, number); complete != (i == 2) {
				t.Errorf("head %d, subscriber %d: complete %v", number, i, complete)
			}
		}
	}
	if f.sum.requests != 9 || len(f.sum.took) != 3 || f.sum.took[0] != 5e6 || len(f.underWay) != 0 || f.sum.failed != nil {
		t.Errorf("%+v", &f)
	}
}

func TestHeadsMayOverlap(t *testing.T) {
	f := fanout{subscribers: make([]subscriber, 2)}
	for _, step := range []struct {
		i        int
		number   uint64
		complete bool
	}{{0, 1, false}, {0, 2, false}, {0, 3, false}, {1, 1, true}, {1, 2, true}, {1, 3, true}} {
		if f.gotOld(step.i, step.number) != step.complete {
			t.Errorf("%+v", step)
		}
	}
}

func TestHeadsBeforeTheLastSubscriptionAreNoMeasure(t *testing.T) {
	for name, order := range map[string][][2]uint64{ // subscriber 1 comes with head 3
		"the late one is read last":  {{0, 1}, {0, 2}, {0, 3}, {1, 3}},
		"the late one is read first": {{1, 3}, {0, 1}, {0, 2}, {0, 3}},
		"between":                    {{0, 1}, {1, 3}, {0, 2}, {0, 3}},
	} {
		f := fanout{subscribers: make([]subscriber, 2)}
		for _, step := range order {
			f.gotOld(int(step[0]), step[1])
		}
		if len(f.sum.took) != 1 || f.sum.took[0] != 3e6 || len(f.underWay) != 0 || len(f.sum.wrong) != 0 {
			t.Errorf("%s: %+v", name, &f)
		}
	}
}

func TestAGapIsWrongAndHoldsNothingUp(t *testing.T) {
	f := fanout{subscribers: make([]subscriber, 2)}
	for _, step := range [][2]uint64{{0, 1}, {1, 1}, {0, 2}, {0, 3}, {1, 3}} {
		f.gotOld(int(step[0]), step[1])
	}
	if f.sum.wrong["gap before a head"] != 1 || len(f.underWay) != 0 || len(f.sum.took) != 2 {
		t.Errorf("%+v", &f)
	}
	for _, number := range []uint64{3, 2} {
		if f.gotOld(1, number) {
			t.Errorf("head %d is complete once more", number)
		}
	}
	if f.sum.wrong["head that came twice or late"] != 2 {
		t.Errorf("%+v", &f)
	}
}

func TestNobodyWaitsForOneThatIsGone(t *testing.T) {
	f := fanout{subscribers: make([]subscriber, 3)}
	f.gotOld(0, 1)
	f.lose(&f.subscribers[1], failure("left"))
	if !f.gotOld(2, 1) {
		t.Error("head 1 is not complete")
	}
	f.gotOld(0, 2)
	f.lose(&f.subscribers[2], failure("left"))
	if len(f.underWay) != 0 || measure.Sum(f.sum.failed) != 2 {
		t.Errorf("%+v", &f)
	}
}
