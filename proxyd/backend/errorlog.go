package backend

import (
	"context"
	"log/slog"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// maxLogged is how much of a provider's message goes into a line, in bytes.
const maxLogged = 300

// logError writes about a JSON-RPC error: a warning where the backend is at
// fault, a debug line where the client is.
func (a *Attempt) logError(c *jsonrpc.Call, status int, r *Result, message string) {
	level := slog.LevelDebug
	if r.Outcome.Sick || r.Outcome.Hold != classify.None || r.Outcome.Class == "unknown" {
		level = slog.LevelWarn
	}
	a.log(level, "backend answered an error", c, a.Backend.labels.label(r.Answer.Code),
		"class", r.Outcome.Class, "status", status, "message", truncate(a.Backend.redact.text(message)))
}

// logFailure writes about an attempt that brought no answer for n calls.
func (a *Attempt) logFailure(c *jsonrpc.Call, r *Result, n int) {
	level := slog.LevelDebug
	if r.Outcome.Sick || r.Outcome.Hold != classify.None {
		level = slog.LevelWarn
	}
	a.log(level, "attempt failed", c, r.Err.Kind.String(),
		"class", r.Outcome.Class, "status", r.Err.HTTP, "calls", n, "error", truncate(r.Err.Error()))
}

func (a *Attempt) log(level slog.Level, message string, c *jsonrpc.Call, code string, attrs ...any) {
	b := a.Backend
	if a.try.Own || !b.opts.Log.Enabled(context.Background(), level) {
		return
	}
	ok, dropped := b.lines.Allow(c.Label, code)
	if !ok {
		return
	}
	attrs = append(attrs, "backend", b.opts.Name, "method", c.Label, "code", code, "duration_ms", time.Since(a.started).Milliseconds())
	if c.Client != nil {
		attrs = append(attrs, "req_id", c.Client.RequestID, "auth", c.Client.Auth)
	}
	if dropped > 0 {
		attrs = append(attrs, "lines_dropped_before", dropped)
	}
	b.opts.Log.Log(context.Background(), level, message, attrs...)
}

func truncate(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return s[:maxLogged] + "…"
}
