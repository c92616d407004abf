package proxyd

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestNoWholeAnswerReachesTheClientWhenItsEndIsWrong(t *testing.T) {
	result := string(large(1 << 20))
	const first, last = `{"jsonrpc":"2.0","id":$,"result":`, `{"jsonrpc":"2.0","result":`
	for name, text := range map[string]string{
		"another id":                         last + result + `,"id":1$}`,
		"another id as a string":             last + result + `,"id":"1$"}`,
		"a null id":                          last + result + `,"id":null}`,
		"an id in an object":                 last + result + `,"id":{"id":$}}`,
		"no id":                              last + result + `}`,
		"the id twice":                       last + result + `,"id":$,"id":$}`,
		"the id in front and another behind": first + result + `,"id":1$}`,
		"a second result":                    first + result + `,"result":"0x1"}`,
		"an error":                           first + result + `,"error":{"code":-32000,"message":"header not found"}}`,
		"an error that is text":              first + result + `,"error":"header not found"}`,
		"an error that is a number":          last + result + `,"error":1,"id":$}`,
		"an error and the id":                last + result + `,"error":{"code":-32000,"message":"header not found"},"id":$}`,
		"bytes behind":                       first + result + `}}`,
		"another answer behind":              first + result + `}` + first + `"0x1"}`,
		"no end":                             first + result,
		"no end, id last":                    last + result + `,"id":$`,
		"a comma at the end":                 first + result + `,}`,
		"an end within a string":             first + `"` + strings.Repeat("a", 1<<20),
		"an end within an array":             first + result[:len(result)-1],
		"an end behind an escape":            first + `"` + strings.Repeat("a", 1<<20) + `\"}`,
		"a colon missing":                    last + result + `,"id"$}`,
		"a comma missing":                    last + result + `"id":$}`,
		"a zero byte":                        first + result + "\x00}",
	} {
		noWhole(t, name, text)
	}
}

// A result that ends with the same bracket as what stands behind it.
func TestNoWholeAnswerReachesTheClientWhenAnErrorOrAnotherResultStandsBehind(t *testing.T) {
	array := string(large(1 << 20))
	object := `{"a":` + array + `}`
	const first, last = `{"jsonrpc":"2.0","id":$,"result":`, `{"jsonrpc":"2.0","result":`
	for name, text := range map[string]string{
		"an object and an error":         first + object + `,"error":{"code":-32000,"message":"header not found"}}`,
		"an object, an error and the id": last + object + `,"error":{"code":-32000,"message":"header not found"},"id":$}`,
		"an object and a second result":  first + object + `,"result":{"a":1}}`,
		"an array and a second result":   first + array + `,"result":[]}`,
		"a string and a second result":   first + `"` + strings.Repeat("a", 1<<20) + `","result":"\""}`,
	} {
		noWhole(t, name, text)
	}
}

// noWhole sends an answer whose end is wrong; $ is the id.
func noWhole(t *testing.T, name, text string) {
	for _, how := range []string{"sized", "chunked"} {
		t.Run(name+", "+how, func(t *testing.T) {
			t.Parallel()
			seen := make(chan struct{})
			deliver := inTwo(how, func(v *visit) bool { v.await(seen); return true })
			o := newOrigin(t, func(v *visit) bool { return deliver(v, []byte(strings.ReplaceAll(text, "$", v.id))) })
			other := answering(t, idFirst, large(1<<20), delivered["sized"])
			g := start(t, keyed("", "", o.url, other.url), nil)
			res := g.open(t, call("[]", "7"))
			begin := make([]byte, 1000)
			if _, err := io.ReadFull(res.Body, begin); err != nil {
				t.Fatal(err)
			}
			close(seen)
			body, err := io.ReadAll(res.Body)
			broken(t, body, err)
			if a, b := o.asked.Load(), other.asked.Load(); a != 1 || b != 0 {
				t.Errorf("the backend was asked %d times, the other %d times", a, b)
			}
			if t.Failed() {
				return
			}
			becomes(t, "proxyd_provider_errors_total counts the backend", func() bool {
				return g.series(t, "proxyd_provider_errors_total", `backend_name="b1"`) == 1
			})
			becomes(t, "the log warns of the backend", func() bool { return g.warned("b1") })
		})
	}
}

// White space and members without meaning behind the result may be more than a
// gateway keeps back: then it may give up, but not pass on what is wrong.
func TestLongTailIsRightOrVisiblyCut(t *testing.T) {
	for name, back := range map[string]string{
		"much white space":         strings.Repeat(" \n", 50<<10) + `,"id":$}`,
		"white space at the end":   `,"id":$}` + strings.Repeat("\r\n", 50<<10),
		"white space in the id":    `,"id"` + strings.Repeat("\t", 100<<10) + `:$}`,
		"a member of its own":      `,"cost":12,"id":$}`,
		"a long member of its own": `,"trace":"` + strings.Repeat("x", 100<<10) + `","id":$}`,
		"the other way round":      `,"error":null,"jsonrpc":"2.0","id":$}`,
		"an escaped name":          `,"\u0069d":$}`,
	} {
		for _, how := range []string{"sized", "chunked"} {
			t.Run(fmt.Sprint(name, ", ", how), func(t *testing.T) {
				t.Parallel()
				o := answering(t, shape{`{"jsonrpc":"2.0","result":`, back}, large(300<<10), delivered[how])
				g := start(t, keyed("", "", o.url), nil)
				status, _, body, err := g.post("/", call("[]", "7"))
				switch {
				case err != nil || status != 200:
					t.Logf("given up: %d %v", status, err)
				default:
					answers(t, []byte(body), large(300<<10), "7")
				}
			})
		}
	}
}
