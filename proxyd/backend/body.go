package backend

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// body reads the body of an answer, decompressed.
type body struct {
	a   *Attempt
	x   exchange
	res *http.Response
	src io.Reader
	// left is how many bytes are to come, -1 when unknown.
	left int64
	// streams gives each piece the whole response timeout, whatever the
	// attempt's share of the call's time.
	streams bool
}

var errEncoding = errors.New("a content encoding that was not asked for")

// open undoes the encoding.
func (b *body) open() (err error) {
	network := io.Reader(pieces{b})
	b.src, b.left = network, b.res.ContentLength
	switch encoding := strings.ToLower(b.res.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip": // which comes unasked now and then
		b.src, err = gzip.NewReader(network)
		b.left = -1
	default:
		return errEncoding
	}
	return err
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF // whatever may stand behind it
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left] // net/http does not know what the kernel has moved
	}
	n, err := b.src.Read(p)
	if b.left >= 0 {
		if b.left -= int64(n); b.left == 0 && b.a.Backend.pool != nil {
			return n, io.EOF // without a further read to find it out
		}
	}
	return n, err
}

// pieces reads from the connection. Each piece has its time, as long as anybody
// waits for the attempt, and shows that the backend is there.
type pieces struct{ *body }

func (b pieces) Read(p []byte) (int, error) {
	if (b.streams || !b.x.here()) && !b.a.abandoned.Load() {
		b.x.extend(b.deadline())
	}
	n, err := b.res.Body.Read(p)
	if b.streams {
		b.x.rest()
	}
	if n > 0 {
		b.a.Backend.health.noteHeard(time.Now())
	}
	return n, err
}

// deadline is when the next piece must have come. Every piece has the attempt's
// timeout anew; but as long as nothing went to the client all together have no
// more than the attempt's share of the call's time, so that a trickle does not
// keep the call from other backends.
func (b *body) deadline() time.Time {
	if b.streams {
		return time.Now().Add(b.a.Backend.opts.ResponseTimeout)
	}
	return b.a.until(time.Now())
}

var errTooLarge = errors.New("answer larger than max_response_size_bytes")

// readAll reads b to its end, behind what was read before. With errTooLarge it
// returns what has come, which is more than limit unless the length alone was.
// The memory taken never runs far ahead of what has come.
func (b *body) readAll(before []byte, limit int64) ([]byte, error) {
	size := int64(-1)
	if b.left >= 0 {
		size = int64(len(before)) + b.left
	}
	if size > limit {
		return before, errTooLarge
	}
	buf := before
	if cap(buf) == 0 {
		first := int64(512)
		if size >= 0 {
			first = min(size+1, 1<<20)
		}
		buf = make([]byte, 0, first)
	}
	for {
		if int64(len(buf)) > limit {
			return buf, errTooLarge
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), grow(int64(cap(buf)), size))
			copy(grown, buf)
			buf = grown
		}
		n, err := b.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF && int64(len(buf)) <= limit {
			return buf, nil
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read reply: %w", err)
		}
	}
}

// grow returns the next capacity: double, but no more than the expected size
// needs.
func grow(old, size int64) int64 {
	if size > old {
		return min(2*old, size+1)
	}
	return 2 * old
}
