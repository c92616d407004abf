package cache

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryStaysWithinItsBytesUnderRandomLoad(t *testing.T) {
	const limit = 1 << 20
	m := NewMemory(limit)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 20_000 {
				key := fmt.Sprint("key", r.IntN(5000))
				if r.IntN(3) == 0 {
					if v, ok, _ := m.Get(context.Background(), key); ok && !bytes.HasSuffix(v, []byte(key)) {
						t.Errorf("%s has the value of another key", key)
					}
					continue
				}
				value := append(make([]byte, r.IntN(1<<r.IntN(18))), key...)
				_ = m.Put(context.Background(), key, value, time.Duration(1+r.IntN(1000))*time.Millisecond)
				if size := m.Size(); size > limit {
					t.Errorf("%d bytes, over %d", size, limit)
					return
				}
			}
		})
	}
	wg.Wait()
	if m.Len() < 10 || m.Size() < limit/4 {
		t.Errorf("%d entries of %d bytes: the load was not held", m.Len(), m.Size())
	}
	// The count of bytes is the entries' own.
	var size int64
	for i := range m.shards {
		s := &m.shards[i]
		for _, k := range s.lru.Keys() {
			e, _ := s.lru.Peek(k)
			size += entrySize(k, e.value)
		}
	}
	if size != m.Size() {
		t.Errorf("entries take %d bytes, counted %d", size, m.Size())
	}
}

func TestMemoryIsNotMuchMoreThanItsBytesOfHeap(t *testing.T) {
	const limit = 16 << 20
	before := heap()
	m := NewMemory(limit)
	for i := range 400_000 { // small entries, where the overhead counts
		_ = m.Put(context.Background(), fmt.Sprintf("eth_chainId:%d", i), []byte(`"0x1"`), time.Hour)
	}
	if used := heap() - before; used > 2*limit {
		t.Errorf("%d MiB of heap for a bound of %d MiB", used>>20, limit>>20)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestMemoryEndsEvenWithoutRoom(t *testing.T) {
	for _, limit := range []int64{1, 100, 5000} {
		m := NewMemory(limit)
		for i := range 100 {
			if err := m.Put(context.Background(), fmt.Sprint(i), make([]byte, i*10), time.Hour); err != nil {
				t.Error(err)
			}
		}
		if m.Size() > limit {
			t.Errorf("limit %d: %d bytes", limit, m.Size())
		}
	}
}

func TestMemoryDropsWhatWasUsedLongestAgo(t *testing.T) {
	m := NewMemory(16 * 4 * (entryOverhead + 100)) // a little over four in each shard
	m.shards[0].lru.Len()
	first := "0"
	_ = m.Put(context.Background(), first, make([]byte, 50), time.Hour)
	for i := range 1000 {
		_ = m.Put(context.Background(), fmt.Sprint("other", i), make([]byte, 50), time.Hour)
		if _, ok, _ := m.Get(context.Background(), first); !ok {
			t.Fatalf("the entry in use was dropped after %d others", i+1)
		}
	}
}

func TestMemoryCopiesWhatItKeeps(t *testing.T) {
	m := NewMemory(0)
	big := bytes.Repeat([]byte("x"), 1<<20)
	value := big[:3]
	_ = m.Put(context.Background(), "k", value, time.Hour)
	value[0] = 'y'
	if got, ok, _ := m.Get(context.Background(), "k"); !ok || string(got) != "xxx" || cap(got) > 8 {
		t.Errorf("%q with room for %d", got, cap(got))
	}
}

func TestMemoryNeverReturnsAnEntryAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(0)
		put := func(ttl time.Duration) { _ = m.Put(t.Context(), "k", []byte("v"), ttl) }
		there := func() bool { _, ok, _ := m.Get(t.Context(), "k"); return ok }
		put(time.Second)
		time.Sleep(time.Second - time.Microsecond)
		if !there() {
			t.Error("gone before its time")
		}
		time.Sleep(time.Microsecond)
		if there() || m.Len() != 0 || m.Size() != 0 {
			t.Errorf("there after its time, or still counted: %d entries, %d bytes", m.Len(), m.Size())
		}
		put(time.Hour)
		put(time.Second) // a shorter time replaces a longer one
		time.Sleep(2 * time.Second)
		if there() {
			t.Error("the time of a replaced entry holds")
		}
		for _, ttl := range []time.Duration{0, -time.Second} {
			put(ttl)
			if there() {
				t.Errorf("kept for %v", ttl)
			}
		}
	})
}
