package probe

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
)

// probed is what a probe_url answers, and what it was asked.
type probed struct {
	mu     sync.Mutex
	begun  time.Time
	status int
	hang   time.Duration
	asked  []*http.Request
	at     []time.Duration
}

func (p *probed) says(status int, hang time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.hang = status, hang
}

func (p *probed) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

func (p *probed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked, p.at = append(p.asked, r), append(p.at, time.Since(p.begun))
	status, hang := p.status, p.hang
	p.mu.Unlock()
	if hang > 0 {
		select {
		case <-time.After(hang):
		case <-r.Context().Done():
			return
		}
	}
	if status >= 300 && status < 400 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	w.Write([]byte("fine"))
}

// probing is a setting without [health] whose first backend has a probe_url.
func probing(t testing.TB, p *probed, change func(*Target)) setting {
	return setting{
		probe: func(o *Options) { o.Enabled = false },
		target: func(i int, tg *Target) {
			if i > 0 {
				return
			}
			p.begun = time.Now()
			tg.URL, tg.Client = "http://node.memory/probe-key", memoryClient(t, p)
			if change != nil {
				change(tg)
			}
		},
	}
}

func TestProbesComeAfterAPartOfThePeriodAndThenEveryPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probed{status: 200}
		w := newWorld(t, 2, probing(t, p, nil))
		pass(time.Minute)
		if len(p.at) < 14 || p.at[0] >= 4*time.Second {
			t.Fatalf("probed at %v", p.at)
		}
		for i := 1; i < len(p.at); i++ {
			if d := p.at[i] - p.at[i-1]; d != 4*time.Second {
				t.Fatalf("probed after %s: %v", d, p.at)
			}
		}
		r := p.asked[0]
		if r.Method != http.MethodGet || r.URL.Path != "/probe-key" || !r.Close {
			t.Errorf("%s %s, close %v", r.Method, r.URL, r.Close)
		}
		want := http.Header{"User-Agent": {"proxyd-probe"}, "Accept": {"*/*"}, "Connection": {"close"}}
		r.Header.Del("Accept-Encoding") // of the test's client
		for name, values := range r.Header {
			if !slices.Equal(want[name], values) {
				t.Errorf("%s: %v", name, values)
			}
		}
		if got := len(w.nodes[0].took()); got != 0 {
			t.Errorf("%d calls without [health]", got)
		}
		if got := w.value("proxyd_backend_probe_healthy", "b0"); got != 1 {
			t.Errorf("healthy is %v", got)
		}
	})
}

func TestProbesTurnABackendAfterTheirThresholds(t *testing.T) {
	for name, test := range map[string]struct {
		change              func(*Target)
		failures, successes int
	}{
		"defaults": {nil, 1, 2},
		"three":    {func(tg *Target) { tg.FailureThreshold, tg.SuccessThreshold = 3, 3 }, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &probed{status: 204}
				w := newWorld(t, 1, probing(t, p, test.change))
				p.wait(t)
				pass(time.Second)
				p.says(503, 0)
				for range test.failures {
					w.state(0, backend.Well)
					pass(4 * time.Second)
				}
				w.state(0, backend.Unfit)
				w.reason(0, "status 503")
				if got := w.value("proxyd_backend_probe_healthy", "b0"); got != 0 {
					t.Errorf("healthy is %v", got)
				}
				p.says(200, 0)
				for range test.successes {
					w.state(0, backend.Unfit)
					pass(4 * time.Second)
				}
				w.state(0, backend.Well)
				if got := w.value("proxyd_backend_probe_healthy", "b0"); got != 1 {
					t.Errorf("healthy is %v", got)
				}
				if got := w.value("proxyd_backend_probe_checks_total", "b0", "failure"); got != float64(test.failures) {
					t.Errorf("%v failures", got)
				}
				if got := w.value("proxyd_backend_probe_checks_total", "b0", "success"); got != float64(1+test.successes) {
					t.Errorf("%v successes", got)
				}
				if got := w.value("proxyd_backend_probe_duration_seconds", "b0"); got != float64(1+test.failures+test.successes) {
					t.Errorf("%v durations", got)
				}
			})
		})
	}
}

// wait waits for the first probe.
func (p *probed) wait(t testing.TB) {
	for range 41 {
		if pass(100 * time.Millisecond); p.count() > 0 {
			return
		}
	}
	t.Fatal("no probe")
}

func TestWhatAProbeFinds(t *testing.T) {
	for _, test := range []struct {
		name string
		says func(p *probed)
		want string
	}{
		{"a redirect", func(p *probed) { p.status = 302 }, "status 302"},
		{"a 404", func(p *probed) { p.status = 404 }, "status 404"},
		{"too late", func(p *probed) { p.status, p.hang = 200, 1100*time.Millisecond }, "timeout"},
		{"in time", func(p *probed) { p.status, p.hang = 200, 900*time.Millisecond }, ""},
		{"a 299", func(p *probed) { p.status = 299 }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(probed)
				test.says(p)
				w := newWorld(t, 1, probing(t, p, nil))
				<-w.FirstRound()
				synctest.Wait()
				w.reason(0, test.want)
				if p.count() != 1 {
					t.Errorf("%d probes in the first round", p.count())
				}
				if strings.Contains(w.logs.String(), "probe-key") || strings.Contains(w.logs.String(), "node.memory") {
					t.Error("the URL is in the log")
				}
			})
		})
	}
}

func TestProbesAndChecksSpeakForThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probed{status: 500}
		s := probing(t, p, nil)
		s.probe = nil
		w := newWorld(t, 1, s)
		<-w.FirstRound()
		w.state(0, backend.Unfit)
		pass(5 * time.Minute) // good checks do not make up for it
		w.state(0, backend.Unfit)
		p.says(200, 0)
		pass(9 * time.Second)
		w.state(0, backend.Well)
	})
}

func TestStopDuringAProbeFindsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probed{status: 200, hang: time.Hour}
		w := newWorld(t, 1, probing(t, p, func(tg *Target) { tg.Timeout = time.Hour }))
		p.wait(t)
		w.Stop()
		w.state(0, backend.Well)
		if got := w.value("proxyd_backend_probe_healthy", "b0"); got != -1 {
			t.Errorf("the gauge is still there: %v", got)
		}
	})
}

// Real listeners from here on.

func TestProbesOverHTTPAndTLS(t *testing.T) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/broken":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("short"))
		case "/large":
			w.Write(make([]byte, 10*maxProbeBody))
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	plain, secure := httptest.NewServer(serve), httptest.NewUnstartedServer(serve)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	trusting := &tls.Config{RootCAs: roots}
	refused := httptest.NewServer(serve)
	refused.Close()
	for _, test := range []struct {
		name, url string
		tls       *tls.Config
		want      string
	}{
		{"http", plain.URL + "/good", nil, ""},
		{"large", plain.URL + "/large", nil, ""},
		{"bad", plain.URL + "/bad", nil, "status 500"},
		{"redirect", plain.URL + "/redirect", nil, "status 302"},
		{"broken", plain.URL + "/broken", nil, "body broke off"},
		{"refused", refused.URL, nil, "connection refused"},
		{"https", secure.URL + "/good", trusting, ""},
		{"https untrusted", secure.URL + "/good", nil, "certificate not trusted"},
		{"no TLS there", "https" + strings.TrimPrefix(plain.URL, "http"), trusting, "connection failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 1, setting{
				probe: func(o *Options) { o.Enabled = false },
				target: func(_ int, tg *Target) {
					tg.URL, tg.TLS, tg.Period, tg.Timeout = test.url, test.tls, 20*time.Millisecond, 5*time.Second
				},
			})
			<-w.FirstRound()
			w.reason(0, test.want)
			w.Stop()
			if text := w.logs.String(); strings.Contains(text, "127.0.0.1") || strings.Contains(text, "http:") {
				t.Errorf("an address in the log: %s", text)
			}
		})
	}
}
