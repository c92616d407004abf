package proxyd

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// spelled are ids as clients may write them; %d makes most of them different
// from one another.
var spelled = []string{
	"%d", "-%d", "%d.5", "%d.0", "%de3", "-%d.25E-7", "0", "-0", "18446744073709551616%d", "9007199254740993%d", "-340282366920938463463374607431768211456%d",
	`"%d"`, `"a %d"`, `"\u00e9\ud83d\ude00 %d"`, `"é😀 %d"`, `"\"\\\/\b\f\n\r\t%d"`, `" %d "`, `"id\":%d}"`, `"$%d"`, "null", "true",
	`"` + strings.Repeat("long", 200) + `%d"`,
}

func TestEveryCallGetsItsOwnIDAndResult(t *testing.T) {
	result := func(params string) string {
		h := fnv.New64a()
		h.Write([]byte(params))
		text := fmt.Sprintf("%016x", h.Sum64())
		if h.Sum64()%10 == 0 { // some are large enough to be streamed
			text = strings.Repeat(text, 5000)
		}
		return `{"of":` + params + `,"is":"` + text + `"}`
	}
	o := newOrigin(t, func(v *visit) bool {
		time.Sleep(rand.N(5 * time.Millisecond)) // answers overtake one another
		s, how := idFirst, "sized"
		if rand.N(2) == 0 {
			s = idLast
		}
		if rand.N(2) == 0 {
			how = "chunked"
		}
		return delivered[how](v, s.around(v.id, []byte(result(v.params))))
	})
	g := start(t, keyed("", "[server]\nmax_streams_per_client = 0", o.url), nil)
	g.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
	const callers = 1000
	var wg, begin sync.WaitGroup
	begin.Add(callers)
	for i := range callers {
		wg.Go(func() {
			begin.Done()
			begin.Wait() // all at once
			for round := range 2 {
				id := spelled[(i+round)%len(spelled)]
				if strings.Contains(id, "%d") {
					id = fmt.Sprintf(id, 1+i)
				}
				params := fmt.Sprintf(`["0x%x",{"round":%d}]`, i, round)
				status, _, body, err := g.post("/", call(params, id))
				if err != nil || status != 200 {
					t.Errorf("id %s: %d %.300s %v", id, status, body, err)
					continue
				}
				answers(t, []byte(body), []byte(result(params)), id)
			}
		})
	}
	wg.Wait()
	if n := o.asked.Load(); n != 2*callers {
		t.Errorf("%d calls were asked %d times", 2*callers, n)
	}
}
