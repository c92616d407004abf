package proxyd

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"gateway.internal/proxyd/devchain"
)

// What only the configuration, or only one client, knows.
const (
	pathSecret     = "PATHsecret0123456789abcdef"
	querySecret    = "QUERY-secret+0123/456789"
	userSecret     = "USERINFOsecret01234"
	passwordSecret = "PASSWORDsecret0123"
	headerSecret   = "HEADERsecret012345"
	clientSecret   = "CLIENTKEYsecret012345"
	exemptSecret   = "APIKEYsecret01234567"
)

func secrets() []string {
	list := []string{pathSecret, querySecret, url.QueryEscape(querySecret), userSecret, passwordSecret, headerSecret, clientSecret, exemptSecret}
	for _, s := range list {
		list = append(list, base64.StdEncoding.EncodeToString([]byte("user:"+s)), hex.EncodeToString([]byte(s)))
	}
	return list
}

// telltales answer with everything that they were asked with.
var telltales = map[string]http.HandlerFunc{
	"status 500": func(w http.ResponseWriter, r *http.Request) { http.Error(w, told(r), http.StatusInternalServerError) },
	"status 401": func(w http.ResponseWriter, r *http.Request) { http.Error(w, told(r), http.StatusUnauthorized) },
	"status 402": func(w http.ResponseWriter, r *http.Request) { http.Error(w, told(r), http.StatusPaymentRequired) },
	"status 404": func(w http.ResponseWriter, r *http.Request) { http.Error(w, told(r), http.StatusNotFound) },
	"status 429": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", told(r))
		http.Error(w, told(r), http.StatusTooManyRequests)
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/x?"+told(r), http.StatusTemporaryRedirect)
	},
	"odd redirect": func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{"http://%zz" + told(r)}
		w.WriteHeader(301)
	},
	"page": func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<html>%s", told(r)) },
	"error in 200": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":%q,"data":{"url":%q}},"id":null}`, told(r), told(r))
	},
	"error in 400": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":-32602,"message":%q},"id":null}`, told(r))
	},
	"limit in 200": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":-32005,"message":%q},"id":null}`, "daily request count exceeded: "+told(r))
	},
	"revert": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":3,"message":"execution reverted","data":%q},"id":null}`, told(r))
	},
	"error that is none": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":%q,"id":1}`, told(r))
	},
	"wrong code": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":%q},"id":1}`, told(r))
	},
	"id that tells": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","result":1,"id":%q}`, told(r))
	},
	"bad gzip": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, told(r))
	},
	"broken header": func(w http.ResponseWriter, r *http.Request) {
		speak(w, "HTTP/1.1 200 OK\r\n"+strings.ReplaceAll(told(r), "\n", " ")+"\r\n\r\n")
	},
	"not HTTP": func(w http.ResponseWriter, r *http.Request) { speak(w, told(r)+"\r\n\r\n") },
	"bad length": func(w http.ResponseWriter, r *http.Request) {
		speak(w, "HTTP/1.1 200 OK\r\nContent-Length: "+pathSecret+"\r\n\r\n")
	},
	"bad chunk": func(w http.ResponseWriter, r *http.Request) {
		speak(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+pathSecret+"\r\n")
	},
	"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"cut in a body": func(w http.ResponseWriter, r *http.Request) {
		speak(w, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"+told(r))
	},
	"hang": func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is a client that leaves seen
		<-r.Context().Done()
	},
}

// told is everything that a request holds.
func told(r *http.Request) string {
	q := r.URL.Query()
	_, password, _ := r.BasicAuth()
	return fmt.Sprint("you asked ", r.URL.String(), " ", q.Get("key"), " ", r.URL.RawQuery, " with ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Provider-Key"), " for ", pathSecret, " ", password)
}

// speak writes bytes on the connection itself.
func speak(w http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, text)
	_ = conn.Close()
}

func TestSecretsAppearNowhere(t *testing.T) {
	quiet := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Start()
		return s
	}
	run := func(name string, h http.Handler, change func(*httptest.Server)) {
		t.Run(name, func(t *testing.T) {
			s := quiet(h)
			t.Cleanup(s.Close)
			if change != nil {
				change(s)
			}
			host := strings.TrimPrefix(s.URL, "http://")
			g := start(t, fmt.Sprintf(`[authentication]
%q = "alice"
[backend]
response_timeout_milliseconds = 60
out_of_service_seconds = 1
[cache]
enabled = true
[backends.keyed]
rpc_url = "http://user:%s@%s/v3/%s?key=%s"
gzip = true
headers = { x-provider-key = %q }
[backends.worded]
rpc_url = "http://%s/%s"
username = "user"
password = %q
headers = { x-provider-key = "Bearer %s" }
[backend_groups.main]
backends = ["keyed", "worded"]
retry_count = 1
retry_delay = "1ms"
[rpc_method_mappings]
"*" = "main"`, clientSecret, userSecret, host, pathSecret, url.QueryEscape(querySecret), headerSecret, host, pathSecret, passwordSecret, headerSecret), func(o *Options) { o.APIKeys = []string{exemptSecret} })
			var seen strings.Builder
			ask := func(path, body string, headers ...string) {
				status, h, answer, err := g.post(path, body, headers...)
				if err != nil {
					t.Error(err)
				}
				fmt.Fprintln(&seen, status, h, answer)
			}
			for range 3 {
				ask("/"+clientSecret, request("eth_call", "[]"))
				ask("/"+clientSecret, request("eth_chainId", "[]"), "X-Api-Key", exemptSecret)
				ask("/", request("eth_sendRawTransaction", `["0x01"]`), "Authorization", "Bearer "+clientSecret)
				ask("/", "["+request("eth_chainId", "[]")+","+request("eth_call", "[1]")+","+request("made_up", "[]")+"]", "X-Api-Key", clientSecret)
			}
			ask("/"+clientSecret+"x", "{}")
			ask("/"+clientSecret, "{")
			ask("/"+clientSecret+"/x", "{")
			for _, path := range []string{"/readyz", "/healthz"} {
				_, body := g.get(t, g.RPCAddr(), path)
				seen.WriteString(body)
			}
			_, metrics := g.get(t, g.MetricsAddr(), "/")
			seen.WriteString(metrics)
			_ = g.Stop(t.Context())
			for where, text := range map[string]string{"answers, pages and metrics": seen.String(), "log": g.log.String()} {
				for _, secret := range secrets() {
					if at := strings.Index(text, secret); at >= 0 {
						t.Errorf("%s hold %s: …%s…", where, secret, text[max(0, at-300):min(len(text), at+60)])
						break
					}
				}
			}
			if !strings.Contains(g.log.String(), `"method":"eth_call"`) {
				t.Error("the log says nothing at all")
			}
		})
	}
	for name, h := range telltales {
		run(name, h, nil)
	}
	run("refused", http.NotFoundHandler(), (*httptest.Server).Close)
	chain := devchain.New(devchain.Options{})
	defer chain.Close()
	run("well", devchain.NewBackend(chain, "x"), nil)
	for _, kind := range []devchain.FaultKind{devchain.FaultStatus, devchain.FaultHang, devchain.FaultGarbage, devchain.FaultRateLimited, devchain.FaultRPCError, devchain.FaultWrongID, devchain.FaultClose, devchain.FaultTruncate} {
		b := devchain.NewBackend(chain, "x")
		b.SetFault(devchain.Fault{Kind: kind, RPCMessage: "over the limit of " + pathSecret, RetryAfter: "1"})
		run("fault "+string(kind), b, nil)
	}
}
