package group

import (
	"slices"
	"sync"
	"time"
)

const (
	usageWindow = 24 * time.Hour
	usageBucket = 5 * time.Minute
	// away is how long a member must have been left out, while others were
	// asked, to be eased in when it returns.
	away = 10 * time.Second
)

// leastUsed asks the member with the fewest calls in the last 24 hours first, and
// equals in turn (Ætherlay). A member that was away begins where the least used
// of the others stands, so that it does not get every call until it has caught
// up. With weighted routing a call weighs the less the greater the weight.
type leastUsed struct {
	weighted bool

	mu    sync.Mutex
	of    map[*Member]*usage
	turn  int
	order []usageKey // room for Arrange
}

type usageKey struct {
	*Member
	used float64
	turn int
}

// usage counts calls in buckets over the window.
type usage struct {
	buckets  [usageWindow / usageBucket]float64
	total    float64
	last     int64     // number of the newest bucket
	seen     time.Time // when the member could last be asked
	credited bool      // it has been among the members once
}

func newLeastUsed(o Options) Strategy {
	return &leastUsed{weighted: o.Weighted, of: make(map[*Member]*usage)}
}

func (l *leastUsed) get(m *Member) *usage {
	u := l.of[m]
	if u == nil {
		u = new(usage)
		l.of[m] = u
	}
	return u
}

func (u *usage) advance(now time.Time) {
	bucket := now.UnixNano() / int64(usageBucket)
	if bucket-u.last >= int64(len(u.buckets)) {
		clear(u.buckets[:])
		u.total, u.last = 0, bucket
	}
	for u.last < bucket {
		u.last++
		old := &u.buckets[u.last%int64(len(u.buckets))]
		u.total -= *old
		*old = 0
	}
}

func (u *usage) add(calls float64, now time.Time) {
	u.advance(now)
	u.buckets[u.last%int64(len(u.buckets))] += calls
	u.total += calls
}

func (l *leastUsed) Arrange(members []*Member, ask Ask) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ask.Peek {
		l.easeIn(members, now)
		l.turn++
	}
	l.order = l.order[:0]
	for i, m := range members {
		l.order = append(l.order, usageKey{m, l.get(m).total / m.share(l.weighted), (i + l.turn) % len(members)})
	}
	slices.SortFunc(l.order, func(a, b usageKey) int {
		switch {
		case a.used < b.used:
			return -1
		case a.used > b.used:
			return 1
		}
		return a.turn - b.turn
	})
	for i, k := range l.order {
		members[i] = k.Member
	}
}

// easeIn credits members that come back, or come late, with the calls of the
// least used of those that were there all the time.
func (l *leastUsed) easeIn(members []*Member, now time.Time) {
	least, any := 0.0, false
	for _, m := range members {
		u := l.get(m)
		u.advance(now)
		if used := u.total / m.share(l.weighted); u.credited && now.Sub(u.seen) < away && (!any || used < least) {
			least, any = used, true
		}
	}
	for _, m := range members {
		u := l.get(m)
		if wasAway := !u.credited || now.Sub(u.seen) >= away; wasAway && any {
			if missing := least*m.share(l.weighted) - u.total; missing > 0 {
				u.add(missing, now)
			}
		}
		u.seen, u.credited = now, true
	}
}

// asked counts calls that were sent to m.
func (l *leastUsed) asked(m *Member, calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.get(m).add(float64(calls), time.Now())
}

func (*leastUsed) Spreads() bool { return true }
