package probe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// maxProbeBody is how much is read of the answer to a probe, in bytes.
const maxProbeBody = 64 << 10

// getter asks for one backend's probe_url, by GET as the incumbent does.
type getter struct {
	p      *Prober
	t      Target
	client *http.Client
	streak streak
	seen   func() // the first probe is over
}

func newGetter(p *Prober, t Target) *getter {
	t.Period = orElse(t.Period, 4*time.Second)
	t.Timeout = orElse(t.Timeout, time.Second)
	g := &getter{p: p, t: t, client: newClient(t.Client, t.TLS), seen: p.seen()}
	g.streak = streak{failAfter: orElse(t.FailureThreshold, 1), passAfter: orElse(t.SuccessThreshold, 2)}
	p.o.Metrics.probeHealthy(t.Backend.Name(), true)
	return g
}

func (g *getter) about() slog.Attr { return slog.String("backend", g.t.Backend.Name()) }

func (g *getter) run(ctx context.Context) {
	for next := time.Now().Add(part(g.t.Period)); g.p.sleep(ctx, time.Until(next)); {
		begun := time.Now()
		g.probe(ctx)
		g.seen()
		next = after(begun, time.Now(), g.t.Period)
	}
	g.client.CloseIdleConnections()
}

// probe makes one probe and notes its outcome.
func (g *getter) probe(ctx context.Context) {
	begun := time.Now()
	reason := g.get(ctx)
	if ctx.Err() != nil {
		return // the gateway itself ended it
	}
	name := g.t.Backend.Name()
	g.p.o.Metrics.probed(name, time.Since(begun), reason == "")
	turned := g.streak.add(reason == "")
	switch {
	case g.streak.unfit && reason != "":
		g.t.Backend.Unfit("probe", reason)
	case turned:
		g.t.Backend.Unfit("probe", "")
	}
	g.p.o.Metrics.probeHealthy(name, !g.streak.unfit)
}

// get asks once and returns why that failed, "" for a 2xx whose body came.
func (g *getter) get(ctx context.Context) (reason string) {
	defer func() {
		if v := recover(); v != nil {
			g.p.o.Log.Error("panic in a probe", "backend", g.t.Backend.Name(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			reason = "internal error"
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, g.t.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.t.URL, nil)
	if err != nil {
		return "probe_url is not a URL"
	}
	req.Close = true
	req.Header.Set("User-Agent", "proxyd-probe")
	req.Header.Set("Accept", "*/*")
	res, err := g.client.Do(req)
	if err != nil {
		return why(err, "connection failed")
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Sprintf("status %d", res.StatusCode)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxProbeBody)); err != nil {
		return why(err, "body broke off")
	}
	return ""
}
