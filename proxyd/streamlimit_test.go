package proxyd

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// endless sends a result of a gigabyte, as far as that is taken, and says whether
// all of it was.
func endless(v *visit, how string, whole chan<- bool) (keep bool) {
	const pieces, piece = 1 << 14, 1 << 16
	front := []byte(`{"jsonrpc":"2.0","id":` + v.id + `,"result":"`)
	send := func(b []byte) bool { return v.write(b) }
	ok := true
	switch how {
	case "sized":
		ok = v.head(fmt.Sprint("Content-Length: ", len(front)+pieces*piece+2))
	case "chunked":
		ok = v.head("Transfer-Encoding: chunked")
		send = v.chunk
	default:
		ok = v.head("Connection: close")
	}
	filler := bytes.Repeat([]byte("a"), piece)
	ok = ok && send(front)
	for i := 0; ok && i < pieces; i++ {
		ok = send(filler)
	}
	whole <- ok && send([]byte(`"}`))
	return false
}

func TestEndlessResultIsCutAtTheLimit(t *testing.T) {
	const limit = 1 << 20
	for _, how := range []string{"chunked", "without a length", "chunked, through net/http"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			ended := make(chan bool, 1)
			way, _, through := strings.Cut(how, ", ")
			o := newOrigin(t, func(v *visit) bool { return endless(v, way, ended) })
			other := answering(t, idFirst, large(100<<10), delivered["sized"])
			keys := ""
			if through {
				keys = "http2 = true"
			}
			g := start(t, keyed(keys, fmt.Sprintf("[backend]\nmax_response_size_bytes = %d", limit), o.url, other.url), nil)
			res := g.open(t, call("[]", "7"))
			body, err := io.ReadAll(res.Body)
			broken(t, body, err)
			if n := len(body); n < limit/2 || n > limit+1000 {
				t.Errorf("the client got %d bytes of at most %d", n, limit)
			}
			select {
			case whole := <-ended:
				if whole {
					t.Error("the upstream sent 1 GiB")
				}
			case <-time.After(30 * time.Second):
				t.Error("the upstream's connection stays open")
			}
			if n := other.asked.Load(); n != 0 {
				t.Errorf("the other backend was asked %d times", n)
			}
		})
	}
}

func TestCompressedResultIsCutAtTheLimitOfWhatItInflatesTo(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, `{"jsonrpc":"2.0","id":1,"result":"`)
	piece := bytes.Repeat([]byte("a"), 1<<20)
	for range 8 {
		_, _ = z.Write(piece)
	}
	_, _ = io.WriteString(z, `"}`)
	_ = z.Close()
	for _, more := range []string{"", "[server]\ngzip = true\n"} {
		o := newOrigin(t, func(v *visit) bool {
			return v.head("Content-Encoding: gzip", lengthLine(bomb.Bytes())) && v.write(bomb.Bytes())
		})
		g := start(t, keyed("gzip = true", fmt.Sprintf("%s[backend]\nmax_response_size_bytes = %d", more, limit), o.url), nil)
		status, h, body, err := g.post("/", call("[]", "7"), "Accept-Encoding", "gzip")
		if len(body) > limit+1000 || err == nil && status == 200 {
			t.Errorf("%d %v, %d bytes, %v", status, h, len(body), err)
		}
	}
}

func TestAnnouncedLengthOverTheLimitIsAnError(t *testing.T) {
	t.Parallel()
	const tooLarge = `{"jsonrpc":"2.0","error":{"code":-32020,"message":"backend response too large"},"id":7}` + "\n"
	for name, c := range map[string]struct {
		how   string
		limit int
	}{
		"announced":                     {"sized", 1 << 20},
		"announced, less than streamed": {"sized", 10_000},
		"chunked, less than streamed":   {"chunked", 10_000},
	} {
		ended := make(chan bool, 1)
		o := newOrigin(t, func(v *visit) bool { return endless(v, c.how, ended) })
		other := answering(t, idFirst, large(100<<10), delivered["sized"])
		g := start(t, keyed("", fmt.Sprintf("[backend]\nmax_response_size_bytes = %d", c.limit), o.url, other.url), nil)
		status, _, body, err := g.post("/", call("[]", "7"))
		if err != nil || status != 500 || body != tooLarge {
			t.Errorf("%s: %d %.300s %v", name, status, body, err)
		}
		select {
		case whole := <-ended:
			if whole {
				t.Errorf("%s: the upstream could send everything", name)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the upstream's connection stays open", name)
		}
		if n := other.asked.Load(); n != 0 {
			t.Errorf("%s: the other backend was asked %d times", name, n)
		}
	}
}

// The limit is that of the upstream's body, envelope included.
func TestResultOfJustTheLimitPasses(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sized", "chunked", "gzip"} {
		for _, s := range []shape{idFirst, idLast} {
			result := []byte(`"` + strings.Repeat("a", 200<<10) + `"`)
			body := s.around("1", result)
			o := answering(t, s, result, delivered[how])
			g := start(t, keyed("gzip = true", fmt.Sprintf("[backend]\nmax_response_size_bytes = %d", len(body)), o.url), nil)
			_, _, answer, err := g.post("/", call("[]", "7"))
			if err != nil {
				t.Fatal(how, err)
			}
			answers(t, []byte(answer), result, "7")

			less := start(t, keyed("gzip = true", fmt.Sprintf("[backend]\nmax_response_size_bytes = %d", len(body)-1), o.url), nil)
			if status, _, answer, err := less.post("/", call("[]", "7")); err == nil && status == 200 {
				t.Errorf("%s: one byte less passes %d bytes as well", how, len(answer))
			}
		}
	}
}
