package backend

import (
	"errors"
	"net/http"
	"sync"

	"gateway.internal/proxyd/jsonrpc"
)

// refusal says why a backend did not look at a batch.
type refusal uint8

const (
	notRefused refusal = iota
	// tooMuch: the body was too large for it, which says nothing about how many
	// small calls it takes.
	tooMuch
	// tooMany: it takes fewer calls at once, or no batches at all.
	tooMany
)

// ask asks for calls, in as many parts as the backend is known to need.
func (a *Attempt) ask(calls []*jsonrpc.Call, results []Result) {
	var parts [][]*jsonrpc.Call
	if a.begun == nil && !a.Backend.batchCap.takes(len(calls)) {
		parts = a.Backend.batchCap.split(calls)
	} else {
		switch a.post(calls, results) {
		case notRefused:
			return
		case tooMuch:
			parts = [][]*jsonrpc.Call{calls[:len(calls)/2], calls[len(calls)/2:]}
		case tooMany:
			a.Backend.batchCap.refused(len(calls))
			parts = a.Backend.batchCap.split(calls)
		}
	}
	clear(results)
	const atOnce = 8
	var wg sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	from := 0
	for _, part := range parts {
		results := results[from : from+len(part)]
		from += len(part)
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			defer func() {
				if p := recover(); p != nil {
					a.fail(part, results, &Error{Backend: a.Backend.opts.Name, Kind: Invalid, Wrote: true, cause: errors.New("internal error")})
				}
			}()
			a.ask(part, results)
		})
	}
	wg.Wait()
}

// post makes one HTTP exchange. It reports whether the backend refused the batch
// as a batch.
func (a *Attempt) post(calls []*jsonrpc.Call, results []Result) refusal {
	x, first := a.exchange(calls)
	reply, e := a.roundTrip(x, calls, first)
	if e != nil {
		a.fail(calls, results, e)
		return notRefused
	}
	refused := a.read(reply, calls, results, first)
	if refused == tooMuch && x.size() < smallBody {
		refused = tooMany
	}
	return refused
}

// smallBody is a request body in bytes that is too large for nobody.
const smallBody = 4 << 10

// read gives what came back to the calls.
func (a *Attempt) read(reply *reply, calls []*jsonrpc.Call, results []Result, first uint64) refusal {
	if reply.stream != nil {
		results[0] = Result{Answer: &jsonrpc.Answer{Stream: reply.stream, Backend: a.Backend.opts.Name, Group: a.try.Group}}
		a.stream = reply.stream
		return notRefused
	}
	if !a.Backend.allowed(reply.status) {
		return a.readFailure(reply, calls, results, first)
	}
	if len(calls) == 1 {
		r, err := jsonrpc.ParseReply(reply.body)
		a.readOne(reply, calls[0], &results[0], r, first, err)
		return notRefused
	}
	replies, single, err := jsonrpc.ParseReplies(reply.body, len(calls))
	switch {
	case err != nil && reply.status == http.StatusRequestEntityTooLarge:
		return tooMuch
	case err != nil:
		a.fail(calls, results, a.invalid(reply, err))
		return notRefused
	case single:
		return a.readSingle(reply, calls, results, replies[0])
	}
	a.readBatch(reply, calls, results, replies, first)
	return notRefused
}

// appendBody appends the body of a request for calls, whose ids count from first.
func appendBody(body []byte, calls []*jsonrpc.Call, first uint64) []byte {
	if len(calls) == 1 {
		return jsonrpc.AppendRequest(body, calls[0], first)
	}
	for i, c := range calls {
		if i == 0 {
			body = append(body, '[')
		} else {
			body = append(body, ',')
		}
		body = jsonrpc.AppendRequest(body, c, first+uint64(i))
	}
	return append(body, ']')
}

func (a *Attempt) invalid(reply *reply, err error) *Error {
	return &Error{Backend: a.Backend.opts.Name, Kind: Invalid, HTTP: reply.status, Wrote: true, cause: err}
}
