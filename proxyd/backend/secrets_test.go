package backend

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
)

// secrets are what a backend's configuration knows and nobody else may read.
var secrets = []string{"PATHSECRET12", "QUERYSECRET1", "USERSECRET12", "WORDSECRET12", "HEADSECRET12", "BEARSECRET12"}

var basicSecret = base64.StdEncoding.EncodeToString([]byte("USERSECRET12:WORDSECRET12"))

// withSecrets puts the secrets into a provider's URL and options.
func withSecrets(base string) (string, func(*Options)) {
	return strings.Replace(base, "http://", "http://USERSECRET12:WORDSECRET12@", 1) + "/v2/PATHSECRET12?key=QUERYSECRET1", func(o *Options) {
		o.Headers = map[string]string{"X-Api-Key": "HEADSECRET12", "X-Auth": "Bearer BEARSECRET12"}
	}
}

func leaks(t *testing.T, where, text string) {
	t.Helper()
	for _, s := range append([]string{basicSecret}, secrets...) {
		if strings.Contains(text, s) {
			t.Errorf("%s shows %s: %s", where, s, text)
		}
	}
}

func TestSecretsAreInNoErrorLogOrAnswer(t *testing.T) {
	echo := func(r *http.Request) string {
		return fmt.Sprint(r.URL.String(), " ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Api-Key"), " ", r.Header.Get("X-Auth"), " USERSECRET12 WORDSECRET12")
	}
	providers := map[string]http.HandlerFunc{
		"status":  func(w http.ResponseWriter, r *http.Request) { http.Error(w, echo(r), 500) },
		"limit":   func(w http.ResponseWriter, r *http.Request) { http.Error(w, echo(r), http.StatusTooManyRequests) },
		"garbage": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, echo(r)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid/PATHSECRET12?key=QUERYSECRET1", http.StatusTemporaryRedirect)
		},
		"error": func(w http.ResponseWriter, r *http.Request) {
			text, _ := json.Marshal(echo(r))
			fmt.Fprintf(w, `{"id":null,"error":{"code":-32000,"message":%s,"data":{"url":%s,"PATHSECRET12":[%s]}}}`, text, text, text)
		},
		"escaped error": func(w http.ResponseWriter, r *http.Request) {
			var text strings.Builder
			for _, c := range echo(r) {
				fmt.Fprintf(&text, `\u%04x`, c)
			}
			fmt.Fprintf(w, `{"id":null,"error":{"code":-32000,"message":"%s"}}`, text.String())
		},
		"final error in a 500": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			text, _ := json.Marshal("execution reverted " + echo(r))
			fmt.Fprintf(w, `{"id":null,"error":{"code":3,"message":%s}}`, text)
		},
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"bad id": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"id":"PATHSECRET12","result":"PATHSECRET12"}`)
		},
		"bad header": func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", r.URL)
			c.Close()
		},
	}
	check := func(name, base string) {
		t.Run(name, func(t *testing.T) {
			logs := new(logBuffer)
			u, set := withSecrets(base)
			reg := prometheus.NewRegistry()
			b := newBackend(t, u, func(o *Options) {
				set(o)
				o.Log, o.OutAfter, o.Metrics = logs.logger(slog.LevelDebug), 1, NewMetrics(reg)
			})
			for _, calls := range [][]*jsonrpc.Call{{blockNumber()}, {blockNumber(), call("eth_call", "")}} {
				a := try(t, b, Try{}, calls...)
				a.Settle(true)
				for _, r := range a.Results {
					if r.Err != nil {
						leaks(t, "the error", r.Err.Error())
						continue
					}
					leaks(t, "the answer", string(r.Answer.Error))
					if !json.Valid(r.Answer.Error) || !strings.Contains(string(r.Answer.Error), "***") {
						t.Errorf("the answer's error: %s", r.Answer.Error)
					}
				}
			}
			leaks(t, "the log", logs.String())
			if logs.String() == "" {
				t.Error("nothing was logged")
			}
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			leaks(t, "metrics", fmt.Sprint(families))
		})
	}
	for name, p := range providers {
		check(name, provider(t, p))
	}
	check("refused", refusing(t))
	check("closed", rawServer(t, func(net.Conn) {}))
	check("unknown host", "http://backend.invalid")
}

func TestRedactionKeepsAnErrorJSON(t *testing.T) {
	for _, secret := range []string{"code", "message", "data", "3200", "ncafe", "true", `a"b\c`, "/v2/abc"} {
		r := newRedactor(Options{Headers: map[string]string{"X-Key": secret}}, must(url.Parse("http://h/")))
		text, _ := json.Marshal("it is \ncafe " + secret + "!")
		in := fmt.Sprintf(`{"code":-32000, "message":%s,"data":{"deep":[true,null,%s,13200]}}`, text, text)
		out := r.raw([]byte(in))
		var got struct {
			Code    int
			Message string
			Data    struct{ Deep []any }
		}
		if err := json.Unmarshal(out, &got); err != nil || got.Code != -32000 {
			t.Errorf("%q: %s: %v", secret, out, err)
			continue
		}
		if want := "it is \ncafe ***!"; got.Message != want || got.Data.Deep[2] != want {
			t.Errorf("%q: %s", secret, out)
		}
	}
}

func TestErrorWithoutSecretsIsUntouched(t *testing.T) {
	r := newRedactor(Options{}, must(url.Parse("http://h/v2/PATHSECRET12")))
	in := []byte(`{"code": 3 ,"message":"\u0065xecution \/ reverted","data":"0x"}`)
	if out := r.raw(in); &out[0] != &in[0] || len(out) != len(in) {
		t.Errorf("%s", out)
	}
}

func FuzzRedactionKeepsJSONAndHidesSecrets(f *testing.F) {
	f.Add(`{"code":1,"message":"a SECRETSECRET b"}`, "SECRETSECRET")
	f.Add(`{"code":1,"message":"\nabcde"}`, "nabcde")
	f.Fuzz(func(t *testing.T, in, secret string) {
		if !jsonrpc.Valid([]byte(in)) || len(secret) < 4 || strings.Contains("***", secret) || strings.Contains(secret, "*") {
			return
		}
		r := newRedactor(Options{Headers: map[string]string{"X": secret}}, &url.URL{Scheme: "http", Host: "h"})
		out := r.raw([]byte(in))
		if !jsonrpc.Valid(out) {
			t.Fatalf("%s became %s", in, out)
		}
		jsonrpc.Strings(out, func(text []byte) bool {
			if strings.Contains(string(text), secret) && !errorMembers[`"`+string(text)+`"`] {
				t.Fatalf("%q still stands in %s", secret, out)
			}
			return true
		})
	})
}

func TestLogLinesAreLimitedPerMethodAndCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l LineLimit
		lines := func(label, code string, n int) (passed, counted int) {
			for range n {
				ok, dropped := l.Allow(label, code)
				if ok {
					passed++
				}
				counted += dropped
			}
			return passed, counted
		}
		if n, _ := lines("eth_call", "-32000", 100); n != 10 {
			t.Fatalf("%d lines", n)
		}
		if n, _ := lines("eth_call", "-32005", 1); n != 1 {
			t.Fatal("another code has lines of its own")
		}
		if n, _ := lines("eth_getLogs", "-32000", 1); n != 1 {
			t.Fatal("another method has lines of its own")
		}
		time.Sleep(time.Second)
		if n, dropped := lines("eth_call", "-32000", 100); n != 10 || dropped != 90 {
			t.Fatalf("%d lines, %d counted", n, dropped)
		}
	})
}

func TestFailuresAreLoggedAtTenLinesASecond(t *testing.T) {
	logs := new(logBuffer)
	b := newBackend(t, answering(t, 500, ""), func(o *Options) { o.Log = logs.logger(slog.LevelWarn) })
	started := time.Now()
	for range 100 {
		ask(t, b, blockNumber())
	}
	seconds := int(time.Since(started)/time.Second) + 2
	if n := strings.Count(logs.String(), "attempt failed"); n < 10 || n > 10*seconds {
		t.Errorf("%d lines in under %d s", n, seconds)
	}
	for _, want := range []string{`"backend":"b"`, `"method":"eth_blockNumber"`, `"code":"status"`, `"status":500`, `"auth":"none"`} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("no %s in %s", want, logs.String()[:300])
		}
	}
}

func TestHoldOffIsLoggedOnceForAllThatWereUnderWay(t *testing.T) {
	logs := new(logBuffer)
	inTime(t, func(o *Options) { o.Log = logs.logger(slog.LevelDebug) }, func(t *testing.T, b *Backend) {
		started := time.Now()
		for range 200 {
			time.Sleep(time.Millisecond)
			b.health.holdOff(rateLimited(true), 0, "eth_call", started, time.Now(), b.health.trial.id)
		}
		if n := strings.Count(logs.String(), "held off"); n != 1 {
			t.Errorf("%d lines", n)
		}
	})
}

func TestClientFaultsAreDebugLines(t *testing.T) {
	logs := new(logBuffer)
	b := newBackend(t, answering(t, 200, `{"id":$0,"error":{"code":3,"message":"execution reverted"}}`), func(o *Options) { o.Log = logs.logger(slog.LevelInfo) })
	ask(t, b, call("eth_call", ""))
	if logs.String() != "" {
		t.Errorf("logged %s", logs.String())
	}
}

func TestLongMessagesAreCutInLogs(t *testing.T) {
	logs := new(logBuffer)
	b := newBackend(t, answering(t, 200, `{"id":$0,"error":{"code":-32603,"message":"internal error `+strings.Repeat("x", 5000)+`"}}`), func(o *Options) { o.Log = logs.logger(slog.LevelInfo) })
	ask(t, b, call("eth_call", ""))
	if n := len(logs.String()); n == 0 || n > 1000 {
		t.Errorf("%d bytes of log", n)
	}
}

func TestCodeLabelsAreBounded(t *testing.T) {
	var l codeLabels
	for code := int64(1000); code < 1000+otherCodes; code++ {
		if got := l.label(code); got != fmt.Sprint(code) {
			t.Fatalf("%d: %s", code, got)
		}
	}
	for code := int64(5000); code < 6000; code++ {
		if got := l.label(code); got != "other" {
			t.Fatalf("%d: %s", code, got)
		}
	}
	for code, want := range map[int64]string{1000: "1000", -32000: "-32000", -32601: "-32601", 3: "3", -32700: "-32700"} {
		if got := l.label(code); got != want {
			t.Errorf("%d: %s", code, got)
		}
	}
	if len(l.codes) != otherCodes {
		t.Errorf("%d codes are kept", len(l.codes))
	}
	for status, want := range map[int]string{0: "none", 200: "200", 999: "other", -1: "other"} {
		if got := StatusLabel(status); got != want {
			t.Errorf("%d: %s", status, got)
		}
	}
}

func TestProviderErrorsAreCountedByMethodBackendCodeStatusAndClass(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := newBackend(t, answering(t, 400, `{"id":$0,"error":{"code":-32005,"message":"too many requests"}}`), func(o *Options) { o.Metrics = NewMetrics(reg) })
	ask(t, b, call("eth_call", ""))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "proxyd_provider_errors_total" {
			continue
		}
		got := map[string]string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			got[l.GetName()] = l.GetValue()
		}
		want := map[string]string{"backend_name": "b", "method_name": "eth_call", "error_code": "-32005", "status_code": "400", "class": "rate_limit"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
		return
	}
	t.Error("not counted")
}

func TestSecretThatIsNoTextIsHiddenToo(t *testing.T) {
	r := newRedactor(Options{}, must(url.Parse("http://h/v3/00%B3SECRET%FF")))
	for _, text := range []string{"00\xb3SECRET\xff", "00%B3SECRET%FF", "00%b3secret%ff"} {
		if out := r.text("at /v3/" + text); strings.Contains(strings.ToLower(out), "secret") {
			t.Errorf("%q became %q", text, out)
		}
	}
}
