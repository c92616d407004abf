package backend

import (
	"testing"
	"testing/synctest"
	"time"
)

// read puts a read of eth_call under way, as Begin does.
func (b *Backend) read() *flight {
	now := time.Now()
	f := &flight{started: now, overdue: now.Add(b.health.expect("eth_call")), suspected: make(chan struct{})}
	b.flights.add(f)
	return f
}

func told(f *flight) bool {
	synctest.Wait()
	select {
	case <-f.suspected:
		return true
	default:
		return false
	}
}

// used teaches b that eth_call takes d.
func (b *Backend) used(d time.Duration) {
	for range 50 {
		b.health.answered("eth_call", time.Now().Add(-d), time.Now(), b.health.trial.id)
	}
	b.health.noteHeard(time.Now())
	time.Sleep(time.Millisecond)
}

func TestThreeOverdueReadsAndSilenceMakeABackendSuspect(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.used(10 * time.Millisecond)
		a, c := b.read(), b.read()
		time.Sleep(time.Second)
		if state(t, b, Well); told(a) {
			t.Fatal("two are not enough")
		}
		d := b.read()
		time.Sleep(leastOverdue - time.Millisecond)
		state(t, b, Well)
		time.Sleep(2 * watchEvery)
		state(t, b, Suspect)
		if !told(a) || !told(c) || !told(d) {
			t.Fatal("not each was told")
		}
		late := b.read()
		if told(late) {
			t.Fatal("told before it is overdue")
		}
		time.Sleep(leastOverdue + 2*watchEvery)
		if !told(late) {
			t.Fatal("one that became overdue later was not told")
		}
		b.health.noteHeard(time.Now())
		state(t, b, Well)
	})
}

func TestAnythingHeardSinceKeepsABackendFromSuspicion(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.used(10 * time.Millisecond)
		for range 20 {
			b.read()
		}
		time.Sleep(time.Millisecond)
		b.health.noteHeard(time.Now())
		time.Sleep(10 * time.Second)
		state(t, b, Well)
	})
}

func TestWhatIsUsualSaysWhenAReadIsOverdue(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		if d := b.health.expect("eth_call"); d != time.Second {
			t.Fatalf("nothing known: %s", d)
		}
		b.used(time.Millisecond)
		if d := b.health.expect("eth_call"); d != leastOverdue {
			t.Fatalf("quick: %s", d)
		}
		b.used(300 * time.Millisecond)
		if d := b.health.expect("eth_call"); d < 900*time.Millisecond || d > 1500*time.Millisecond {
			t.Fatalf("300 ms: %s", d)
		}
		b.used(4 * time.Second)
		if d := b.health.expect("eth_call"); d != 2500*time.Millisecond {
			t.Fatalf("slow, never over half the response timeout: %s", d)
		}
	})
}

func TestOnlyReadsMakeSuspect(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		for range 10 {
			b.flights.add(&flight{started: time.Now(), suspected: make(chan struct{})})
		}
		b.read()
		time.Sleep(time.Minute)
		state(t, b, Well)
	})
}

func TestSuspectBackendWithNothingUnderWayGetsATrial(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		flights := []*flight{b.read(), b.read(), b.read()}
		time.Sleep(2 * time.Second)
		state(t, b, Suspect)
		for _, f := range flights {
			b.flights.remove(f)
		}
		state(t, b, Trial)
		if !b.TakeTrial() {
			t.Fatal("no trial")
		}
		state(t, b, Suspect)
	})
}

func TestTrialIsToldAsSoonAsItIsOverdue(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.used(time.Millisecond)
		f := &flight{started: time.Now(), overdue: time.Now().Add(leastOverdue), suspected: make(chan struct{}), trial: true}
		b.flights.add(f)
		time.Sleep(leastOverdue + 2*watchEvery)
		if !told(f) {
			t.Fatal("a single call would wait for the whole response timeout")
		}
		state(t, b, Well)
	})
}

func TestWatchRestsWithoutReads(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		f := b.read()
		time.Sleep(time.Millisecond)
		b.flights.remove(f)
		time.Sleep(2 * watchEvery)
		armed := func() bool {
			b.flights.mu.Lock()
			defer b.flights.mu.Unlock()
			return b.flights.armed
		}
		if armed() || !b.flights.none() || b.flights.len() != 0 {
			t.Fatal("the timer runs on")
		}
		b.read()
		if !armed() {
			t.Fatal("the timer does not start again")
		}
	})
}

func TestWaitingForASlotIsNoSilenceOfTheBackend(t *testing.T) {
	node, url := chain(t)
	slots := NewSlots(1, time.Minute)
	b := newBackend(t, url, func(o *Options) { o.Slots, o.ResponseTimeout = slots, 300*time.Millisecond })
	slots.free <- struct{}{} // another backend's
	done := make(chan *Attempt, 5)
	for range 5 {
		b.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute, Watched: true}, done)
	}
	time.Sleep(250 * time.Millisecond) // what is not to happen needs its time
	state(t, b, Well)
	if node.Requests() != 0 {
		t.Fatal("asked without a slot")
	}
	slots.release()
	for range 5 {
		a := <-done
		result(t, a.Results[0], `"0x10"`)
	}
	b.health.mu.Lock()
	latency := b.health.window.sums(time.Now()).latency()
	b.health.mu.Unlock()
	if latency > 200*time.Millisecond {
		t.Errorf("the wait counts as the backend's latency: %s", latency)
	}
}
