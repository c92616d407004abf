package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// streams is a world on the clock of a bubble whose connections and streams are
// counted.
type streams struct {
	*world
	reg *prometheus.Registry

	mu   sync.Mutex
	open map[*line]int // connections that are not closed, with their member
}

// line is the gateway's end of a connection.
type line struct {
	net.Conn
	s *streams
}

func (l *line) Close() error {
	l.s.mu.Lock()
	delete(l.s.open, l)
	l.s.mu.Unlock()
	return l.Conn.Close()
}

func streaming(t *testing.T, n int, test func(t *testing.T, s *streams)) {
	t.Helper()
	s := &streams{reg: prometheus.NewRegistry(), open: map[*line]int{}}
	metrics := backend.NewMetrics(s.reg)
	inBubble(t, n, setting{backend: func(i int, o *backend.Options) {
		o.Metrics = metrics
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			l := &line{c, s}
			s.mu.Lock()
			s.open[l] = i
			s.mu.Unlock()
			return l, nil
		}
	}}, func(t *testing.T, w *world) {
		s.world = w
		test(t, s)
	})
}

// connections is how many are open to a member.
func (s *streams) connections(member int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.open {
		if m == member {
			n++
		}
	}
	return n
}

// sum adds up the series of a metric that have all of the label values.
func (s *streams) sum(name string, values ...string) (sum float64) {
	s.t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			missing := len(values)
			for _, v := range values {
				for _, l := range m.GetLabel() {
					if l.GetValue() == v {
						missing--
					}
				}
			}
			if missing == 0 {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// nothingLeft checks that no attempt is under way and that each connection that is
// open lies idle: closing the backends closes the idle ones only.
func (s *streams) nothingLeft() {
	s.t.Helper()
	synctest.Wait()
	if n := s.sum("proxyd_backend_in_flight"); n != 0 {
		s.t.Errorf("%v attempts are under way", n)
	}
	for _, b := range s.backends {
		b.Close()
	}
	synctest.Wait()
	if s.mu.Lock(); len(s.open) != 0 {
		s.t.Errorf("%d connections are open that nobody holds", len(s.open))
	}
	s.mu.Unlock()
}

// bin is a client that takes everything.
type bin struct{ bytes.Buffer }

func (*bin) Kernel() io.ReaderFrom { return nil }
func (*bin) Renew() time.Time      { return time.Time{} }

// read reads a call's result, from its stream if it has one.
func read1(t *testing.T, c *jsonrpc.Call) string {
	t.Helper()
	if c.Err != nil || c.Answer == nil {
		t.Fatalf("answer %+v, error %v", c.Answer, c.Err)
	}
	if c.Answer.Stream == nil {
		return string(c.Answer.Result) + string(c.Answer.Error)
	}
	defer c.Answer.Stream.Close()
	var to bin
	for {
		if _, err := c.Answer.Stream.Next(&to); err == io.EOF {
			return to.String()
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

const small = `"0x1"`

// big is a result that streams, of a member.
func big(member int) string {
	return `"` + strings.Repeat(fmt.Sprint(member), 300<<10) + `"`
}

// speaks makes a member answer when it is told to.
func (n *node) speaks(result string, when <-chan struct{}) {
	n.does(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		<-when
		_, _ = io.WriteString(w, replaceID(`{"jsonrpc":"2.0","id":$id,"result":`+result+`}`, in))
	})
}

func streamable(method, params string) *jsonrpc.Call {
	c := call(method, params)
	c.MayStream = true
	return c
}

// three asks three reads at once, as many as it takes to find a member silent.
func (s *streams) three(ctx context.Context) (calls [3]*jsonrpc.Call, wait func()) {
	var wg sync.WaitGroup
	for i := range calls {
		calls[i] = streamable("eth_call", "[]")
		wg.Go(func() { s.ServeRPC(ctx, calls[i:i+1]) })
	}
	return calls, wg.Wait
}

func TestLoserThatStreamsLateIsClosed(t *testing.T) {
	streaming(t, 2, func(t *testing.T, s *streams) {
		late, now := make(chan struct{}), make(chan struct{})
		close(now)
		s.nodes[0].speaks(big(0), late)
		s.nodes[1].speaks(big(1), now)
		calls, wait := s.three(t.Context())
		wait()
		s.state(0, backend.Suspect)
		for _, c := range calls {
			if c.Answer == nil || c.Answer.Stream == nil || c.Answer.Backend != "b1" {
				t.Fatalf("%+v, %v", c.Answer, c.Err)
			}
		}
		close(late)
		synctest.Wait()
		s.state(0, backend.Well)
		if n := s.connections(0); n != 0 {
			t.Errorf("%d connections to the loser are open", n)
		}
		for _, c := range calls {
			if got := read1(t, c); got != big(1) {
				t.Errorf("%d bytes: %.20s", len(got), got)
			}
		}
		if n, k := s.sum("proxyd_streamed_answers_total", "b1", "whole"), s.sum("proxyd_streamed_answers_total"); n != 3 || k != 3 {
			t.Errorf("%v of %v streams were whole", n, k)
		}
		s.nothingLeft()
	})
}

// Both answer in the same moment: one is given to the call, whichever it is.
func TestOneOfTwoAttemptsThatEndTogetherIsKept(t *testing.T) {
	// Stands for an error: it is written where a result would be.
	final := `null,"error":{"code":3,"message":"execution reverted"}`
	for name, results := range map[string][2]string{
		"both stream":                    {big(0), big(1)},
		"the second streams":             {small, big(1)},
		"the first streams":              {big(0), small},
		"the second streams, an error":   {final, big(1)},
		"the first streams, then errors": {big(0), final},
	} {
		t.Run(name, func(t *testing.T) {
			kept := map[string]int{}
			for range 10 {
				streaming(t, 2, func(t *testing.T, s *streams) {
					speak := make(chan struct{})
					for i, n := range s.nodes {
						n.speaks(results[i], speak)
					}
					calls, wait := s.three(t.Context())
					time.Sleep(1500 * time.Millisecond)
					if got := s.order(); got != "000111" {
						t.Fatalf("asked %s", got)
					}
					close(speak)
					wait()
					streams := 0
					for _, c := range calls {
						if c.Answer != nil && c.Answer.Stream != nil {
							streams++
						}
						got := read1(t, c)
						if got != results[0] && got != results[1] && !strings.Contains(final, got) {
							t.Errorf("%d bytes: %.20s", len(got), got)
						}
						kept[c.Answer.Backend]++
					}
					if synctest.Wait(); s.sum("proxyd_streamed_answers_total", "whole") != float64(streams) {
						t.Errorf("%d streams were given out, %v were read", streams, s.sum("proxyd_streamed_answers_total", "whole"))
					}
					s.nothingLeft()
				})
			}
			t.Log(kept)
		})
	}
}

// dawdling is a context whose user is slow to begin its second wait.
type dawdling struct {
	context.Context
	waits atomic.Int32
}

func (d *dawdling) Done() <-chan struct{} {
	if d.waits.Add(1) == 2 {
		time.Sleep(time.Second)
	}
	return d.Context.Done()
}

// By the time the run looks, both have ended: the one that it does not take
// believed that it was still waited for.
func TestAttemptThatEndedUnseenIsClosed(t *testing.T) {
	streaming(t, 2, func(t *testing.T, s *streams) {
		speak := make(chan struct{})
		for i, n := range s.nodes {
			n.speaks(big(i), speak)
		}
		ctx := &dawdling{Context: t.Context()}
		begun := time.Now()
		var wg sync.WaitGroup
		for range 2 { // with which the first member is found silent
			wg.Go(func() {
				c := streamable("eth_call", "[]")
				s.ServeRPC(t.Context(), []*jsonrpc.Call{c})
				read1(t, c)
			})
		}
		time.AfterFunc(1500*time.Millisecond, func() { close(speak) })
		c := streamable("eth_call", "[]")
		s.ServeRPC(ctx, []*jsonrpc.Call{c})
		if time.Since(begun) < 2*time.Second || s.order() != "000111" {
			t.Fatalf("answered after %v", time.Since(begun))
		}
		if got := read1(t, c); got != big(0) && got != big(1) {
			t.Errorf("%d bytes: %.20s", len(got), got)
		}
		wg.Wait()
		s.nothingLeft()
	})
}

func TestStreamThatComesWhenItsCallerIsGoneIsClosed(t *testing.T) {
	left := errors.New("the client left")
	for _, method := range []string{"eth_call", "eth_sendRawTransaction", "eth_sendTransaction"} {
		for _, cause := range []error{left, context.DeadlineExceeded} {
			streaming(t, 2, func(t *testing.T, s *streams) {
				speak := make(chan struct{})
				for i, n := range s.nodes {
					n.speaks(big(i), speak)
				}
				ctx, leave := context.WithCancelCause(t.Context())
				defer leave(nil)
				if cause == left {
					time.AfterFunc(time.Second/2, func() { leave(left) })
				} else {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Second/2)
					defer cancel()
				}
				c := streamable(method, `["`+legacyTx+`"]`)
				s.ServeRPC(ctx, []*jsonrpc.Call{c})
				if c.Err == nil || c.Answer != nil {
					t.Fatalf("%s: %+v, %v", method, c.Answer, c.Err)
				}
				close(speak)
				s.nothingLeft()
				if n := s.sum("proxyd_streamed_answers_total", "whole"); n != 0 {
					t.Errorf("%s: %v streams were read", method, n)
				}
			})
		}
	}
}

// A caller that leaves in the very moment in which the answer comes has either
// the stream or an error, and no stream is lost.
func TestStreamAndLeavingInTheSameMomentLoseNothing(t *testing.T) {
	got := map[bool]int{}
	for range 30 {
		streaming(t, 1, func(t *testing.T, s *streams) {
			now := make(chan struct{})
			close(now)
			s.nodes[0].speaks(small, now)
			s.get() // a connection lies idle
			speak := make(chan struct{})
			s.nodes[0].speaks(big(0), speak)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			time.AfterFunc(25*time.Millisecond, func() { go leave(); close(speak) }) // when the flights are looked at
			c := streamable("eth_call", "[]")
			s.ServeRPC(ctx, []*jsonrpc.Call{c})
			if got[c.Err == nil]++; c.Err == nil {
				if text := read1(t, c); text != big(0) {
					t.Errorf("%d bytes", len(text))
				}
			} else if c.Answer != nil {
				t.Errorf("an answer beside the error %v", c.Err)
			}
			s.nothingLeft()
		})
	}
	t.Log(got)
}

func TestCloseOfABackendEndsTheStreamThatWasGivenOut(t *testing.T) {
	streaming(t, 1, func(t *testing.T, s *streams) {
		now := make(chan struct{})
		close(now)
		s.nodes[0].speaks(big(0), now)
		c := streamable("eth_call", "[]")
		s.ServeRPC(t.Context(), []*jsonrpc.Call{c})
		closed := make(chan struct{})
		go func() { defer close(closed); s.backends[0].Close() }()
		synctest.Wait()
		var err error
		for err == nil {
			_, err = c.Answer.Stream.Next(new(bin))
		}
		var e *backend.Error
		if !errors.As(err, &e) || e.Kind != backend.Canceled {
			t.Errorf("the reader sees %v", err)
		}
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed before the stream was")
		default:
		}
		c.Answer.Stream.Close()
		<-closed
		s.nothingLeft()
	})
}

func TestCallsOfABatchNeverStream(t *testing.T) {
	streaming(t, 1, func(t *testing.T, s *streams) {
		s.nodes[0].does(func(w http.ResponseWriter, r *http.Request) {
			in, _ := io.ReadAll(r.Body)
			answers := make([]string, strings.Count(string(in), `"method"`))
			for i := range answers {
				answers[i] = fmt.Sprintf(`{"id":%s,"result":%s}`, replaceID("$id", in), big(i))
				in = bytes.Replace(in, []byte(`"id":`), nil, 1)
			}
			if len(answers) == 1 {
				_, _ = io.WriteString(w, answers[0])
				return
			}
			_, _ = io.WriteString(w, "["+strings.Join(answers, ",")+"]")
		})
		for _, n := range []int{1, 3} {
			calls := make([]*jsonrpc.Call, n)
			for i := range calls {
				calls[i] = call("eth_call", "[]")
			}
			s.do(10*time.Second, calls...)
			for i, c := range calls {
				if c.Answer == nil || c.Answer.Stream != nil || string(c.Answer.Result) != big(i) {
					t.Errorf("call %d of %d: %.100v, %v", i, n, c.Answer, c.Err)
				}
			}
		}
		if n := s.sum("proxyd_streamed_answers_total"); n != 0 {
			t.Errorf("%v streams", n)
		}
		s.nothingLeft()
	})
}

func TestLookUpOfATransactionNeverStreams(t *testing.T) {
	streaming(t, 2, func(t *testing.T, s *streams) {
		s.nodes[0].does(cut)
		looked := 0
		s.nodes[1].does(func(w http.ResponseWriter, r *http.Request) {
			in, _ := io.ReadAll(r.Body)
			if strings.Contains(string(in), "eth_getTransactionByHash") {
				looked++
				_, _ = io.WriteString(w, replaceID(`{"id":$id,"result":{"input":`+big(1)+`}}`, in))
				return
			}
			_, _ = io.WriteString(w, replaceID(`{"id":$id,"error":{"code":-32000,"message":"already known"}}`, in))
		})
		c := send()
		c.MayStream = true
		s.do(10*time.Second, c)
		if c.Err != nil || c.Answer.Stream != nil || string(c.Answer.Result) != `"`+legacyHash+`"` || looked != 1 {
			t.Errorf("%+v, %v, looked up %d times", c.Answer, c.Err, looked)
		}
		if n := s.sum("proxyd_streamed_answers_total"); n != 0 {
			t.Errorf("%v streams", n)
		}
		s.nothingLeft()
	})
}
