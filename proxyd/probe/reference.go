package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

const (
	referenceTimeout = 5 * time.Second
	// maxReferenceBody is the largest answer of a reference, in bytes.
	maxReferenceBody = 64 << 10
	// maxReferenceLag is how many blocks a group may be behind its reference, and
	// looksBehind for how many looks in a row it must be further, to be told of.
	maxReferenceLag = 10
	looksBehind     = 2
)

// reference looks at a node outside a group.
type reference struct {
	p      *Prober
	r      Reference
	client *http.Client
	looks  []look // the last ones, back to the oldest head that counts
	behind int    // looks in a row
	warned bool
}

// look is the head that the node had at a time.
type look struct {
	at   time.Time
	head uint64
}

func newReference(p *Prober, r Reference) *reference {
	r.Interval = orElse(r.Interval, 30*time.Second)
	return &reference{p: p, r: r, client: newClient(nil, nil)}
}

func (r *reference) about() slog.Attr { return slog.String("group", r.r.Group) }

func (r *reference) run(ctx context.Context) {
	for next := time.Now(); r.p.sleep(ctx, time.Until(next)); {
		begun := time.Now()
		r.look(ctx)
		next = after(begun, time.Now(), jitter(r.r.Interval))
	}
	r.client.CloseIdleConnections()
}

// look asks the node once and compares.
func (r *reference) look(ctx context.Context) {
	head, err := r.ask(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		r.p.o.Metrics.referenceFailed(r.r.Group)
		r.p.o.Log.Debug("no answer of the reference", "group", r.r.Group, "error", err)
		return
	}
	now := time.Now()
	r.p.o.Metrics.referenceHead(r.r.Group, head)
	r.looks = append(r.looks, look{now, head})
	for oldest := now.Add(-r.fresh()); len(r.looks) > 1 && r.looks[1].at.Before(oldest); {
		r.looks = r.looks[1:]
	}
	lag, known := r.lag(now)
	r.p.o.Metrics.referenceLag(r.r.Group, lag, known)
	switch {
	case known && lag > maxReferenceLag:
		if r.behind++; r.behind >= looksBehind && !r.warned {
			r.warned = true
			r.p.o.Log.Warn("all backends of the group are behind the reference", "group", r.r.Group, "blocks", lag)
		}
	case known && r.warned:
		r.behind, r.warned = 0, false
		r.p.o.Log.Info("backends of the group have reached the reference", "group", r.r.Group, "blocks", lag)
	default:
		r.behind = 0
	}
}

// fresh is how old a member's head may be to be compared: two rounds of checks.
func (r *reference) fresh() time.Duration {
	return 2*max(r.p.o.Interval, r.r.Interval) + 10*time.Second
}

// lag is by how many blocks the best member is behind. A head is compared with
// the reference's at the moment at which it was seen: a chain that makes many
// blocks between two checks is not behind for that. known is false when no
// member's head is fresh.
func (r *reference) lag(now time.Time) (blocks uint64, known bool) {
	for _, m := range r.r.Members {
		head, seen := m.Head()
		if seen.IsZero() || now.Sub(seen) > r.fresh() {
			continue
		}
		behind := uint64(0)
		if there := r.headAt(seen); there > head {
			behind = there - head
		}
		if !known || behind < blocks {
			blocks, known = behind, true
		}
	}
	return blocks, known
}

// headAt is the reference's head at a time: between two looks as if it grew
// steadily, outside them the nearest.
func (r *reference) headAt(t time.Time) uint64 {
	for i, b := range r.looks {
		if b.at.Before(t) {
			continue
		}
		if i == 0 || b.head < r.looks[i-1].head {
			return b.head
		}
		a := r.looks[i-1]
		return a.head + uint64(float64(b.head-a.head)*float64(t.Sub(a.at))/float64(b.at.Sub(a.at)))
	}
	return r.looks[len(r.looks)-1].head
}

// ask returns the node's head. Its errors hold no URL.
func (r *reference) ask(ctx context.Context) (head uint64, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.p.o.Log.Error("panic in a look at a reference", "group", r.r.Group, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, referenceTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.r.URL, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}`))
	if err != nil {
		return 0, errors.New("its address is not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "proxyd-probe")
	res, err := r.client.Do(req)
	if err != nil {
		return 0, errors.New(why(err, "connection failed"))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReferenceBody+1))
	switch {
	case err != nil:
		return 0, errors.New(why(err, "body broke off"))
	case len(body) > maxReferenceBody:
		return 0, fmt.Errorf("answer larger than %d bytes", maxReferenceBody)
	}
	reply, err := jsonrpc.ParseReply(body)
	if err != nil {
		return 0, err
	}
	if head, ok := backend.Quantity(reply.Result); ok {
		return head, nil
	}
	return 0, errors.New("no block number")
}
