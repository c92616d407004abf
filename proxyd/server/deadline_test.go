package server

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

type valueKey string

var errLeft = errors.New("the client left")

// within runs a test with a deadline of one second from now on the clock of a
// bubble. leave ends the context of its HTTP request.
func within(t *testing.T, test func(t *testing.T, d *deadline, leave context.CancelCauseFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		request, leave := context.WithCancelCause(context.WithValue(t.Context(), valueKey("k"), "v"))
		defer leave(nil)
		d := &deadline{Context: request, at: time.Now().Add(time.Second)}
		defer d.end()
		test(t, d, leave)
	})
}

func over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// endedWith checks how a context has ended; want is nil when it has not.
func endedWith(t *testing.T, name string, ctx context.Context, want, cause error) {
	t.Helper()
	if got := ctx.Err(); got != want {
		t.Errorf("%s: error %v, want %v", name, got, want)
	}
	if got := context.Cause(ctx); got != cause {
		t.Errorf("%s: cause %v, want %v", name, got, cause)
	}
}

func TestDeadlineIsOverAtItsTimeWithoutATimer(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, _ context.CancelCauseFunc) {
		at, ok := d.Deadline()
		if !ok || time.Until(at) != time.Second {
			t.Errorf("deadline in %v, %v", time.Until(at), ok)
		}
		time.Sleep(time.Second - 1)
		endedWith(t, "a nanosecond before", d, nil, nil)
		time.Sleep(time.Nanosecond)
		endedWith(t, "at its time", d, context.DeadlineExceeded, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		endedWith(t, "later", d, context.DeadlineExceeded, context.DeadlineExceeded)
		if d.Value(valueKey("k")) != "v" || d.Value(valueKey("other")) != nil {
			t.Error("the request's values are not there")
		}
		if d.timed.Load() != nil {
			t.Error("asking for time, error, cause and values made a timer")
		}
		if !over(d) {
			t.Error("Done is open after the end")
		}
		endedWith(t, "with a timer made after the end", d, context.DeadlineExceeded, context.DeadlineExceeded)
	})
}

func TestDeadlineEndsWithItsRequestWithoutATimer(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
		leave(errLeft)
		endedWith(t, "the client left", d, context.Canceled, errLeft)
		if d.timed.Load() != nil {
			t.Error("a timer was made")
		}
		if !over(d) {
			t.Error("Done is open after the end")
		}
		time.Sleep(time.Hour)
		endedWith(t, "after the deadline", d, context.Canceled, errLeft)
	})
}

func TestDoneClosesAtTheDeadline(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
		begun := time.Now()
		done := d.Done()
		if d.Done() != done {
			t.Error("Done is not always the same")
		}
		time.Sleep(time.Second - 1)
		if synctest.Wait(); over(d) {
			t.Error("Done closed too early")
		}
		endedWith(t, "a nanosecond before", d, nil, nil)
		<-done
		if took := time.Since(begun); took != time.Second {
			t.Errorf("Done closed after %v", took)
		}
		endedWith(t, "at its time", d, context.DeadlineExceeded, context.DeadlineExceeded)
		leave(errLeft) // what has ended once stays as it is
		endedWith(t, "when the client left later", d, context.DeadlineExceeded, context.DeadlineExceeded)
		if at, ok := d.Deadline(); !ok || !at.Equal(begun.Add(time.Second)) || d.Value(valueKey("k")) != "v" {
			t.Errorf("deadline %v, value %v", at, d.Value(valueKey("k")))
		}
	})
}

func TestDoneClosesWhenTheClientLeaves(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
		done := d.Done()
		leave(errLeft)
		<-done
		endedWith(t, "the client left", d, context.Canceled, errLeft)
		time.Sleep(time.Hour)
		endedWith(t, "after the deadline", d, context.Canceled, errLeft)
	})
}

func TestContextsMadeOfADeadlineEndWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(leave context.CancelCauseFunc)
		err, cause error
		after      time.Duration
	}{
		"at its time":            {func(context.CancelCauseFunc) {}, context.DeadlineExceeded, context.DeadlineExceeded, time.Second},
		"when the client leaves": {func(leave context.CancelCauseFunc) { time.Sleep(time.Millisecond); leave(errLeft) }, context.Canceled, errLeft, time.Millisecond},
	} {
		for _, timer := range []string{"before any timer", "with a timer already"} {
			t.Run(name+", "+timer, func(t *testing.T) {
				within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
					if timer == "with a timer already" {
						_ = d.Done()
					}
					begun := time.Now()
					timeout, cancel := context.WithTimeout(d, time.Hour)
					defer cancel()
					canceled, cancel := context.WithCancel(d)
					defer cancel()
					caused, end := context.WithCancelCause(timeout)
					defer end(nil)
					value := context.WithValue(canceled, valueKey("own"), 1)
					called := make(chan time.Duration, 1)
					stop := context.AfterFunc(d, func() { called <- time.Since(begun) })
					defer stop()
					all := map[string]context.Context{"WithTimeout": timeout, "WithCancel": canceled, "WithCancelCause of WithTimeout": caused, "WithValue": value}
					for name, ctx := range all {
						if at, ok := ctx.Deadline(); !ok || !at.Equal(d.at) || ctx.Value(valueKey("k")) != "v" || ctx.Err() != nil {
							t.Errorf("%s: deadline %v, value %v, error %v", name, at, ctx.Value(valueKey("k")), ctx.Err())
						}
					}
					go c.end(leave)
					for name, ctx := range all {
						<-ctx.Done()
						endedWith(t, name, ctx, c.err, c.cause)
						if took := time.Since(begun); took != c.after {
							t.Errorf("%s ended after %v, want %v", name, took, c.after)
						}
					}
					if took := <-called; took != c.after {
						t.Errorf("AfterFunc was called after %v, want %v", took, c.after)
					}
				})
			})
		}
	}
}

func TestContextMadeOfADeadlineMayEndBeforeIt(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, _ context.CancelCauseFunc) {
		begun := time.Now()
		short, cancel := context.WithTimeout(d, time.Millisecond)
		defer cancel()
		<-short.Done()
		if took := time.Since(begun); took != time.Millisecond {
			t.Errorf("ended after %v", took)
		}
		endedWith(t, "the shorter one", short, context.DeadlineExceeded, context.DeadlineExceeded)
		endedWith(t, "the call's", d, nil, nil)
		stop := context.AfterFunc(d, func() { t.Error("a function that was stopped is called") })
		if !stop() {
			t.Error("stop came too late")
		}
		time.Sleep(2 * time.Second)
	})
}

// goroutinesOf counts the goroutines that a package has started.
func goroutinesOf(pkg string) int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "created by "+pkg+".")
}

// A context of a type that context does not know costs a goroutine for each one
// made from it; this one leads to a type that it knows.
func TestContextsMadeOfADeadlineCostNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deadline{Context: context.Background(), at: time.Now().Add(time.Second)}
		before := goroutinesOf("context")
		for range 10 {
			_, cancel := context.WithCancel(d)
			defer cancel()
			_, cancel = context.WithTimeout(d, time.Millisecond)
			defer cancel()
			defer context.AfterFunc(d, func() {})()
		}
		synctest.Wait()
		if n := goroutinesOf("context") - before; n != 0 {
			t.Errorf("%d goroutines", n)
		}
		d.end()
	})
}

func TestOneTimerServesAllWhoWait(t *testing.T) {
	for _, end := range []string{"deadline", "client", "end"} {
		within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
			var ready, wg sync.WaitGroup
			start := make(chan struct{})
			dones := make([]<-chan struct{}, 50)
			for i := range dones {
				ready.Add(1)
				wg.Go(func() {
					ready.Done()
					<-start
					if i%3 == 0 {
						_, _ = d.Err(), d.Value(valueKey("k"))
					}
					dones[i] = d.Done()
					<-dones[i]
					if d.Err() == nil || context.Cause(d) == nil {
						t.Error("Done is closed before there is an error")
					}
				})
			}
			ready.Wait()
			close(start)
			synctest.Wait()
			switch end {
			case "client":
				leave(errLeft)
			case "end":
				d.end()
			}
			wg.Wait()
			for _, done := range dones {
				if done != dones[0] {
					t.Error("two of them wait for different timers")
				}
			}
		})
	}
}

func TestOnlyOneTimerIsMadeHoweverManyAskForItAtOnce(t *testing.T) {
	for range 2000 {
		d := &deadline{Context: context.Background(), at: time.Now().Add(time.Hour)}
		var dones [4]<-chan struct{}
		var ready atomic.Int32
		var wg sync.WaitGroup
		for i := range dones {
			wg.Go(func() {
				for ready.Add(1); ready.Load() < int32(len(dones)); {
					runtime.Gosched()
				}
				dones[i] = d.Done()
			})
		}
		wg.Wait()
		d.end()
		for _, done := range dones {
			if done != dones[0] {
				t.Fatal("two of them wait for different timers")
			}
			select {
			case <-done:
			default:
				t.Fatal("end has left one behind")
			}
		}
	}
}

func TestEndReleasesTheTimer(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, _ context.CancelCauseFunc) {
		d.end() // there is none yet
		endedWith(t, "without a timer", d, nil, nil)
		child, cancel := context.WithCancel(d)
		defer cancel()
		timer := d.timed.Load()
		if timer == nil {
			t.Fatal("a context that waits has no timer")
		}
		d.end()
		endedWith(t, "the timer", timer, context.Canceled, context.Canceled)
		if synctest.Wait(); !over(child) || !over(d) {
			t.Error("who waits is not let go")
		}
		d.end() // twice does no harm
	})
}

func TestCallThatIsAnsweredAtOnceTakesNoTimer(t *testing.T) {
	var seen *deadline
	for _, waits := range []bool{false, true} {
		f := newFront(t, nil, func(ctx context.Context, c *jsonrpc.Call) {
			c.Answer = &jsonrpc.Answer{Result: []byte("1")}
			seen = ctx.(*deadline)
			if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
				t.Error("there is no deadline")
			}
			if waits {
				_ = ctx.Done()
			}
		})
		f.post(chainID)
		timer := seen.timed.Load()
		if (timer != nil) != waits {
			t.Errorf("waiting %v: timer %v", waits, timer)
		}
		if waits && timer.Err() != context.Canceled {
			t.Error("the timer runs on behind the request")
		}
	}
}
