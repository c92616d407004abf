package main

import (
	"os"
	"runtime"
)

// heapFloor is 12 MiB that nobody ever writes to, so that they take no memory;
// but the garbage collector counts them as used. Without them the heap of a
// gateway is so small that it is collected dozens of times a second. With them a
// collection begins at about 28 MiB instead of 4; a heap that is large anyhow,
// like that of a large cache, hardly notices. docs/performance.md has the
// figures. An operator who sets GOGC or GOMEMLIMIT gets exactly that instead.
type heapFloor []byte

func newHeapFloor() heapFloor {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make(heapFloor, 12<<20)
}

// keep is called at the end of what the floor is for.
func (h heapFloor) keep() { runtime.KeepAlive(h) }
