package subscribe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gateway.internal/proxyd/backend"
)

// errGap is a gap that no fetching closes.
type errGap struct{ reason string }

func (e errGap) Error() string { return e.reason }

// errMoved says that the chain changed while it was being fetched.
var errMoved = errors.New("the chain changed while it was fetched")

// overlap is how many blocks before the last head logs are fetched again: a backend
// may have told of a block's head before its logs.
const overlap = 3

// fetching says what is fetched besides blocks.
type fetching uint8

const (
	// newLogs are those of blocks that are new to clients.
	newLogs fetching = iota
	// allLogs are those of the last blocks that clients know, too: the source before
	// may not have told of all of them.
	allLogs
)

// reach brings what clients were told to a head that does not simply follow: it
// fetches the blocks between, finds where the branches part if the chain was
// reorganised, and the logs. Only when all is here is anything
// told: heads in order, then for each feed of logs those that are gone, and the new
// ones.
func (f *follower) reach(ctx context.Context, s *source, h head, what fetching) error {
	ctx, cancel := context.WithTimeout(ctx, f.opts.ReplayTimeout)
	defer cancel()
	for try := 0; ; try++ {
		err := f.tryReach(ctx, s, h, what, try == mostTries)
		if !errors.Is(err, errMoved) || try == mostTries {
			return err
		}
		select { // a node that just switched branches may need a moment
		case <-time.After(100 * time.Millisecond << try):
		case <-ctx.Done():
			return err
		}
		if h, err = s.mark(ctx); err != nil {
			return err
		}
		what = max(what, f.after(s)) // the events before are not taken any more
	}
}

// mostTries is how often a gap is fetched again because the chain changes meanwhile, or
// logs are refused, which a node may do that does not know its own head yet.
const mostTries = 3

// after says what has to be fetched with a head that the events before do not count for.
func (f *follower) after(s *source) fetching {
	if s.polls() {
		return newLogs
	}
	return allLogs
}

func (f *follower) tryReach(ctx context.Context, s *source, h head, what fetching, last bool) error {
	path, err := f.path(ctx, s, h)
	if err != nil {
		return err
	}
	// The chain as it will be, to check logs against.
	next := blocks{most: f.chain.most + len(path), list: slices.Clone(f.chain.list)}
	before, _ := f.chain.tip()
	for _, b := range path {
		next.push(b.block)
	}
	was := blocks{list: slices.Clone(f.chain.list)}
	parted := h.number // the last block that stays
	if len(path) > 0 {
		parted = max(path[0].number, 1) - 1
	}
	from := parted
	if what == allLogs {
		from = min(from, max(before.number, overlap)-overlap)
	}
	replays, err := f.fetchLogs(ctx, s, &next, from, last)
	if err != nil {
		return err
	}
	for _, b := range path {
		f.tellHead(s, b)
	}
	for _, r := range replays {
		if r.failed == nil {
			r.tell(f, s, &was, &next)
		} else {
			f.refusedLogs(s, &r)
		}
	}
	return nil
}

// path returns the blocks from the one whose parent clients know up to h, oldest
// first; none when they know h.
func (f *follower) path(ctx context.Context, s *source, h head) ([]head, error) {
	tip, ok := f.chain.tip()
	if !ok || f.chain.has(h.block) || f.chain.precedes(h.block) && s.joined {
		return nil, nil
	}
	if h.number > tip.number && h.number-tip.number > uint64(f.opts.ReplayBlocks) {
		return nil, errGap{fmt.Sprintf("%d blocks were missed, and at most %d are fetched", h.number-tip.number, f.opts.ReplayBlocks)}
	}
	back := []head{h} // newest first
	if h.number > tip.number+1 {
		between, err := f.between(ctx, s, tip.number+1, h.number-1)
		if err != nil {
			return nil, err
		}
		for i := len(between) - 1; i >= 0; i-- {
			if between[i].hash != back[len(back)-1].parent {
				return nil, errMoved
			}
			back = append(back, between[i])
		}
	}
	for {
		oldest := back[len(back)-1]
		if f.chain.follows(oldest.block) || f.chain.begins(oldest.block) {
			break
		}
		if len(back) > f.chain.most || oldest.number <= f.chain.list[0].number {
			return nil, errGap{fmt.Sprintf("the chain was reorganised deeper than the last %d blocks that are remembered", len(f.chain.list))}
		}
		parent, err := s.hashed(ctx, oldest.parent)
		if err != nil {
			return nil, fmt.Errorf("the parent of block %d: %w", oldest.number, err)
		}
		if parent.number != oldest.number-1 {
			return nil, fmt.Errorf("the parent of block %d has number %d", oldest.number, parent.number)
		}
		back = append(back, parent)
	}
	slices.Reverse(back)
	return back, nil
}

// fetchesAtOnce bounds the calls in flight while a gap is closed.
const fetchesAtOnce = 8

// between fetches blocks by number.
func (f *follower) between(ctx context.Context, s *source, from, to uint64) ([]head, error) {
	list := make([]head, to-from+1)
	return list, atOnce(len(list), fetchesAtOnce, func(i int) (err error) {
		list[i], err = s.numbered(ctx, from+uint64(i))
		return err
	})
}

// atOnce runs do for 0 to n-1, at most so many at the same time, and returns the first
// error.
func atOnce(n, most int, do func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	turns := make(chan struct{}, most)
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			defer func() {
				if v := recover(); v != nil {
					errs[i] = fmt.Errorf("internal error: %v", v)
				}
			}()
			errs[i] = do(i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// logsReplay are the logs of one feed in the fetched range.
type logsReplay struct {
	feed   *feed
	from   uint64
	logs   []logEvent
	failed error // the backend will not tell them
}

// fetchLogs fetches for each feed of logs what lies behind a block. What a backend
// does not tell one feed is no other's loss; last says that it is not asked again.
func (f *follower) fetchLogs(ctx context.Context, s *source, next *blocks, behind uint64, last bool) ([]logsReplay, error) {
	tip, _ := next.tip()
	var replays []logsReplay
	for fd := range s.served {
		if fd.kind != logs {
			continue
		}
		from := behind
		if fd.told.back > 0 && !s.joined {
			from = min(from, fd.told.back-1)
		}
		if fd.refusals > 0 {
			from = min(from, fd.unread)
		}
		replays = append(replays, logsReplay{feed: fd, from: max(from, fd.since, fd.told.floor) + 1})
	}
	_ = atOnce(len(replays), subscribesAtOnce, func(i int) error {
		r := &replays[i]
		if r.from > tip.number {
			return nil
		}
		r.failed = errors.New("internal error") // unless this comes to its end
		r.logs, r.failed = s.logsBetween(ctx, r.feed, r.from, tip.number, next)
		for _, l := range r.logs {
			if known, ok := next.at(l.number); ok && known.hash != l.hash {
				r.failed = errMoved
			}
		}
		return nil
	})
	return replays, f.judge(s, replays, last)
}

// judge says whether what could not be fetched is the source's failure. Otherwise it is
// a filter's own: one that asks for too much, or for what takes too long.
func (f *follower) judge(s *source, replays []logsReplay, last bool) error {
	var refused, silent error // the last of each
	unanswered := 0
	for i := range replays {
		var rpc *backend.RPCError
		switch err := replays[i].failed; {
		case err == nil:
		case errors.Is(err, errMoved):
			return err
		case errors.As(err, &rpc), backend.IsTooLarge(err):
			refused = err
		default:
			silent = err
			unanswered++
		}
	}
	switch {
	case refused == nil && silent == nil:
		return nil
	case refused != nil && !last: // a node may not know its own head yet
		return fmt.Errorf("%w: %w", errMoved, refused)
	case s.isLost(), !s.joined && f.waits == 0, s.joined && !s.polls(): // others may tell them
		return cmp.Or(silent, refused)
	case silent != nil && (s.joined || f.waits < mostRounds && 2*unanswered >= len(replays)):
		return silent
	}
	return nil
}

// refusedLogs is about a feed whose logs a backend will not tell. Where every new block's
// are fetched, the next ones bring these along, a few times; else they are lost.
func (f *follower) refusedLogs(s *source, r *logsReplay) {
	fd := r.feed
	if fd.refusals++; fd.refusals == 1 {
		fd.unread = r.from - 1
	}
	if s.polls() && fd.refusals < pollFailures {
		return
	}
	fd.refusals = 0
	f.opts.Log.Warn("backend does not tell the logs of a filter", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "error", short(r.failed))
	f.gap("the backend did not tell the logs of a filter", fd)
}

// tell passes the logs on: first those whose blocks are gone, as a node that
// reorganises does.
func (r *logsReplay) tell(f *follower, s *source, before, chain *blocks) {
	r.feed.refusals, r.feed.told.back = 0, 0
	f.takeBack(s, r.feed, r.feed.told.orphans(before, chain, s.number, true))
	for _, l := range r.logs {
		if f.isNews(s, r.feed, l) {
			f.replayed(logs)
			r.feed.emit(l.raw, s.member.Name())
		}
	}
}
