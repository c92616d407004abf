package proxyd

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCutEndsRequestsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Bool
		f := newInFlight(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(time.Second) // what it takes to notice
			over.Store(true)
		}))
		go f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil).WithContext(f.base))
		synctest.Wait()
		f.cut()
		if !over.Load() {
			t.Error("a request outlives cut")
		}
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("a request after cut: %v", v)
			}
		}()
		f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	})
}
