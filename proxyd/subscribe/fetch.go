package subscribe

import (
	"context"
	"errors"
	"fmt"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// ask makes a call where the events come from, so that both speak of the same node.
func (s *source) ask(ctx context.Context, method, params string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.CallTimeout)
	defer cancel()
	if s.socket != nil {
		return s.socket.Ask(ctx, method, params)
	}
	reply := s.member.OwnLarge(ctx, method, params, s.opts.CallTimeout)
	return reply.Result, reply.Err
}

// mark is latest, and makes what the source told of before its answer old news: it is
// told in the order in which it came, and the head is the later word.
func (s *source) mark(ctx context.Context) (head, error) {
	if s.polls() {
		return s.latest(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.CallTimeout)
	defer cancel()
	raw, err := s.socket.AskThen(ctx, "eth_getBlockByNumber", `["latest",false]`, func() { s.queue(event{mark: true}) })
	if err != nil {
		return head{}, err
	}
	s.marks++
	return s.asHead(raw, "the latest")
}

// latest returns the source's head, as a whole block.
func (s *source) latest(ctx context.Context) (head, error) {
	return s.header(ctx, "eth_getBlockByNumber", `["latest",false]`)
}

// numbered returns the block with a number.
func (s *source) numbered(ctx context.Context, number uint64) (head, error) {
	h, err := s.header(ctx, "eth_getBlockByNumber", fmt.Sprintf(`["0x%x",false]`, number))
	if err == nil && h.number != number {
		err = fmt.Errorf("backend %s: asked for block %d, got %d", s.member.Name(), number, h.number)
	}
	return h, err
}

// hashed returns the block with a hash, a JSON string.
func (s *source) hashed(ctx context.Context, hash string) (head, error) {
	h, err := s.header(ctx, "eth_getBlockByHash", `[`+hash+`,false]`)
	if err == nil && h.hash != hash {
		err = fmt.Errorf("backend %s: asked for block %s, got %s", s.member.Name(), hash, h.hash)
	}
	return h, err
}

func (s *source) header(ctx context.Context, method, params string) (head, error) {
	raw, err := s.ask(ctx, method, params)
	if err != nil {
		return head{}, err
	}
	return s.asHead(raw, params)
}

func (s *source) asHead(raw []byte, which string) (head, error) {
	h, ok := parseHead(raw)
	if !ok {
		return head{}, fmt.Errorf("backend %s: block %s: not there, or no block", s.member.Name(), which)
	}
	h.whole = true
	return h, nil
}

// logsBetween returns the logs of a filter in a range of a chain's blocks. Those of one
// block are asked for by its hash: behind one URL may stand several nodes, and one that
// does not know the block yet says so, where it would take a range for empty. A range that
// is refused, or whose logs are too many, is halved.
func (s *source) logsBetween(ctx context.Context, f *feed, from, to uint64, chain *blocks) ([]logEvent, error) {
	params := fmt.Sprintf(`[{"fromBlock":"0x%x","toBlock":"0x%x"%s}]`, from, to, f.members)
	if one, ok := chain.at(from); ok && from == to {
		params = fmt.Sprintf(`[{"blockHash":%s%s}]`, one.hash, f.members)
	}
	raw, err := s.ask(ctx, "eth_getLogs", params)
	var refused *backend.RPCError
	if (errors.As(err, &refused) || backend.IsTooLarge(err)) && from < to {
		middle := from + (to-from)/2
		first, err := s.logsBetween(ctx, f, from, middle, chain)
		if err != nil {
			return nil, err
		}
		second, err := s.logsBetween(ctx, f, middle+1, to, chain)
		return append(first, second...), err
	}
	if err != nil {
		return nil, err
	}
	var list []logEvent
	broken := false
	if !jsonrpc.Elements(raw, func(value []byte) bool {
		l, ok := parseLog(value)
		broken = broken || !ok || l.number < from || l.number > to
		list = append(list, l)
		return !broken
	}) || broken {
		return nil, fmt.Errorf("backend %s: eth_getLogs: no list of logs", s.member.Name())
	}
	return list, nil
}
