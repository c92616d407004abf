package filters

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

// adopt gives the filters that backends have made their ids here. Where none was
// made, the answer stays what it is and the place is free again.
func (f *Filters) adopt(made []*jsonrpc.Call) {
	for _, c := range made {
		if c.Answer == nil || c.Answer.Error != nil {
			f.ledger.release(c.Client.Key)
			continue
		}
		id, ok := f.tags.encode(c.Answer.Backend, c.Answer.Result)
		if !ok { // an id that leads nowhere helps nobody
			f.ledger.release(c.Client.Key)
			c.Err = fmt.Errorf("%s: backend %q gave an id that cannot be passed on", c.Method, c.Answer.Backend)
			c.Answer = nil
			continue
		}
		answer := *c.Answer // others may share it
		answer.Result = []byte(`"` + id + `"`)
		c.Answer = &answer
		f.ledger.keep(id, c.Client.Key, nil, 0)
	}
}

// forward asks the filter's backend, and nobody else. The client's call stays as it
// is: its params hold an id that only the gateway knows.
func (f *Filters) forward(ctx context.Context, s step, next jsonrpc.Handler) {
	c := s.call
	f.ledger.use(s.id)
	inner := &jsonrpc.Call{
		Method: c.Method, Params: []byte("[" + s.at.id + "]"), ID: c.ID,
		Row: c.Row, Label: c.Label, Epoch: c.Epoch, Client: c.Client,
		Only:      s.at.backend,
		MayStream: c.MayStream && c.Method != uninstall,
	}
	next.ServeRPC(ctx, []*jsonrpc.Call{inner})
	c.Answer, c.Err = inner.Answer, inner.Err
	if isAway(c.Err) {
		c.Err = nil
		answerUnknown(c)
		return
	}
	if a := c.Answer; a != nil && (c.Method == uninstall && a.Error == nil || bytes.Contains(a.Error, []byte("filter not found"))) {
		f.ledger.drop(s.id) // the node has it no more, whether it says true or false
	}
}

// isAway reports whether a call failed because no connection to the backend came about
// or held. Then a filter is as good as gone: clients make another one when they are told
// so, and wait for ever when they are told to come again.
func isAway(err error) bool {
	var nobody *group.Unserviceable
	if !errors.As(err, &nobody) {
		return false
	}
	away := false
	for _, reason := range nobody.Reasons {
		var failed *backend.Error
		if !errors.As(reason, &failed) {
			continue // what the group says besides
		}
		if failed.Kind != backend.Refused && failed.Kind != backend.Network {
			return false
		}
		away = true
	}
	return away
}
