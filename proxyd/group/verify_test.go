package group

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
)

// unverified is a setting whose given members must show their chain first.
func unverified(members ...int) setting {
	return setting{backend: func(i int, o *backend.Options) {
		if slices.Contains(members, i) {
			o.ChainID, o.Verify = 31337, true
		}
	}}
}

func (w *world) verify(i int) {
	w.backends[i].Own(context.Background(), "eth_chainId", "[]", time.Second)
	w.order()
}

func (w *world) served(after, within time.Duration, by string) {
	w.t.Helper()
	w.well(by)
	if took := time.Since(w.begun); took < after || took > after+within {
		w.t.Errorf("answered after %v, want %v", took, after)
	}
}

func TestFirstCallsWaitUntilTheChainOfAMemberIsKnown(t *testing.T) {
	inBubble(t, 2, unverified(0, 1), func(t *testing.T, w *world) {
		w.state(0, backend.Foreign)
		time.AfterFunc(3*time.Second, func() { w.verify(1) })
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { w.served(3*time.Second, verifyEvery, "b1") })
		}
		all.Wait()
		wantOrder(t, w, "11111")
		w.verify(0)
		w.served(3*time.Second, verifyEvery, "b0")
	})
}

func TestFirstCallsWaitForNoChainLongerThanTenSeconds(t *testing.T) {
	inBubble(t, 2, unverified(0, 1), func(t *testing.T, w *world) {
		refused := func() {
			c := read()
			w.do(time.Minute, c)
			var nobody *Unserviceable
			if took := time.Since(w.begun); !errors.As(c.Err, &nobody) || took < verifyMost || took > verifyMost+verifyEvery {
				t.Errorf("after %v: %+v, %v", took, c.Answer, c.Err)
			}
		}
		var all sync.WaitGroup
		all.Go(refused)
		time.Sleep(9 * time.Second)
		all.Go(refused) // which waits a second only
		all.Wait()
		refused()
		wantOrder(t, w, "") // it is not even a last resort
		w.verify(1)
		w.well("b1")
	})
}

func TestFirstCallWaitsNoLongerThanItsOwnTime(t *testing.T) {
	inBubble(t, 1, unverified(0), func(t *testing.T, w *world) {
		c := read()
		w.do(time.Second, c)
		if took := time.Since(w.begun); !errors.Is(c.Err, ErrTimeout) || took != time.Second {
			t.Errorf("after %v: %+v, %v", took, c.Answer, c.Err)
		}
		time.AfterFunc(time.Second, func() { w.verify(0) })
		w.served(2*time.Second, verifyEvery, "b0")
	})
}

func TestFirstCallsDoNotWaitWhereAnotherMemberServes(t *testing.T) {
	inBubble(t, 2, unverified(0), func(t *testing.T, w *world) {
		w.served(0, 0, "b1")
		wantOrder(t, w, "1")
		w.verify(0)
		w.served(0, 0, "b0")
	})
	inBubble(t, 2, unverified(0, 1), func(t *testing.T, w *world) {
		w.verify(1)
		w.served(0, 0, "b1")
	})
}

// What serves another chain will not serve soon.
func TestFirstCallsDoNotWaitForAnotherChain(t *testing.T) {
	s := setting{backend: func(_ int, o *backend.Options) { o.ChainID, o.Verify = 77, true }}
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		w.verify(0)
		w.verify(1)
		var nobody *Unserviceable
		c := read()
		w.do(time.Minute, c)
		if took := time.Since(w.begun); !errors.As(c.Err, &nobody) || took != 0 {
			t.Errorf("after %v: %+v, %v", took, c.Answer, c.Err)
		}
		wantOrder(t, w, "")
	})
}
