package main

import (
	"encoding/json"
	"fmt"
)

// counted is how many requests were made and how many came to each upstream
// until some moment.
type counted struct {
	asked    uint64
	upstream []int
}

// count asks the upstreams for their counts; it is nil when they are not wanted.
func (o *options) count() (*counted, error) {
	if o.counts == "" {
		return nil, nil
	}
	text, err := fetch("http://" + o.counts + "/requests")
	if err != nil {
		return nil, fmt.Errorf("counts of the upstreams: %w", err)
	}
	c := &counted{asked: o.calls.sequence.Load() / uint64(max(o.calls.batch, 1))}
	if err := json.Unmarshal(text, &c.upstream); err != nil {
		return nil, fmt.Errorf("counts of the upstreams: %w", err)
	}
	return c, nil
}

// since is what came between two counts.
func (c *counted) since(before *counted) (asked int, upstream []int) {
	if c == nil || before == nil {
		return 0, nil
	}
	for i, n := range c.upstream {
		upstream = append(upstream, n-before.upstream[i])
	}
	return int(c.asked - before.asked), upstream
}
