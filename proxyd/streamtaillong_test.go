package proxyd

import (
	"strings"
	"testing"
)

// An error or a second result is told from the result itself though it ends with
// the same bracket, and takes more than a packet.
func TestNoWholeAnswerReachesTheClientWhenAnErrorOrAResultIsLong(t *testing.T) {
	object := `{"a":` + string(large(1<<20)) + `}`
	array := string(large(1 << 20))
	long := strings.Repeat("x", 2<<10)
	const first = `{"jsonrpc":"2.0","id":$,"result":`
	for name, text := range map[string]string{
		"an object and a long error":        first + object + `,"error":{"code":-32000,"message":"execution reverted","data":"` + long + `"}}`,
		"an array and a long second result": first + array + `,"result":["` + long + `"]}`,
		"a string and a long second result": first + `"` + strings.Repeat("a", 1<<20) + `","result":"` + long + `"}`,
	} {
		noWhole(t, name, text)
	}
}
