package devchain

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const chainIDCall = `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`

const chainIDAnswer = `{"jsonrpc":"2.0","id":1,"result":"0x7a69"}`

// listen serves b on a free port of this machine; the test's end waits for every handler.
func listen(t *testing.T, b *Backend) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		b.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("handlers left behind: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// send posts chainIDCall on a connection of its own.
func send(ctx context.Context, address string) (status int, header http.Header, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(chainIDCall))
	if err != nil {
		return 0, nil, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(raw), err
}

func TestFaultsThatAnswer(t *testing.T) {
	for _, test := range []struct {
		fault  Fault
		status int
		body   string
	}{
		{Fault{}, 200, chainIDAnswer},
		{Fault{Kind: FaultStatus}, 503, "devchain fault: status 503\n"},
		{Fault{Kind: FaultStatus, Status: 204}, 204, ""},
		{Fault{Kind: FaultStatus, Status: 599}, 599, "devchain fault: status 599\n"},
		{Fault{Kind: FaultGarbage}, 200, garbage},
		{Fault{Kind: FaultRateLimited, RetryAfter: "7"}, 429, `{"jsonrpc":"2.0","id":null,"error":{"code":429,"message":"too many requests"}}`},
		{Fault{Kind: FaultRPCError}, 200, `{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"devchain fault"}}`},
		{Fault{Kind: FaultRPCError, RPCCode: 3, RPCMessage: `"x"`}, 200, `{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"\"x\""}}`},
		{Fault{Kind: FaultSlow, Delay: time.Nanosecond}, 200, chainIDAnswer},
		{Fault{Kind: FaultWrongID}, 200, `{"jsonrpc":"2.0","id":"devchain-wrong-id","result":"0x7a69"}`},
		{Fault{Kind: FaultTruncate}, 200, chainIDAnswer[:len(chainIDAnswer)/2]},
		{Fault{Kind: FaultMute}, 200, chainIDAnswer},
		{Fault{Kind: FaultDrop, Times: 1}, 200, chainIDAnswer},
	} {
		t.Run(string(test.fault.Kind), func(t *testing.T) {
			b := NewBackend(New(Options{}), "one")
			b.SetFault(test.fault)
			status, header, body, err := send(t.Context(), listen(t, b))
			if err != nil || status != test.status || body != test.body {
				t.Errorf("got %d %q, %v, want %d %q", status, body, err, test.status, test.body)
			}
			if got := header.Get("Retry-After"); got != test.fault.RetryAfter {
				t.Errorf("Retry-After %q, want %q", got, test.fault.RetryAfter)
			}
			if test.fault.Kind == FaultGarbage && json.Valid([]byte(body)) {
				t.Error("the garbage is JSON")
			}
		})
	}
}

func TestCloseFaultResetsInTheMiddleOfTheAnswer(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	b.SetFault(Fault{Kind: FaultClose, Times: 1})
	address := listen(t, b)
	_, _, body, err := send(t.Context(), address)
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want a reset connection", body, err)
	}
	if len(body) > len(chainIDAnswer)/2 {
		t.Errorf("got %q, want at most half of the answer", body)
	}
	if _, _, body, err := send(t.Context(), address); err != nil || body != chainIDAnswer {
		t.Errorf("after the fault: %q, %v", body, err)
	}
}

func TestCloseFaultWithoutAConnectionToTakeOver(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	b.SetFault(Fault{Kind: FaultClose})
	w := post(b, chainIDCall)
	if got := w.Body.String(); got != chainIDAnswer[:len(chainIDAnswer)/2] || w.Header().Get("Content-Length") != "43" {
		t.Errorf("got %q of %s", got, w.Header().Get("Content-Length"))
	}
}

func TestTimesCountsRequestsThatTheFaultMet(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	b.SetFault(Fault{Kind: FaultStatus, Status: 500, Times: 2})
	var got []int
	for range 4 {
		got = append(got, post(b, chainIDCall).Code)
	}
	if got[0] != 500 || got[1] != 500 || got[2] != 200 || got[3] != 200 || b.Requests() != 4 || b.Calls() != 4 {
		t.Errorf("got %v, %d requests, %d calls", got, b.Requests(), b.Calls())
	}
}

// begin starts a request inside a synctest bubble, which fails the test if its goroutine is left at the end.
func begin(ctx context.Context, b *Backend) (*httptest.ResponseRecorder, <-chan struct{}) {
	w, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(done)
		b.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(chainIDCall)))
	}()
	return w, done
}

func over(done <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func TestHangEnds(t *testing.T) {
	for name, end := range map[string]func(b *Backend, leave func()) (body string){
		"when the fault is changed":     func(b *Backend, _ func()) string { b.SetFault(Fault{}); return chainIDAnswer },
		"when the client leaves":        func(_ *Backend, leave func()) string { leave(); return "" },
		"when the backend is closed":    func(b *Backend, _ func()) string { b.Close(); return "" },
		"when one hang follows another": func(b *Backend, _ func()) string { b.SetFault(Fault{Kind: FaultHang}); return chainIDAnswer },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBackend(New(Options{}), "one")
				b.SetFault(Fault{Kind: FaultHang})
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				w, done := begin(ctx, b)
				time.Sleep(24 * time.Hour)
				if over(done) {
					t.Fatal("it did not hang")
				}
				want := end(b, leave)
				if !over(done) {
					t.Fatal("it still hangs")
				}
				if got := w.Body.String(); got != want {
					t.Errorf("answered %q, want %q", got, want)
				}
			})
		})
	}
}

func TestHangOfOneRequestOutlastsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBackend(New(Options{}), "one")
		b.SetFault(Fault{Kind: FaultHang, Times: 1})
		_, first := begin(t.Context(), b)
		synctest.Wait()
		if w, second := begin(t.Context(), b); !over(second) || w.Body.String() != chainIDAnswer {
			t.Error("the second request met the fault of the first")
		}
		if over(first) {
			t.Error("the fault's end released the request that it had met")
		}
		b.SetFault(Fault{})
		if !over(first) {
			t.Error("it still hangs")
		}
	})
}

func TestClosedBackendDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBackend(New(Options{}), "one")
		b.Close()
		b.Close()
		if w, done := begin(t.Context(), b); !over(done) || w.Body.String() != chainIDAnswer {
			t.Error("without a fault it still answers")
		}
		b.SetFault(Fault{Kind: FaultHang})
		if _, done := begin(t.Context(), b); !over(done) {
			t.Error("it hangs")
		}
	})
}

func TestSlowAnswersAfterItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBackend(New(Options{}), "one")
		b.SetFault(Fault{Kind: FaultSlow, Delay: time.Minute})
		w, done := begin(t.Context(), b)
		time.Sleep(time.Minute - 1)
		if over(done) {
			t.Error("answered early")
		}
		time.Sleep(time.Nanosecond)
		if !over(done) || w.Body.String() != chainIDAnswer {
			t.Errorf("answered %q after the delay", w.Body)
		}
		_, done = begin(t.Context(), b)
		if over(done) {
			t.Error("answered early")
		}
		b.SetFault(Fault{})
		if !over(done) {
			t.Error("a changed fault did not end the delay")
		}
	})
}

// Shutdown, at the test's end, waits for handlers: here the client leaves, and over a real connection.
func TestHangEndsWhenARealClientLeaves(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	b.SetFault(Fault{Kind: FaultHang, Times: 1})
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		b.ServeHTTP(w, r)
	}))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	failed := make(chan error, 1)
	go func() {
		_, _, _, err := send(ctx, server.URL)
		failed <- err
	}()
	for b.Fault().Kind == FaultHang { // until the request has met it
		runtime.Gosched()
	}
	leave()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("client got %v", err)
	}
	<-ended
}

func TestClosingDropsTheConnectionOfAHang(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	b.SetFault(Fault{Kind: FaultHang, Times: 1})
	address := listen(t, b)
	failed := make(chan error, 1)
	go func() {
		_, _, _, err := send(context.Background(), address)
		failed <- err
	}()
	for b.Fault().Kind == FaultHang {
		runtime.Gosched()
	}
	b.Close()
	if err := <-failed; err == nil {
		t.Error("the client got an answer, want a dropped connection")
	}
}

func TestChainMayBeReadWhileItGrows(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	mined := make(chan struct{})
	go func() {
		defer close(mined)
		chain.Mine(200)
	}()
	for i := range 50 {
		if _, err := chain.send(word(uint64(i))); err != nil {
			t.Error(err)
		}
		for _, call := range []string{"eth_getLogs\",\"params\":[{\"fromBlock\":\"earliest\"}]", "eth_getBlockByNumber\",\"params\":[\"latest\",true]"} {
			if got := post(b, `{"jsonrpc":"2.0","id":1,"method":"`+call+`}`).Body.String(); !strings.Contains(got, `"result":`) {
				t.Error(got)
			}
		}
	}
	<-mined
	if got := chain.Head(); got != 216 {
		t.Errorf("head %d, want 216", got)
	}
}
