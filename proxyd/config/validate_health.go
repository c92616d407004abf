package config

import (
	"slices"
	"time"
)

// health checks [health] and [retry_budget].
func (v *validator) health() {
	if h, at := v.c.Health, (path{"health"}); h != nil {
		if h.Interval < 0 || h.Interval > 0 && h.Interval < Duration(time.Second) {
			v.fault(at.with("interval"), "must be at least 1s, or 0 to check only backends that failed")
		}
		if len(h.Checks) == 0 {
			v.fault(at.with("checks"), "must name at least one method: leave it out for the default")
		}
		for i, method := range h.Checks {
			v.ownCall(at.with("checks", index(i)), method)
		}
		atLeast(v, at.with("failure_threshold"), h.FailureThreshold, 1)
		atLeast(v, at.with("success_threshold"), h.SuccessThreshold, 1)
		atLeast(v, at.with("concurrency"), h.Concurrency, 1)
		atLeast(v, at.with("ephemeral_interval"), h.EphemeralInterval, Duration(time.Second))
		atLeast(v, at.with("ephemeral_healthy_threshold"), h.EphemeralHealthyThreshold, 1)
	}
	v.retryBudget(path{"retry_budget"}, v.c.RetryBudget)
}

func (v *validator) retryBudget(at path, r *RetryBudget) {
	if r == nil {
		return
	}
	notNegative(v, at.with("ratio"), r.Ratio)
	notNegative(v, at.with("min_per_second"), r.MinPerSecond)
	if r.Ratio > 1 {
		v.fault(at.with("ratio"), "must be at most 1, which is a retry for every call")
	}
}

// checks reports whether [health] asks a method.
func (v *validator) checks(method string) bool {
	return v.c.Health != nil && slices.Contains(v.c.Health.Checks, method)
}

// watchesHeads reports whether the backends' heads are known.
func (v *validator) watchesHeads() bool {
	return v.checks("eth_blockNumber") && v.c.Health.Interval > 0
}

func (v *validator) recovery(at path, r *Recovery) {
	if r == nil {
		return
	}
	atLeast(v, at.with("backoff_multiplier"), r.BackoffMultiplier, 1)
	if r.InitialBackoff <= 0 {
		v.fault(at.with("initial_backoff"), "must be longer than zero")
	}
	if r.MaxBackoff < r.InitialBackoff && !v.touchesUnread(at) {
		v.fault(at.with("max_backoff"), "is %s, which is shorter than initial_backoff, %s: make one of them fit", r.MaxBackoff, r.InitialBackoff)
	}
	atLeast(v, at.with("max_retries"), r.MaxRetries, 1)
	atLeast(v, at.with("required_successes"), r.RequiredSuccesses, 1)
	if r.ResetAfter <= 0 {
		v.fault(at.with("reset_after"), "must be longer than zero")
	}
}
