package backend

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// readOne takes the reply to one call.
func (a *Attempt) readOne(reply *reply, c *jsonrpc.Call, result *Result, r jsonrpc.Reply, id uint64, err error) {
	if err == nil && !isReplyTo(r, id) {
		err = errWrongID
	}
	if err != nil {
		a.fail1(c, result, a.invalid(reply, err))
		return
	}
	answer := &a.room.answer
	if len(a.Calls) > 1 { // this is one of several parts
		answer = new(jsonrpc.Answer)
	}
	a.take(reply, c, result, r, scope{label: c.Label, params: c.Params}, answer)
}

// isReplyTo reports whether r answers the request with the given id. An error
// may come with no id: then it belongs to the only call on the connection.
func isReplyTo(r jsonrpc.Reply, id uint64) bool {
	if r.Error != nil && (r.ID == nil || string(r.ID) == "null") {
		return true
	}
	got, ok := jsonrpc.ReplyID(r.ID)
	return ok && got == id
}

// readSingle takes a single object that came for a batch. An error is the answer
// to each of its calls, unless it says that the batch was too much.
func (a *Attempt) readSingle(reply *reply, calls []*jsonrpc.Call, results []Result, r jsonrpc.Reply) refusal {
	if r.Error == nil {
		a.fail(calls, results, a.invalid(reply, errors.New("invalid answer: one object for a batch")))
		return notRefused
	}
	if e, err := jsonrpc.ParseError(r.Error); err == nil {
		if refused := refusesBatch(reply.status, e.Message, calls); refused != notRefused {
			return refused
		}
	}
	about := scopeOf(calls)
	for i, c := range calls {
		a.take(reply, c, &results[i], r, about, new(jsonrpc.Answer))
	}
	return notRefused
}

// scope is what an error is about: one call, or a whole batch.
type scope struct {
	// label is the method, Batched for a batch.
	label string
	// params is the text that the request may have brought into the error's.
	params []byte
}

func scopeOf(calls []*jsonrpc.Call) scope {
	about := scope{label: attemptLabel(calls), params: calls[0].Params}
	if len(calls) > 1 {
		about.params = nil
		for _, c := range calls {
			about.params = append(append(about.params, c.Params...), '\n')
		}
	}
	return about
}

// refusesBatch reports whether an error speaks of the batch rather than of what
// is in it.
func refusesBatch(status int, message string, calls []*jsonrpc.Call) refusal {
	if status == http.StatusRequestEntityTooLarge {
		return tooMuch
	}
	if !strings.Contains(strings.ToLower(message), "batch") {
		return notRefused
	}
	for _, c := range calls {
		if strings.Contains(strings.ToLower(string(c.Params)), "batch") {
			return notRefused // an echo of what the client sent
		}
	}
	return tooMany
}

// readBatch gives each reply to the call with its id.
func (a *Attempt) readBatch(reply *reply, calls []*jsonrpc.Call, results []Result, replies []jsonrpc.Reply, first uint64) {
	byCall := make([]*jsonrpc.Reply, len(calls))
	for i := range replies {
		r := &replies[i]
		if r.Error != nil && (r.ID == nil || string(r.ID) == "null") {
			continue // whose error it is, is unknown: the call without a reply failed
		}
		id, ok := jsonrpc.ReplyID(r.ID)
		if !ok || id < first || id >= first+uint64(len(calls)) || byCall[id-first] != nil {
			a.fail(calls, results, a.invalid(reply, errors.New("invalid answer: an id that was not asked with, or one twice")))
			return
		}
		byCall[id-first] = r
	}
	answers := make([]jsonrpc.Answer, len(calls))
	for i, r := range byCall {
		if r == nil {
			a.fail1(calls[i], &results[i], a.invalid(reply, errors.New("invalid answer: no element for this call")))
			continue
		}
		a.take(reply, calls[i], &results[i], *r, scope{label: calls[i].Label, params: calls[i].Params}, &answers[i])
	}
}

// take makes a reply that belongs to the call its result, with answer for room;
// about is what r speaks of when it is an error.
func (a *Attempt) take(reply *reply, c *jsonrpc.Call, result *Result, r jsonrpc.Reply, about scope, answer *jsonrpc.Answer) {
	b := a.Backend
	answer.Backend, answer.Group = b.opts.Name, a.try.Group
	if reply.status != 200 && b.allowed(reply.status) {
		answer.Status = reply.status
	}
	if r.Error == nil {
		if string(r.Result) == "null" && !c.Row.Nullable {
			a.fail1(c, result, a.invalid(reply, fmt.Errorf("invalid answer: null, which %s cannot answer", c.Label)))
			return
		}
		if b.opts.ChainID != 0 && c.Method == "eth_chainId" {
			id, ok := Quantity(r.Result)
			if !ok {
				a.fail1(c, result, a.invalid(reply, errors.New("invalid answer: no chain id")))
				return
			}
			if !b.health.answersChain(id) {
				a.fail1(c, result, &Error{Backend: b.opts.Name, Kind: WrongChain, HTTP: reply.status, Wrote: true, cause: wrongChain(id, b.opts.ChainID)})
				return
			}
		}
		answer.Result = r.Result
		*result = Result{Answer: answer}
		return
	}
	e, err := jsonrpc.ParseError(r.Error)
	if err != nil {
		a.fail1(c, result, a.invalid(reply, err))
		return
	}
	answer.Error, answer.Code = b.redact.raw(r.Error), e.Code
	*result = Result{Answer: answer, Outcome: b.opts.Classify.Classify(classify.Evidence{
		Backend: b.opts.Name, Status: reply.status, RPC: true, Code: e.Code, Message: e.Message, Data: e.Data,
		Method: c.Method, Params: about.params,
	})}
	if result.Outcome.Hold != classify.None {
		b.health.holdOff(result.Outcome, reply.retryAfter, about.label, a.started, time.Now(), a.trial)
	}
	if result.Outcome.Class == "unsupported" && c.Label == c.Method { // not for all that a pattern catches
		b.missing.add(c.Label)
	}
	a.logError(c, reply.status, result, e.Message)
}

// readFailure takes an HTTP status that carries no answer. A JSON-RPC error in
// its body that is final for the call is an answer all the same.
func (a *Attempt) readFailure(reply *reply, calls []*jsonrpc.Call, results []Result, first uint64) refusal {
	b := a.Backend
	evidence := classify.Evidence{Backend: b.opts.Name, Status: reply.status, Message: string(reply.body[:min(len(reply.body), 1024)])}
	if r, err := jsonrpc.ParseReply(reply.body); err == nil && r.Error != nil && (len(calls) > 1 || isReplyTo(r, first)) {
		if e, err := jsonrpc.ParseError(r.Error); err == nil {
			if refused := refusesBatch(reply.status, e.Message, calls); len(calls) > 1 && refused != notRefused {
				return refused
			}
			evidence.RPC, evidence.Code, evidence.Message, evidence.Data = true, e.Code, e.Message, e.Data
			evidence.Method, evidence.Params = calls[0].Method, calls[0].Params
			if len(calls) == 1 && b.opts.Classify.Classify(evidence).Elsewhere == classify.No {
				a.take(reply, calls[0], &results[0], r, scopeOf(calls), new(jsonrpc.Answer))
				return notRefused
			}
		}
	}
	if len(calls) > 1 && reply.status == http.StatusRequestEntityTooLarge {
		return tooMuch
	}
	e := &Error{Backend: b.opts.Name, Kind: Status, HTTP: reply.status, Wrote: true, RetryAfter: reply.retryAfter}
	if evidence.RPC {
		e.RPC, e.Code = true, evidence.Code
		e.cause = fmt.Errorf("code %d: %s", evidence.Code, truncate(b.redact.text(evidence.Message)))
	}
	about := scopeOf(calls)
	evidence.Params = about.params
	for i, c := range calls {
		evidence.Method = c.Method
		o := b.opts.Classify.Classify(evidence)
		switch {
		case e.aboutRequest():
			o = e.outcome()
		case o.Elsewhere != classify.Yes:
			o = classify.Outcome{Class: "server", Sick: true}
		}
		o.Elsewhere = classify.Yes
		results[i] = Result{Err: e, Outcome: o}
		if i == 0 && o.Hold != classify.None {
			b.health.holdOff(o, reply.retryAfter, about.label, a.started, time.Now(), a.trial)
		}
	}
	a.logFailure(calls[0], &results[0], len(calls))
	return notRefused
}
