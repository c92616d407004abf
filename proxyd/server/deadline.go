package server

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline is a context that ends at a time. It takes a timer only when somebody
// waits for its end: most calls are answered by the goroutine that has them, which
// asks Deadline and Err.
type deadline struct {
	context.Context // of the HTTP request
	at              time.Time
	expired         atomic.Bool // somebody was told so, and it stays like that
	timed           atomic.Pointer[timed]
}

type timed struct {
	context.Context
	cancel context.CancelFunc
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.withTimer().Done() }

// Err implements context.Context.
func (d *deadline) Err() error {
	if t := d.timed.Load(); t != nil {
		return t.Err()
	}
	if d.expired.Load() {
		return context.DeadlineExceeded
	}
	if err := d.Context.Err(); err != nil {
		return err
	}
	if time.Now().Before(d.at) {
		return nil
	}
	d.expired.Store(true)
	return context.DeadlineExceeded
}

// Value implements context.Context. Contexts made from this one find the timer's
// through it.
func (d *deadline) Value(key any) any {
	if t := d.timed.Load(); t != nil {
		return t.Value(key)
	}
	if d.expired.Load() && d.Context.Err() != nil {
		return d.withTimer().Value(key) // the cause is the time, not what came later
	}
	return d.Context.Value(key)
}

func (d *deadline) withTimer() *timed {
	if t := d.timed.Load(); t != nil {
		return t
	}
	t, parent := new(timed), d.Context
	if d.expired.Load() {
		parent = context.WithoutCancel(parent)
	}
	t.Context, t.cancel = context.WithDeadline(parent, d.at)
	if !d.timed.CompareAndSwap(nil, t) {
		t.cancel()
		return d.timed.Load()
	}
	return t
}

// end releases the timer.
func (d *deadline) end() {
	if t := d.timed.Load(); t != nil {
		t.cancel()
	}
}
