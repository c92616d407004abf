package integration_tests

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// What a configuration knows and nobody else may read.
const (
	pathKey   = "SECRETKEY123456"
	queryKey  = "QUERYSECRET7890"
	headerKey = "HEADERSECRET345"
	password  = "PASSWORDSECRET6"
)

// misdeeds are what providers answer when they do not answer; some repeat the key they were asked with.
var misdeeds = map[string]http.HandlerFunc{
	"500": func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "cannot serve "+r.URL.String(), http.StatusInternalServerError)
	},
	"garbage": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<html>%s</html>", r.URL)
	},
	"429": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "slow down, "+r.URL.String(), http.StatusTooManyRequests)
	},
	"401 in JSON-RPC": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"key %s is over its quota"}}`, pathKey)
	},
	"200 with an error that repeats the key": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"%s: daily limit","data":{"see":"https://provider.example%s"}}}`, r.URL, r.URL)
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere?key="+pathKey, http.StatusTemporaryRedirect)
	},
	"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"cut in the body": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":"%s`, r.URL.Path)
		panic(http.ErrAbortHandler)
	},
}

func TestSecretsOfBackendsAppearNowhere(t *testing.T) {
	t.Parallel()
	n := startAnvil(t)
	run := func(name string, misdeed http.HandlerFunc, stop, fails bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, n)
			p.misbehave(misdeed)
			g := startGateway(t, secretConfig(p))
			if stop {
				p.server.Close()
			}
			var seen strings.Builder
			for i := range 4 { // several, so that the backend goes out of service as well
				body := request(fmt.Sprint(i), "eth_getBalance", fmt.Sprintf(`["0x%040x","latest"]`, i))
				if i%2 == 1 {
					body = fmt.Sprintf("[%s,%s]", body, request(`"second"`, "eth_chainId", "[]"))
				}
				status, header, reply, err := g.client.post(body)
				if err != nil {
					t.Errorf("call %d: %v", i, err)
				}
				fmt.Fprintln(&seen, status, header, string(reply))
				if failed := strings.Contains(string(reply), `"error"`); failed != fails {
					t.Errorf("call %d: HTTP %d %s", i, status, reply)
				}
			}
			for _, page := range []string{g.url + "/readyz", g.url + "/healthz", g.metricsURL + "/metrics"} {
				_, body, err := get(page)
				if err != nil {
					t.Error(err)
				}
				seen.WriteString(body)
			}
			g.stop(t)
			findSecrets(t, "answers and metrics", seen.String())
			findSecrets(t, "logs", g.output())
		})
	}
	run("success", nil, false, false)
	run("down", nil, true, true)
	for name, misdeed := range misdeeds {
		run(name, misdeed, false, true)
	}
}

func secretConfig(p *provider) string {
	return config{
		backend:  "response_timeout_seconds = 2\nmax_retries = 1\nout_of_service_seconds = 1",
		backends: []string{p.url("/v3/" + pathKey + "?apikey=" + queryKey)},
		more: fmt.Sprintf("[backends.node1.headers]\nx-provider-key = %q\n\n[cache]\nenabled = true\n",
			headerKey),
	}.String() + fmt.Sprintf("\n[backends.spare]\nrpc_url = %q\nusername = \"user\"\npassword = %q\n"+
		"[backend_groups.spare]\nbackends = [\"spare\"]\n", p.url("/v3/"+pathKey), password)
}

func findSecrets(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range []string{pathKey, queryKey, headerKey, password, base64.StdEncoding.EncodeToString([]byte("user:" + password))} {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s hold the secret %s: …%s…", where, secret, text[max(0, at-300):min(len(text), at+100)])
		}
	}
}

func TestMetricsTellThatItIsUpAndWhichBackendServed(t *testing.T) {
	t.Parallel()
	n := startAnvil(t)
	g := startGateway(t, config{backends: []string{n.url}}.String())
	g.client.must(t, "eth_blockNumber", "[]")
	g.client.must(t, "eth_blockNumber", "[]")
	metrics := g.metrics(t)
	for _, want := range []string{
		`(?m)^proxyd_up 1$`,
		`(?m)^proxyd_rpc_calls_total\{backend_name="node1",method_name="eth_blockNumber",status_code="200",.*\} 2$`,
	} {
		if !regexp.MustCompile(want).MatchString(metrics) {
			t.Errorf("no metric matches %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "proxyd_up") || strings.HasPrefix(line, "proxyd_rpc_calls_total") {
				t.Log(line)
			}
		}
	}
}
