package backend

import (
	"context"
	"errors"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

type earlyNotification struct {
	id     string
	result []byte
}

// isSubscriptionID reports whether a result is a string or a number of reasonable length.
func isSubscriptionID(result []byte) bool {
	return len(result) > 0 && len(result) <= 256 && (result[0] == '"' || result[0] >= '0' && result[0] <= '9')
}

// Subscribe makes a subscription with the method eth_subscribe. taken gets the result
// of each notification, from the first one on, in order; it is called by the goroutine
// that reads the socket and must not wait. A nil result says that the backend has ended the
// subscription. The id is the backend's, for Unsubscribe.
func (s *Socket) Subscribe(ctx context.Context, params string, taken func(result []byte)) (id string, err error) {
	s.mu.Lock()
	s.asking++
	s.mu.Unlock()
	result, err := s.ask(ctx, "eth_subscribe", params, func(result []byte) {
		id := string(result)
		s.subs[id] = taken
		delete(s.ended1, id)
		delete(s.ended2, id)
		s.early = slices.DeleteFunc(s.early, func(n earlyNotification) bool { // some notify before they answer
			if n.id == id {
				taken(n.result)
			}
			return n.id == id
		})
	}, func(result []byte) { s.unsubscribeLocked(string(result)) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking--; s.asking == 0 {
		s.early = nil
	}
	return string(result), err
}

// Unsubscribe ends a subscription. Nothing is taken any more when it returns; the
// backend is told without waiting for its answer.
func (s *Socket) Unsubscribe(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[id]; ok {
		delete(s.subs, id)
		s.unsubscribeLocked(id)
	}
}

// unsubscribeLocked tells the backend that a subscription is over. The caller holds the
// lock.
func (s *Socket) unsubscribeLocked(id string) {
	if s.err != nil {
		return
	}
	select {
	case s.out <- jsonrpc.AppendRequest(nil, &jsonrpc.Call{Method: "eth_unsubscribe", Params: []byte("[" + id + "]")}, s.b.nextIDs(1)):
	default: // what it still notifies of is dropped
	}
	if len(s.ended1) == maxEnded {
		s.ended1, s.ended2 = make(map[string]bool), s.ended1
	}
	s.ended1[id] = true
}

// maxEnded is how many ended subscriptions are remembered at least, and twice that at
// most, so that their last notifications are told apart from early ones.
const maxEnded = 10_000

var errEarly = errors.New("too many notifications of subscriptions that were not answered yet")

// earlyBytes is the size of what is kept of early notifications.
func (s *Socket) earlyBytes() (n int) {
	for _, e := range s.early {
		n += len(e.result)
	}
	return n
}

// notify gives a notification to its subscription.
func (s *Socket) notify(id string, result []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch taken := s.subs[id]; {
	case taken != nil:
		taken(result)
	case s.asking == 0 || s.ended1[id] || s.ended2[id]:
	case len(s.early) == maxEarly || s.earlyBytes()+len(result) > maxEarlyBytes: // one of them may be lost
		return errEarly
	default:
		s.early = append(s.early, earlyNotification{id, result})
	}
	return nil
}
