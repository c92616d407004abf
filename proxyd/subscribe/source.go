package subscribe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
)

// event is what a source brings: a result of one of its subscriptions.
type event struct {
	feed   *feed // nil for heads
	result []byte
	mark   bool // neither, see source.mark
}

// maxWaiting bounds the events that wait while a gap is being closed. Beyond, the
// source is given up, which loses nothing: what it would have brought is fetched.
const maxWaiting, maxWaitingBytes = 4096, 64 << 20

// source is one backend that is followed: over its WebSocket connection, or by asking
// it for its head again and again. The follower owns it.
type source struct {
	member  *group.Member
	socket  *backend.Socket // nil for one that is polled
	opts    *Options
	began   time.Time
	events  chan event
	lost    chan struct{} // closed when it can no longer be followed
	once    sync.Once
	reason  error // why
	idsMu   sync.Mutex
	ids     map[*feed]string
	polling sync.WaitGroup
	stop    context.CancelFunc
	ctx     context.Context

	served map[*feed]bool
	marks  int            // that were set and did not come by yet
	bytes  atomic.Int64   // of the events that wait
	asking map[*feed]bool // whose subscriptions are being made
	asked  chan asked     // what became of them
	number int            // of the source, among all that there were
	// waiting is true while a feed waits for a backend with a socket.
	waiting bool
	joined  bool    // it has caught up with what clients were told
	held    []event // came before that
	shaped  bool    // its live heads were looked at
	newer   uint64  // the head that it has and did not tell of, 0 for none
	missed  int     // heads in a row that could not be reached
}

var (
	errOverflow = errors.New("more events came than could be taken")
	errSilent   = errors.New("it has newer blocks but told of none")
	errEnded    = errors.New("it has ended a subscription")
)

// openSource begins to follow a member's heads, until base ends; ctx bounds the opening.
func openSource(base, ctx context.Context, m *group.Member, polls bool, o *Options) (*source, error) {
	s := &source{
		member: m, opts: o, began: time.Now(), events: make(chan event, maxWaiting), lost: make(chan struct{}), ids: make(map[*feed]string),
		served: make(map[*feed]bool), asking: make(map[*feed]bool), asked: make(chan asked, subscribesAtOnce),
	}
	s.ctx, s.stop = context.WithCancel(base)
	if polls {
		s.polling.Go(s.poll)
		return s, nil
	}
	if wait := time.Until(m.SocketStatus().RetryAt); wait > 0 { // soon: see choices
		select {
		case <-time.After(min(wait, soon)):
		case <-ctx.Done():
		}
	}
	socket, err := m.Socket(ctx)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.socket = socket
	s.polling.Go(func() { // its end is the source's
		select {
		case <-socket.Dead():
			s.end(socket.Err())
		case <-s.ctx.Done():
		}
	})
	if err := s.subscribe(nil, headsSpec); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// polls reports whether the source has no subscriptions of its own.
func (s *source) polls() bool { return s.socket == nil }

// end notes that the source can no longer be followed. It may be called by any
// goroutine, and does not wait.
func (s *source) end(why error) {
	s.once.Do(func() {
		s.reason = why
		close(s.lost)
	})
}

// isLost reports whether the source can no longer be followed.
func (s *source) isLost() bool {
	select {
	case <-s.lost:
		return true
	default:
		return false
	}
}

// subscribe makes a subscription; f is nil for heads. A refusal is an *upstreamError.
func (s *source) subscribe(f *feed, what spec) error {
	if s.polls() {
		if what.kind != heads && what.kind != logs {
			return errNeedSocket
		}
		return nil // made from what is asked for
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.CallTimeout)
	defer cancel()
	id, err := s.socket.Subscribe(ctx, what.params, func(result []byte) {
		if result == nil {
			s.end(errEnded)
		} else {
			s.queue(event{feed: f, result: result})
		}
	})
	var refused *backend.RPCError
	switch {
	case errors.As(err, &refused):
		return &upstreamError{s.member.Name(), refused.Code, refused.Raw}
	case err != nil:
		return err
	}
	s.idsMu.Lock()
	s.ids[f] = id
	s.idsMu.Unlock()
	s.opts.Metrics.upstream.WithLabelValues(s.member.Name()).Inc()
	return nil
}

// asked is what became of a feed's subscription.
type asked struct {
	feed *feed
	err  error
}

// subscribesAtOnce bounds the subscriptions that are made at a time.
const subscribesAtOnce = 64

// begin makes a feed's subscription, for the follower to hear of at s.asked. It does not
// wait: events go on meanwhile.
func (s *source) begin(f *feed) {
	s.asking[f] = true
	s.polling.Go(func() {
		defer s.recovered()
		err := s.subscribe(f, f.spec)
		if err != nil && !isRefusal(err) && !s.isLost() {
			// Nobody knows yet whether it is the backend that fails, or only that it
			// leaves such a subscription without an answer.
			ctx, cancel := context.WithTimeout(s.ctx, min(s.opts.CallTimeout, 2*time.Second))
			defer cancel()
			if _, broken := s.latest(ctx); broken != nil {
				s.end(err)
			} else {
				err = errUnanswered
			}
		}
		s.asked <- asked{f, err}
	})
}

// isRefusal reports whether an error says that a subscription cannot be had here, and
// nothing about the backend.
func isRefusal(err error) bool {
	var refused *upstreamError
	return errors.As(err, &refused) || errors.Is(err, errNeedSocket) || errors.Is(err, errUnanswered)
}

// unsubscribe ends a feed's subscription.
func (s *source) unsubscribe(f *feed) {
	s.idsMu.Lock()
	id, ok := s.ids[f]
	delete(s.ids, f)
	s.idsMu.Unlock()
	if !ok {
		return
	}
	s.opts.Metrics.upstream.WithLabelValues(s.member.Name()).Dec()
	s.socket.Unsubscribe(id)
}

// close ends the source's subscriptions and waits for what it runs.
func (s *source) close() {
	s.stop()
	s.polling.Wait() // subscriptions that are being made are known then
	for f := range s.ids {
		s.unsubscribe(f)
	}
}

// abandon is close for a source whose socket is not to be trusted any more.
func (s *source) abandon(why error) {
	if s.socket != nil {
		s.socket.Close(why)
	}
	s.close()
}

// queue has an event wait for the follower. Once one was dropped none follows, since it
// would hide the hole. One goroutine at a time may call it.
func (s *source) queue(e event) {
	if s.isLost() {
		return
	}
	if s.bytes.Add(int64(len(e.result))) > maxWaitingBytes {
		s.end(errOverflow)
		return
	}
	select {
	case s.events <- e:
	default:
		s.end(errOverflow)
	}
}

// poll asks for the head again and again, and makes events of new ones.
func (s *source) poll() {
	defer s.recovered()
	tick := time.NewTicker(s.opts.PollInterval)
	defer tick.Stop()
	failures, told := 0, ""
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		h, err := s.latest(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return
		case err != nil:
			if failures++; failures >= pollFailures {
				s.end(err)
				return
			}
		default:
			if failures = 0; h.hash != told {
				told = h.hash
				s.queue(event{result: h.raw})
			}
		}
	}
}

// pollFailures in a row end a source that is polled.
const pollFailures = 3

func (s *source) recovered() {
	if v := recover(); v != nil {
		s.opts.Log.Error("panic while following a backend", "backend", s.member.Name(), "panic", fmt.Sprint(v))
		s.end(errors.New("internal error"))
	}
}
