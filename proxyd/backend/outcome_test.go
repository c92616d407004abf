package backend

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
)

// failure checks that a result is an error of the given kind after which another
// backend may be asked.
func failure(t *testing.T, r Result, kind Kind, text string) *Error {
	t.Helper()
	if r.Err == nil {
		t.Fatalf("got answer %s%s, want a failure", r.Answer.Result, r.Answer.Error)
	}
	if r.Answer != nil || r.Err.Kind != kind || !strings.Contains(r.Err.Error(), text) || !strings.HasPrefix(r.Err.Error(), "backend b: ") {
		t.Fatalf("got %s: %v, want %s with %q", r.Err.Kind, r.Err, kind, text)
	}
	if want := map[bool]classify.Elsewhere{true: classify.No, false: classify.Yes}[kind == TooLarge]; r.Outcome.Elsewhere != want {
		t.Fatalf("elsewhere is %v after %v", r.Outcome.Elsewhere, r.Err)
	}
	return r.Err
}

func result(t *testing.T, r Result, want string) {
	t.Helper()
	switch {
	case r.Err != nil:
		t.Fatalf("got %v, want result %s", r.Err, want)
	case string(r.Answer.Result) != want || r.Answer.Error != nil:
		t.Fatalf("got result %s, error %s, want %s", r.Answer.Result, r.Answer.Error, want)
	}
}

func rpcError(t *testing.T, r Result, want string, status int, class string) {
	t.Helper()
	switch {
	case r.Err != nil:
		t.Fatalf("got %v, want the error %s", r.Err, want)
	case string(r.Answer.Error) != want || r.Answer.Result != nil || r.Answer.Status != status || r.Outcome.Class != class:
		t.Fatalf("got result %s, error %s, status %d, class %s, want %s, %d, %s", r.Answer.Result, r.Answer.Error, r.Answer.Status, r.Outcome.Class, want, status, class)
	}
}

func TestRefusedConnectionIsRefusedAndNothingWasWritten(t *testing.T) {
	e := failure(t, ask(t, newBackend(t, refusing(t), nil), blockNumber())[0], Refused, "connection refused")
	if e.Wrote || !e.atOnce() {
		t.Errorf("wrote %t, at once %t", e.Wrote, e.atOnce())
	}
}

func TestResetAfterTheRequestIsANetworkFailure(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		readRequest(c)
		c.(*net.TCPConn).SetLinger(0)
	})
	e := failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Network, "")
	if !e.Wrote || e.atOnce() {
		t.Errorf("wrote %t, at once %t: the request may have been read", e.Wrote, e.atOnce())
	}
}

func TestEOFBeforeTheHeadIsANetworkFailure(t *testing.T) {
	url := rawServer(t, func(c net.Conn) { readRequest(c) })
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Network, "EOF")
}

func TestResetInTheBodyIsANetworkFailure(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultClose})
	e := failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Network, "read reply")
	if e.HTTP != 200 {
		t.Errorf("HTTP status %d", e.HTTP)
	}
}

func TestBodyShorterThanItsLengthIsANetworkFailure(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		id := idIn(readRequest(c))
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":"0x1"}`, id)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	})
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Network, "unexpected EOF")
}

func TestTruncatedBodyIsAnInvalidAnswer(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultTruncate})
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Invalid, "invalid answer")
}

func TestGarbageIsAnInvalidAnswer(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultGarbage})
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Invalid, "invalid answer")
}

func TestWrongIDIsAnInvalidAnswer(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultWrongID})
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Invalid, "id")
}

func TestHangIsATimeout(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	b := newBackend(t, url, func(o *Options) { o.ResponseTimeout = 50 * time.Millisecond })
	e := failure(t, ask(t, b, blockNumber())[0], Timeout, "response timeout")
	if !e.Whole || e.Heard || !e.atOnce() {
		t.Errorf("whole %t, heard %t", e.Whole, e.Heard)
	}
	a := try(t, b, Try{Timeout: 20 * time.Millisecond}, blockNumber())
	a.Settle(false)
	if e := failure(t, a.Results[0], Timeout, ""); e.Whole || e.atOnce() {
		t.Error("a time-out that the call's deadline cut short says nothing of the backend")
	}
}

func TestConnectionThatIsNeverMadeTimesOutWithNothingWritten(t *testing.T) {
	b := newBackend(t, "http://backend.invalid", func(o *Options) {
		o.ResponseTimeout = 30 * time.Millisecond
		o.Dial = hangingDial
	})
	e := failure(t, ask(t, b, blockNumber())[0], Timeout, "")
	if e.Wrote || !ask(t, b, blockNumber())[0].Outcome.NothingRan {
		t.Error("nothing can have run without a connection")
	}
}

func TestAnswersToOneCall(t *testing.T) {
	const null = "null"
	for name, c := range map[string]struct {
		status       int
		method, body string
		result       string // "" for a failure
		kind         Kind
	}{
		"plain":                        {200, "eth_blockNumber", `{"jsonrpc":"2.0","id":$0,"result":"0x1"}`, `"0x1"`, 0},
		"id at the end":                {200, "eth_blockNumber", `{"jsonrpc":"2.0","result":"0x1","id":$0}`, `"0x1"`, 0},
		"id as a string":               {200, "eth_blockNumber", `{"jsonrpc":"2.0","id":"$0","result":"0x1"}`, `"0x1"`, 0},
		"id with a fraction":           {200, "eth_blockNumber", `{"jsonrpc":"2.0","id":$0.0,"result":"0x1"}`, `"0x1"`, 0},
		"bytes untouched":              {200, "eth_call", `{"id":$0,"result": {"b":1.50 , "a":12345678901234567890,"<":"\u003c"} }`, `{"b":1.50 , "a":12345678901234567890,"<":"\u003c"}`, 0},
		"another id":                   {200, "eth_blockNumber", `{"id":$1,"result":"0x1"}`, "", Invalid},
		"no id":                        {200, "eth_blockNumber", `{"result":"0x1"}`, "", Invalid},
		"null id":                      {200, "eth_blockNumber", `{"id":null,"result":"0x1"}`, "", Invalid},
		"id twice":                     {200, "eth_blockNumber", `{"id":$0,"id":$0,"result":"0x1"}`, "", Invalid},
		"an array":                     {200, "eth_blockNumber", `[{"id":$0,"result":"0x1"}]`, "", Invalid},
		"empty":                        {200, "eth_blockNumber", ``, "", Invalid},
		"null":                         {200, "eth_blockNumber", `null`, "", Invalid},
		"two objects":                  {200, "eth_blockNumber", `{"id":$0,"result":"0x1"}{"id":$0,"result":"0x2"}`, "", Invalid},
		"result and error":             {200, "eth_blockNumber", `{"id":$0,"result":"0x1","error":{"code":1,"message":"x"}}`, "", Invalid},
		"neither":                      {200, "eth_blockNumber", `{"id":$0}`, "", Invalid},
		"error without a code":         {200, "eth_blockNumber", `{"id":$0,"error":{"message":"x"}}`, "", Invalid},
		"error as text":                {200, "eth_blockNumber", `{"id":$0,"error":"x"}`, "", Invalid},
		"null where it cannot be":      {200, "eth_blockNumber", `{"id":$0,"result":null}`, "", Invalid},
		"null for a send":              {200, "eth_sendRawTransaction", `{"id":$0,"result":null}`, "", Invalid},
		"null where it can be":         {200, "eth_getTransactionReceipt", `{"id":$0,"result":null}`, null, 0},
		"null of an unknown method":    {200, "foo_bar", `{"id":$0,"result":null}`, null, 0},
		"null result with null error":  {200, "eth_getTransactionReceipt", `{"id":$0,"result":null,"error":null}`, null, 0},
		"400 without an error":         {400, "eth_blockNumber", `{"message":"bad request"}`, "", Invalid},
		"413 without an error":         {413, "eth_blockNumber", `{"message":"too large"}`, "", Invalid},
		"413 as a page":                {413, "eth_blockNumber", `<html>`, "", Invalid},
		"201":                          {201, "eth_blockNumber", `{"id":$0,"result":"0x1"}`, "", Status},
		"204":                          {204, "eth_blockNumber", ``, "", Status},
		"401":                          {401, "eth_blockNumber", `unauthorized`, "", Status},
		"404":                          {404, "eth_blockNumber", `not found`, "", Status},
		"500 with a result":            {500, "eth_blockNumber", `{"id":$0,"result":"0x1"}`, "", Status},
		"502":                          {502, "eth_blockNumber", `<html>bad gateway</html>`, "", Status},
		"503 for another id":           {503, "eth_call", `{"id":$1,"error":{"code":3,"message":"execution reverted"}}`, "", Status},
		"500 with an error of its own": {500, "eth_blockNumber", `{"id":$0,"error":{"code":-32603,"message":"internal error"}}`, "", Status},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, answering(t, c.status, c.body), nil)
			r := ask(t, b, call(c.method, ""))[0]
			if c.result != "" {
				result(t, r, c.result)
				return
			}
			e := failure(t, r, c.kind, "")
			if e.HTTP != c.status || !e.Wrote {
				t.Errorf("HTTP status %d, wrote %t", e.HTTP, e.Wrote)
			}
		})
	}
}

func TestStatusesThatMayCarryAnAnswerKeepTheirStatus(t *testing.T) {
	for _, status := range []int{400, 413} {
		b := newBackend(t, answering(t, status, `{"jsonrpc":"2.0","id":$0,"error":{"code":-32602,"message":"invalid argument 0"}}`), nil)
		rpcError(t, ask(t, b, blockNumber())[0], `{"code":-32602,"message":"invalid argument 0"}`, status, "bad_params")
	}
}

func TestLoneErrorWithoutAnIDBelongsToTheOnlyCall(t *testing.T) {
	for _, body := range []string{`{"id":null,"error":{"code":-32602,"message":"invalid argument 0"}}`, `{"error":{"code":-32602,"message":"invalid argument 0"}}`} {
		b := newBackend(t, answering(t, 200, body), nil)
		rpcError(t, ask(t, b, blockNumber())[0], `{"code":-32602,"message":"invalid argument 0"}`, 0, "bad_params")
	}
}

func TestFinalErrorInAServerErrorIsAnAnswer(t *testing.T) {
	b := newBackend(t, answering(t, 500, `{"jsonrpc":"2.0","id":$0,"error":{"code":3,"message":"execution reverted","data":"0x"}}`), nil)
	rpcError(t, ask(t, b, call("eth_call", ""))[0], `{"code":3,"message":"execution reverted","data":"0x"}`, 0, "revert")
	state(t, b, Well)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	elsewhere := provider(t, func(http.ResponseWriter, *http.Request) { followed = true })
	for _, status := range []int{301, 302, 303, 307, 308} {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, status) })
		e := failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Status, fmt.Sprint(status))
		if e.HTTP != status {
			t.Errorf("HTTP status %d, want %d", e.HTTP, status)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestGzipAnswersAreUndone(t *testing.T) {
	for _, asked := range []bool{true, false} {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) {
			id := firstID(r)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprintf(z, `{"id":%d,"result":"0x1"}`, id)
			z.Close()
		})
		result(t, ask(t, newBackend(t, url, func(o *Options) { o.Gzip = asked }), blockNumber())[0], `"0x1"`)
	}
}

func TestGzipAnswersThatAreBrokenFail(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		kind Kind
	}{
		"not gzip": {`{"id":1,"result":"0x1"}`, Invalid},
		"cut off":  {"\x1f\x8b\x08\x00\x00", Network},
		"empty":    {"", Network},
	} {
		t.Run(name, func(t *testing.T) {
			url := provider(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				io.WriteString(w, c.body)
			})
			failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], c.kind, "")
		})
	}
}

func TestAnswerOverTheLimitIsTooLargeAndNobodyElseIsAsked(t *testing.T) {
	long := `{"id":$0,"result":"0x` + strings.Repeat("00", 1000) + `"}`
	limit := func(o *Options) { o.MaxResponseSize = 1000 }
	failure(t, ask(t, newBackend(t, answering(t, 200, long), limit), blockNumber())[0], TooLarge, "max_response_size_bytes")

	t.Run("without a length", func(t *testing.T) {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) {
			id := firstID(r)
			w.(http.Flusher).Flush()
			io.WriteString(w, fill(long, id))
		})
		failure(t, ask(t, newBackend(t, url, limit), blockNumber())[0], TooLarge, "")
	})
	t.Run("after decompression", func(t *testing.T) {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) {
			id := firstID(r)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, fill(long, id))
			z.Close()
		})
		failure(t, ask(t, newBackend(t, url, limit), blockNumber())[0], TooLarge, "")
	})
	t.Run("exactly at the limit", func(t *testing.T) {
		body := `{"id":$0,"result":"0x1"}`
		b := newBackend(t, answering(t, 200, body), func(o *Options) { o.MaxResponseSize = int64(len(body) - 1) })
		result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	})
	t.Run("a failure's long page is a status", func(t *testing.T) {
		failure(t, ask(t, newBackend(t, answering(t, 502, long), limit), blockNumber())[0], Status, "502")
	})
	t.Run("an absurd length", func(t *testing.T) {
		url := rawServer(t, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}")
		})
		failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], TooLarge, "")
	})
}

func TestProgressInTheBodyExtendsTheResponseTimeout(t *testing.T) {
	const timeout = 300 * time.Millisecond
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		id := firstID(r)
		for _, piece := range strings.SplitAfter(fmt.Sprintf(`{"id":%d,"result":["a","b","c","d","e","f"]}`, id), ",") {
			io.WriteString(w, piece)
			w.(http.Flusher).Flush()
			time.Sleep(timeout / 3)
		}
	})
	b := newBackend(t, url, func(o *Options) { o.ResponseTimeout = timeout })
	started := time.Now()
	result(t, ask(t, b, blockNumber())[0], `["a","b","c","d","e","f"]`)
	if took := time.Since(started); took < timeout {
		t.Errorf("the answer took %s, which shows nothing", took)
	}
}

func TestBodyThatStallsTimesOut(t *testing.T) {
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		io.WriteString(w, `{"id":`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	b := newBackend(t, url, func(o *Options) { o.ResponseTimeout = 50 * time.Millisecond })
	if e := failure(t, ask(t, b, blockNumber())[0], Timeout, ""); !e.Heard || e.atOnce() {
		t.Error("a backend that began to answer was heard")
	}
}

func TestBodyThatDripsEndsSoonAfterItWasAbandoned(t *testing.T) {
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	})
	b := newBackend(t, url, func(o *Options) { o.ResponseTimeout = 50 * time.Millisecond })
	done := make(chan *Attempt, 1)
	a := b.Begin(callsOf(call("eth_sendRawTransaction", `["0x01"]`)), Try{Timeout: time.Minute, Finish: true}, done)
	eventually(t, "the head", func() bool { return b.health.heard.Load() != 0 })
	a.Abandon()
	failure(t, (<-done).Results[0], Timeout, "")
}

func TestAnswersToABatch(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want [2]string // the result, or "!" for a failure
	}{
		"in order":               {`[{"id":$0,"result":"a"},{"id":$1,"result":"b"}]`, [2]string{`"a"`, `"b"`}},
		"in another order":       {`[{"id":$1,"result":"b"},{"id":$0,"result":"a"}]`, [2]string{`"a"`, `"b"`}},
		"ids as strings":         {`[{"id":"$1","result":"b"},{"id":"$0","result":"a"}]`, [2]string{`"a"`, `"b"`}},
		"one is missing":         {`[{"id":$1,"result":"b"}]`, [2]string{"!", `"b"`}},
		"one has another id":     {`[{"id":$0,"result":"a"},{"id":$2,"result":"b"}]`, [2]string{"!", "!"}},
		"one stands twice":       {`[{"id":$0,"result":"a"},{"id":$0,"result":"b"}]`, [2]string{"!", "!"}},
		"one too many":           {`[{"id":$0,"result":"a"},{"id":$1,"result":"b"},{"id":$2,"result":"c"}]`, [2]string{"!", "!"}},
		"a null element":         {`[{"id":$0,"result":"a"},null]`, [2]string{"!", "!"}},
		"an error without id":    {`[{"id":$0,"result":"a"},{"id":null,"error":{"code":1,"message":"x"}}]`, [2]string{`"a"`, "!"}},
		"a null result":          {`[{"id":$0,"result":null},{"id":$1,"result":"b"}]`, [2]string{"!", `"b"`}},
		"empty":                  {`[]`, [2]string{"!", "!"}},
		"one object":             {`{"id":$0,"result":"a"}`, [2]string{"!", "!"}},
		"not JSON":               {`<html>`, [2]string{"!", "!"}},
		"cut off":                {`[{"id":$0,"result":"a"},{"id":$1,"resu`, [2]string{"!", "!"}},
		"an array of an array":   {`[[{"id":$0,"result":"a"},{"id":$1,"result":"b"}]]`, [2]string{"!", "!"}},
		"an element's bad error": {`[{"id":$0,"error":"x"},{"id":$1,"result":"b"}]`, [2]string{"!", `"b"`}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, answering(t, 200, c.body), nil)
			results := ask(t, b, blockNumber(), call("eth_gasPrice", ""))
			for i, want := range c.want {
				if want == "!" {
					failure(t, results[i], Invalid, "invalid answer")
				} else {
					result(t, results[i], want)
				}
			}
		})
	}
}

func TestSingleErrorForABatchIsTheAnswerToEachCall(t *testing.T) {
	b := newBackend(t, answering(t, 200, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"too many requests"}}`), nil)
	for _, r := range ask(t, b, blockNumber(), call("eth_gasPrice", "")) {
		rpcError(t, r, `{"code":-32005,"message":"too many requests"}`, 0, "rate_limit")
	}
	state(t, b, Held)
}

func TestOneTextForABatchIsOneSignOfALimitWhateverItsMethods(t *testing.T) {
	b := newBackend(t, answering(t, 200, `{"id":null,"error":{"code":-32000,"message":"rate limit"}}`), nil)
	for range 3 {
		ask(t, b, blockNumber(), call("eth_gasPrice", ""), call("eth_chainId", ""))
	}
	if left := time.Until(b.Standing().Until); left > mostByText {
		t.Errorf("held off for %s on one text", left)
	}
}

func TestStatusForABatchFailsEachCall(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultStatus, Status: 503})
	for _, r := range ask(t, newBackend(t, url, nil), blockNumber(), call("eth_gasPrice", "")) {
		failure(t, r, Status, "503")
	}
}

func TestErrorsInABatchAreClassifiedOneByOne(t *testing.T) {
	b := newBackend(t, answering(t, 200, `[{"id":$0,"error":{"code":3,"message":"execution reverted"}},{"id":$1,"error":{"code":-32000,"message":"missing trie node"}}]`), nil)
	results := ask(t, b, call("eth_call", ""), call("eth_call", ""))
	rpcError(t, results[0], `{"code":3,"message":"execution reverted"}`, 0, "revert")
	rpcError(t, results[1], `{"code":-32000,"message":"missing trie node"}`, 0, "data_missing")
	if results[0].Outcome.Elsewhere != classify.No || results[1].Outcome.Elsewhere != classify.Yes {
		t.Errorf("elsewhere: %v, %v", results[0].Outcome, results[1].Outcome)
	}
}

func TestTextThatTheBatchBroughtInDecidesNothing(t *testing.T) {
	b := newBackend(t, answering(t, 200, `{"id":null,"error":{"code":-32000,"message":"cannot parse: rate limit"}}`), nil)
	ask(t, b, blockNumber(), call("eth_call", `["rate limit"]`))
	state(t, b, Well)
}

func TestClosedBackendAnswersNothing(t *testing.T) {
	node, url := chain(t)
	b := newBackend(t, url, nil)
	b.Close()
	r := ask(t, b, blockNumber())[0]
	if e := failure(t, r, Canceled, "closed"); !errors.Is(e, errClosed) || node.Requests() != 0 {
		t.Errorf("%v, %d requests", e, node.Requests())
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	b := newBackend(t, url, nil)
	done := make(chan *Attempt, 1)
	b.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute, Finish: true}, done)
	eventually(t, "the request", func() bool { return node.Requests() == 1 })
	b.Close()
	select {
	case a := <-done:
		failure(t, a.Results[0], Canceled, "")
	default:
		t.Error("Close did not wait for the attempt")
	}
}

func TestCodeOfAnErrorUnderAnHTTPErrorIsKept(t *testing.T) {
	b := newBackend(t, answering(t, 429, `{"jsonrpc":"2.0","id":$0,"error":{"code":-32005,"message":"daily limit"}}`), nil)
	e := failure(t, ask(t, b, blockNumber())[0], Status, "HTTP status 429: code -32005: daily limit")
	if !e.RPC || e.Code != -32005 {
		t.Errorf("RPC %v, code %d", e.RPC, e.Code)
	}
}

func TestBodyOfAFailureIsNotReadToItsEnd(t *testing.T) {
	const whole = 256 << 20
	sent := make(chan int, 1)
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(503)
		n, piece := 0, make([]byte, 1<<20)
		for n < whole {
			k, err := w.Write(piece)
			if n += k; err != nil {
				break
			}
		}
		sent <- n
	})
	failure(t, ask(t, newBackend(t, url, nil), blockNumber())[0], Status, "503")
	if n := <-sent; n >= whole {
		t.Errorf("all %d bytes were taken", n)
	}
}
