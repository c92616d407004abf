package group

import (
	"slices"
	"sync"
	"time"

	"gateway.internal/proxyd/backend"
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
	buckets [usageWindow / usageBucket]float64
	total   float64
	last    int64     // number of the newest bucket
	seen    time.Time // when the member could last be asked in its turn
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
	turn := l.turn + 1
	if !ask.Peek {
		l.easeIn(members, now)
		l.turn = turn
	}
	l.order = l.order[:0]
	for i, m := range members {
		l.order = append(l.order, usageKey{m, l.get(m).total / m.share(l.weighted), (i + turn) % len(members)})
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
// least used of those that were there all the time: until the last call that any
// of them was there for, however long ago that is.
func (l *leastUsed) easeIn(members []*Member, now time.Time) {
	var latest time.Time
	for _, m := range members {
		u := l.get(m)
		u.advance(now)
		if u.seen.After(latest) {
			latest = u.seen
		}
	}
	wasThere := func(u *usage) bool { return !u.seen.IsZero() && latest.Sub(u.seen) < away }
	least, found := 0.0, false
	for _, m := range members {
		if u := l.of[m]; wasThere(u) {
			if used := u.total / m.share(l.weighted); !found || used < least {
				least, found = used, true
			}
		}
	}
	for _, m := range members {
		u := l.of[m]
		if found && !wasThere(u) {
			if missing := least*m.share(l.weighted) - u.total; missing > 0 {
				u.add(missing, now)
			}
		}
		// One that is tried, or stands behind others for its state, is as good as
		// away.
		if s := m.StandingAt(now); s.State == backend.Well && s.Share >= 1 {
			u.seen = now
		}
	}
}

// asked counts calls that were sent to m.
func (l *leastUsed) asked(m *Member, calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.get(m).add(float64(calls), time.Now())
}

func (*leastUsed) Spreads() bool { return true }
