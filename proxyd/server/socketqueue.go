package server

import (
	"context"
	"runtime"
	"sync"

	"github.com/coder/websocket"
)

// outgoing is a message to the client: a whole one, or a notification.
type outgoing struct {
	whole  []byte
	kind   websocket.MessageType
	id     string // of the notification's subscription
	result []byte
}

func (o *outgoing) size() int { return len(o.id) + len(o.result) + len(o.whole) }

// send queues an answer, once there is room, and writes what is queued if nobody does.
// then runs in between: what it queues comes behind the answer.
func (k *socket) send(o outgoing, then func()) {
	k.mu.Lock()
	for len(k.queue)-k.notes > maxAnswers && !k.ended {
		k.wait()
	}
	if k.ended {
		k.mu.Unlock()
		return
	}
	k.queue = append(k.queue, o)
	writes := !k.writing
	k.writing = true
	k.mu.Unlock()
	then()
	if writes {
		// What is answered together goes out together.
		runtime.Gosched()
		k.flush()
	}
}

// maxAnswers is how many answers wait in the queue; others wait with their calls,
// which are bounded.
const maxAnswers = 16

// wait waits for room, or for the end. The caller holds the lock.
func (k *socket) wait() {
	if k.room == nil {
		k.room = sync.NewCond(&k.mu)
	}
	k.room.Wait()
}

// Notify implements jsonrpc.Session.
func (k *socket) Notify(id string, result []byte) {
	o := outgoing{id: id, result: result}
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return
	}
	if k.notes == maxQueued || k.notes > 0 && k.bytes+o.size() > maxQueuedBytes {
		k.mu.Unlock()
		k.ch.metrics.slowReaders.Inc()
		k.close(websocket.StatusPolicyViolation, "too slow: notifications come faster than they are read")
		return
	}
	k.queue = append(k.queue, o)
	k.notes++
	k.bytes += o.size()
	if !k.writing {
		k.writing = true
		k.s.sockets.serving.Go(k.flush)
	}
	k.mu.Unlock()
}

// flush writes what is queued, frames that wait together in one piece.
func (k *socket) flush() {
	defer k.recovered()
	for {
		k.mu.Lock()
		batch := k.queue
		k.queue, k.notes, k.bytes = nil, 0, 0
		if len(batch) == 0 || k.ended {
			k.writing = false
			if k.leaving && k.room != nil {
				k.room.Broadcast()
			}
			k.mu.Unlock()
			return
		}
		if k.room != nil {
			k.room.Broadcast()
		}
		k.mu.Unlock()
		k.under.begin()
		err := k.writeAll(batch)
		if e := k.under.end(); err == nil {
			err = e
		}
		if err != nil {
			k.end(websocket.StatusAbnormalClosure, nil)
			k.cut()
		}
	}
}

func (k *socket) writeAll(batch []outgoing) error {
	room := messages.Get().(*[]byte)
	defer messages.Put(room)
	for i := range batch {
		o := &batch[i]
		message, kind := o.whole, o.kind
		if message == nil {
			kind = websocket.MessageText
			message = append((*room)[:0], `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"`...)
			message = append(append(message, o.id...), `","result":`...)
			message = append(append(message, o.result...), `}}`...)
			if cap(message) <= maxPooled {
				*room = message
			}
		}
		// A context that can end costs a goroutine's worth for each frame; the
		// connection has its own deadline.
		if err := k.conn.Write(context.Background(), kind, message); err != nil {
			return err
		}
	}
	return nil
}
