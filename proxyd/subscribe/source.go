package subscribe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

// event is what a source brings: a result of one of its subscriptions.
type event struct {
	feed   *feed // nil for heads
	result []byte
}

// maxWaiting bounds the events that wait while a gap is being closed. Beyond, the
// source is given up, which loses nothing: what it would have brought is fetched.
const maxWaiting = 4096

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
	ids     map[*feed]string
	polling sync.WaitGroup
	stop    context.CancelFunc
	ctx     context.Context

	joined bool    // it has caught up with what clients were told
	held   []event // came before that
	shaped bool    // its live heads were looked at
	newer  uint64  // the head that it has and did not tell of, 0 for none
	missed int     // heads in a row that could not be reached
}

var (
	errOverflow = errors.New("more events came than could be taken")
	errSilent   = errors.New("it has newer blocks but told of none")
)

// openSource begins to follow a member's heads.
func openSource(ctx context.Context, m *group.Member, polls bool, o *Options) (*source, error) {
	s := &source{member: m, opts: o, began: time.Now(), events: make(chan event, maxWaiting), lost: make(chan struct{}), ids: make(map[*feed]string)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if polls {
		s.polling.Go(s.poll)
		return s, nil
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
	if err := s.subscribe(ctx, nil, headsSpec); err != nil {
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
func (s *source) subscribe(ctx context.Context, f *feed, what spec) error {
	if s.polls() {
		if what.kind != heads && what.kind != logs {
			return errNeedSocket
		}
		return nil // made from what is asked for
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.CallTimeout)
	defer cancel()
	id, err := s.socket.Subscribe(ctx, what.params, func(result []byte) {
		select {
		case s.events <- event{f, result}:
		default:
			s.end(errOverflow)
		}
	})
	var refused *backend.RPCError
	switch {
	case errors.As(err, &refused):
		return &upstreamError{s.member.Name(), refused.Code, refused.Raw}
	case err != nil:
		return err
	}
	s.ids[f] = id
	s.opts.Metrics.upstream.WithLabelValues(s.member.Name()).Inc()
	return nil
}

// unsubscribe ends a feed's subscription.
func (s *source) unsubscribe(f *feed) {
	id, ok := s.ids[f]
	if !ok {
		return
	}
	delete(s.ids, f)
	s.opts.Metrics.upstream.WithLabelValues(s.member.Name()).Dec()
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.CallTimeout)
	defer cancel()
	s.socket.Unsubscribe(ctx, id)
}

// close ends the source's subscriptions and waits for what it runs.
func (s *source) close() {
	for f := range s.ids {
		s.unsubscribe(f)
	}
	s.stop()
	s.polling.Wait()
}

// abandon is close for a source whose socket is not to be trusted any more.
func (s *source) abandon(why error) {
	if s.socket != nil {
		s.socket.Close(why)
	}
	s.close()
}

// ask makes a call where the events come from, so that both speak of the same node.
func (s *source) ask(ctx context.Context, method, params string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.CallTimeout)
	defer cancel()
	if s.socket != nil {
		return s.socket.Ask(ctx, method, params)
	}
	reply := s.member.OwnLarge(ctx, method, params, s.opts.CallTimeout)
	return reply.Result, reply.Err
}

// latest returns the source's head, as a whole block.
func (s *source) latest(ctx context.Context) (head, error) {
	return s.header(ctx, "eth_getBlockByNumber", `["latest",false]`)
}

// numbered returns the block with a number.
func (s *source) numbered(ctx context.Context, number uint64) (head, error) {
	h, err := s.header(ctx, "eth_getBlockByNumber", fmt.Sprintf(`["0x%x",false]`, number))
	if err == nil && h.number != number {
		err = fmt.Errorf("backend %s: asked for block %d, got %d", s.member.Name(), number, h.number)
	}
	return h, err
}

// hashed returns the block with a hash, a JSON string.
func (s *source) hashed(ctx context.Context, hash string) (head, error) {
	h, err := s.header(ctx, "eth_getBlockByHash", `[`+hash+`,false]`)
	if err == nil && h.hash != hash {
		err = fmt.Errorf("backend %s: asked for block %s, got %s", s.member.Name(), hash, h.hash)
	}
	return h, err
}

func (s *source) header(ctx context.Context, method, params string) (head, error) {
	raw, err := s.ask(ctx, method, params)
	if err != nil {
		return head{}, err
	}
	h, ok := parseHead(raw)
	if !ok {
		return head{}, fmt.Errorf("backend %s: %s%s: no block", s.member.Name(), method, params)
	}
	h.whole = true
	return h, nil
}

// logsBetween returns the logs of a filter from a block to the head. Those of the head
// alone are asked for by its hash: behind one URL may stand several nodes, and one that
// does not know the block yet says so, where it would take a range for empty.
func (s *source) logsBetween(ctx context.Context, f *feed, from uint64, head block) ([]logEvent, error) {
	to := head.number
	params := fmt.Sprintf(`[{"fromBlock":"0x%x","toBlock":"0x%x"%s}]`, from, to, f.members)
	if from == to {
		params = fmt.Sprintf(`[{"blockHash":%s%s}]`, head.hash, f.members)
	}
	raw, err := s.ask(ctx, "eth_getLogs", params)
	if err != nil {
		return nil, err
	}
	var list []logEvent
	broken := false
	if !jsonrpc.Elements(raw, func(value []byte) bool {
		l, ok := parseLog(value)
		broken = broken || !ok || l.number < from || l.number > to
		list = append(list, l)
		return !broken
	}) || broken {
		return nil, fmt.Errorf("backend %s: eth_getLogs: no list of logs", s.member.Name())
	}
	return list, nil
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
				select {
				case s.events <- event{nil, h.raw}:
				default:
					s.end(errOverflow)
					return
				}
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
