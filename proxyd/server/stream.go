package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// errStreams refuses a large answer to a client that is being sent too many.
var errStreams = errors.New("too many large answers at once")

// admit counts a large answer to a client, and refuses it when there are too many.
func (s *Server) admit(c *jsonrpc.Call) bool {
	if s.streams.enter(c.Client) {
		return true
	}
	c.Answer.Stream.Close()
	c.Answer, c.Err = nil, errStreams
	return false
}

// writeStream passes a large result on while it comes. Whatever goes wrong behind
// its head breaks the connection off, so that no client takes a part for the
// whole.
func (s *Server) writeStream(w http.ResponseWriter, r *http.Request, ch *chain, c *jsonrpc.Call) {
	stream := c.Answer.Stream
	stop := context.AfterFunc(r.Context(), func() { stream.Interrupt(context.Canceled) })
	defer stop()

	h := w.Header()
	h["Content-Type"] = jsonType
	s.served(h, []*jsonrpc.Call{c})
	end := append(jsonrpc.AppendClosing(nil, c.ID), '\n')
	size := int64(len(jsonrpc.AnswerHead) + len(end))
	room := stream.AtMost()
	if room >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size+room, 10))
	}
	defer func() {
		// Behind the head there is no other way to say that something is wrong.
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				ch.logPanic(v, c.Client)
			}
			panic(http.ErrAbortHandler)
		}
	}()
	w.WriteHeader(http.StatusOK)
	to := &sink{ResponseWriter: w, control: http.NewResponseController(w), patience: s.opts.WriteTimeout}
	_, _ = io.WriteString(to, jsonrpc.AnswerHead) // the next write fails as well
	sent, err := to.take(stream)
	ch.metrics.answered(c.Client.Auth, http.StatusOK, size+sent)
	stream.Close()
	if err != nil {
		ch.log.Debug("large answer broken off", "method", c.Label, "bytes", sent, "error", err, "req_id", c.Client.RequestID)
		panic(http.ErrAbortHandler)
	}
	// What stood behind the result upstream is made up for with white space.
	if room > sent {
		end = slices.Concat(end[:len(end)-1], blanks(room-sent), end[len(end)-1:])
	}
	to.Renew()
	_, _ = to.Write(end)
}

// sink is the client of a large answer.
type sink struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // with each write; 0 is without end
}

// take passes a stream on to its end.
func (k *sink) take(stream jsonrpc.Stream) (sent int64, err error) {
	for {
		n, err := stream.Next(k)
		sent += n
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

// Kernel implements jsonrpc.Sink.
func (k *sink) Kernel() io.ReaderFrom {
	r, _ := k.ResponseWriter.(io.ReaderFrom)
	return r
}

// Renew implements jsonrpc.Sink.
func (k *sink) Renew() time.Time {
	if k.patience <= 0 {
		return time.Time{}
	}
	until := time.Now().Add(k.patience)
	_ = k.control.SetWriteDeadline(until)
	return until
}

func blanks(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = ' '
	}
	return b
}

// streams counts the large answers under way to each client.
type streams struct {
	most int // for each client; 0 is any number
	mu   sync.Mutex
	to   map[string]int // only those above zero
}

func (s *streams) enter(client *jsonrpc.Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && s.to[client.Key] >= s.most && !client.Exempt {
		return false
	}
	if s.to == nil {
		s.to = make(map[string]int)
	}
	s.to[client.Key]++
	return true
}

func (s *streams) leave(client *jsonrpc.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to[client.Key]--; s.to[client.Key] <= 0 {
		delete(s.to, client.Key)
	}
}
