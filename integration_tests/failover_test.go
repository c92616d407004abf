package integration_tests

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const sink = "0x000000000000000000000000000000000000beef" // receives 1 wei with each transaction

func TestFailoverLosesNoCallWhenFirstListenerIsCut(t *testing.T) {
	t.Parallel()
	n := startGeth(t) // anvil can leave a transaction queued for ever that comes while it mines the one before
	first, second := newFaultyListener(t, n.addr), newFaultyListener(t, n.addr)
	g := startGateway(t, config{
		backend:  "response_timeout_seconds = 5\nmax_retries = 1\nout_of_service_seconds = 1",
		backends: []string{first.url(), second.url()},
	}.String())
	txs := n.sign(t, 400, sink)

	// Readers, single and in batches, for as long as the transactions take.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	for i := range 4 {
		single := i%2 == 0
		readers.Go(func() { readSteadily(t, ctx, g.client, single) })
	}

	var sent atomic.Int64
	send := func(until int) {
		for at := int(sent.Load()); at < until; at = int(sent.Load()) {
			size := 1
			if at%4 == 0 {
				size = min(3, until-at)
			}
			if err := sendTransactions(g.client, txs[at:at+size]); err != nil {
				t.Errorf("transactions %d to %d: %v", at, at+size-1, err)
			}
			sent.Add(int64(size))
		}
	}
	// meanwhile runs fault beside the sending of more transactions, so that it hits calls in flight.
	meanwhile := func(until int, fault func()) {
		var faults sync.WaitGroup
		faults.Go(fault)
		send(until)
		faults.Wait()
	}

	send(80)
	if first.seen().answers == 0 {
		t.Error("the first listener served nothing before the fault")
	}
	meanwhile(180, func() { // connections break, the listener stays
		tick := time.NewTicker(7 * time.Millisecond)
		defer tick.Stop()
		for sent.Load() < 180 {
			first.cut()
			<-tick.C
		}
	})
	meanwhile(200, first.refuse)
	before := second.seen().answers
	send(300)
	if second.seen().answers == before {
		t.Error("the second listener served nothing while the first refused")
	}
	first.restore(t)
	before = first.seen().answers
	send(len(txs))
	eventually(t, 20*time.Second, "the first listener to serve again", func() error {
		if first.seen().answers == before {
			return fmt.Errorf("no answer since it is back")
		}
		return nil
	})
	stop()
	readers.Wait()
	minedOnce(t, n, txs)
}

func TestSentTransactionWhoseAnswerIsLostIsAnsweredWithItsHash(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(*testing.T) *node{
		"mined at once":       func(t *testing.T) *node { return startAnvil(t) },
		"waiting in the pool": func(t *testing.T) *node { return startAnvil(t, "--no-mining") },
		"geth":                startGeth,
	}
	for kind, start := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := start(t)
			first, second := newFaultyListener(t, n.addr), newFaultyListener(t, n.addr)
			g := startGateway(t, config{backends: []string{first.url(), second.url()}}.String())
			txs := n.sign(t, 6, sink)
			first.become(loseAnswers)
			if err := sendTransactions(g.client, txs[:1]); err != nil {
				t.Errorf("single: %v", err)
			}
			first.restore(t)
			first.become(loseAnswers)
			if err := sendTransactions(g.client, txs[1:]); err != nil {
				t.Errorf("batch: %v", err)
			}
			if first.seen().requests == 0 {
				t.Error("the first listener was never asked")
			}
			if kind == "waiting in the pool" {
				n.must(t, "evm_mine", "[]")
			}
			minedOnce(t, n, txs)
		})
	}
}

// readSteadily asks until the context ends; every call must have a result of the right kind.
func readSteadily(t *testing.T, ctx context.Context, c *rpcClient, single bool) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		calls := []string{
			request(fmt.Sprintf(`"b%d"`, n), "eth_blockNumber", "[]"),
			request(fmt.Sprintf(`"n%d"`, n), "eth_getTransactionCount", fmt.Sprintf(`[%q,"latest"]`, devAccount)),
			request(fmt.Sprintf(`"c%d"`, n), "eth_chainId", "[]"),
		}
		var answers []answer
		var err error
		if single {
			calls = calls[n%3 : n%3+1]
			var a answer
			a, err = c.send(calls[0])
			answers = []answer{a}
		} else {
			answers, err = c.sendBatch(calls)
		}
		if err != nil {
			t.Errorf("read %d: %v", n, err)
			return
		}
		for i, a := range answers {
			var asked answer
			if err := json.Unmarshal([]byte(calls[i]), &asked); err != nil {
				t.Error(err)
			}
			if string(a.ID) != string(asked.ID) || len(a.Result) < len(`"0x0"`) || string(a.Result[:3]) != `"0x` {
				t.Errorf("read %s: id %s, result %s, error %s", calls[i], a.ID, a.Result, a.Error)
				return
			}
		}
		<-tick.C
	}
}

// sendTransactions sends one call, or a batch when there are several, and wants each answered by its hash.
func sendTransactions(c *rpcClient, txs []signedTx) error {
	var calls []string
	for i, tx := range txs {
		calls = append(calls, request(fmt.Sprint(i), "eth_sendRawTransaction", fmt.Sprintf("[%q]", tx.Raw)))
	}
	var answers []answer
	var err error
	if len(calls) == 1 {
		var a answer
		a, err = c.send(calls[0])
		answers = []answer{a}
	} else {
		answers, err = c.sendBatch(calls)
	}
	if err != nil {
		return err
	}
	for i, a := range answers {
		if want := fmt.Sprintf("%q", txs[i].Hash); string(a.Result) != want {
			return fmt.Errorf("answer %d of %d: result %s, error %s, want %s", i+1, len(answers), a.Result, a.Error, want)
		}
	}
	return nil
}

// minedOnce wants every transaction in a block, and together exactly their number of nonces and wei spent.
func minedOnce(t *testing.T, n *node, txs []signedTx) {
	t.Helper()
	n.mined(t, txs)
	if got := n.nonce(t); got != uint64(len(txs)) {
		t.Errorf("nonce %d after %d transactions", got, len(txs))
	}
	if got := n.quantity(t, "eth_getBalance", fmt.Sprintf(`[%q,"latest"]`, sink)); got != uint64(len(txs)) {
		t.Errorf("%d wei arrived, %d were sent", got, len(txs))
	}
}
