package integration_tests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// The first account of the development mnemonic, whose key the programs in node/ use.
const devAccount = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"

// node is a real Ethereum node with a chain of its own.
type node struct {
	*rpcClient
	process *process
	addr    string // host:port
	chainID string // decimal
}

// nodeKinds are the nodes that tests run against; both fund devAccount and mine each transaction at once.
var nodeKinds = map[string]func(*testing.T) *node{
	"anvil": func(t *testing.T) *node { return startAnvil(t) },
	"geth":  startGeth,
}

var (
	anvilListens = regexp.MustCompile(`^Listening on (127\.0\.0\.1:\d+)`)
	gethListens  = regexp.MustCompile(`HTTP server started\s+endpoint=(127\.0\.0\.1:\d+)`)
)

// startAnvil runs anvil with the arguments, such as --no-mining.
func startAnvil(t *testing.T, args ...string) *node {
	t.Helper()
	bin := component(t, "anvil", "ANVIL_BIN", "node/node_modules/@foundry-rs/anvil-*/bin/anvil")
	cmd := exec.Command(bin, append([]string{"--host", "127.0.0.1", "--port", "0"}, args...)...)
	return startNode(t, "anvil", cmd, t.TempDir(), anvilListens)
}

// startGeth runs a geth development chain, which mines whenever a transaction is pending. Nothing but HTTP listens.
func startGeth(t *testing.T) *node {
	t.Helper()
	bin := component(t, "geth", "GETH_BIN", "../tools/bin/geth")
	dir := t.TempDir()
	cmd := exec.Command(bin, "--dev", "--dev.gaslimit", "30000000", "--datadir", dir, "--cache", "64",
		"--http", "--http.addr", "127.0.0.1", "--http.port", "0", "--http.api", "eth,net,web3,txpool,debug",
		"--ipcdisable", "--nodiscover", "--port", "0", "--nat", "none")
	n := startNode(t, "geth", cmd, dir, gethListens)

	// The development chain's own account is unlocked and rich.
	var accounts []string
	if err := json.Unmarshal(n.must(t, "eth_accounts", "[]"), &accounts); err != nil || len(accounts) != 1 {
		t.Fatalf("geth: accounts %v, %v", accounts, err)
	}
	n.must(t, "eth_sendTransaction", fmt.Sprintf(`[{"from":%q,"to":%q,"value":"0x3635c9adc5dea00000"}]`, accounts[0], devAccount))
	eventually(t, 20*time.Second, "the first block of geth", func() error {
		balance, err := n.call("eth_getBalance", fmt.Sprintf(`[%q,"latest"]`, devAccount))
		if err == nil && string(balance) == `"0x0"` {
			err = fmt.Errorf("balance %s", balance)
		}
		return err
	})
	return n
}

func startNode(t *testing.T, name string, cmd *exec.Cmd, home string, listens *regexp.Regexp) *node {
	t.Helper()
	cmd.Env = append(os.Environ(), "HOME="+home)
	n := &node{}
	n.process = startProcess(t, name, cmd, 300, func(line string) bool {
		found := listens.FindStringSubmatch(line)
		if found != nil {
			n.addr = found[1]
		}
		return found != nil
	})
	n.rpcClient = newRPCClient(t, "http://"+n.addr)
	eventually(t, startLimit, name+" to answer", func() error {
		var hex string
		id, err := n.call("eth_chainId", "[]")
		if err == nil {
			err = json.Unmarshal(id, &hex)
		}
		if err == nil {
			var number uint64
			_, err = fmt.Sscanf(hex, "0x%x", &number)
			n.chainID = fmt.Sprint(number)
		}
		return err
	})
	return n
}

// component finds the binary of a real component: the one named by the environment, the installed one, or one in PATH.
func component(t *testing.T, name, env, installed string) string {
	t.Helper()
	if bin := os.Getenv(env); bin != "" {
		return bin
	}
	found, err := filepath.Glob(installed)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		bin, err := filepath.Abs(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return bin
	}
	bin, err := exec.LookPath(name)
	if err != nil {
		missing(t, name)
	}
	return bin
}

// runClient runs one of the programs in node/ and decodes the line of JSON it prints.
func runClient(t *testing.T, into any, program string, args ...string) {
	t.Helper()
	cmd := nodeCommand(t, program, args...)
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("%s: %v\n%s", program, err, stderr)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// nodeCommand is one of the programs in node/, not yet started.
func nodeCommand(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node")
	}
	for _, module := range []string{"viem", "ethers"} {
		if _, err := os.Stat(filepath.Join("node/node_modules", module)); err != nil {
			missing(t, module)
		}
	}
	cmd := exec.CommandContext(t.Context(), bin, append([]string{program}, args...)...)
	cmd.Dir = "node"
	return cmd
}

// signedTx is a transaction ready to be sent.
type signedTx struct {
	Raw      string `json:"raw"`
	Hash     string `json:"hash"`
	Contract string `json:"contract"`
}

// sign makes count transactions of devAccount for the node's chain; node/sign.mjs says what may follow.
func (n *node) sign(t *testing.T, count int, to string, more ...string) []signedTx {
	t.Helper()
	var signed []signedTx
	runClient(t, &signed, "sign.mjs", append([]string{n.chainID, fmt.Sprint(count), to}, more...)...)
	if len(signed) != count {
		t.Fatalf("sign.mjs: %d transactions, want %d", len(signed), count)
	}
	return signed
}

// nonce is the number of transactions of devAccount in blocks.
func (n *node) nonce(t *testing.T) uint64 {
	t.Helper()
	return n.quantity(t, "eth_getTransactionCount", fmt.Sprintf(`[%q,"latest"]`, devAccount))
}

func (n *node) quantity(t *testing.T, method, params string) uint64 {
	t.Helper()
	var number uint64
	result := n.must(t, method, params)
	if _, err := fmt.Sscanf(string(result), `"0x%x"`, &number); err != nil {
		t.Fatalf("%s: %s is no quantity: %v", method, result, err)
	}
	return number
}

// mined waits until each transaction is in a block and succeeded.
func (n *node) mined(t *testing.T, txs []signedTx) {
	t.Helper()
	for i, tx := range txs {
		eventually(t, 30*time.Second, fmt.Sprintf("transaction %d of %d, %s", i+1, len(txs), tx.Hash), func() error {
			var receipt struct{ Status string }
			raw, err := n.call("eth_getTransactionReceipt", fmt.Sprintf("[%q]", tx.Hash))
			if err == nil {
				err = json.Unmarshal(raw, &receipt)
			}
			if err == nil && receipt.Status != "0x1" {
				known, _ := n.call("eth_getTransactionByHash", fmt.Sprintf("[%q]", tx.Hash))
				pool, _ := n.call("txpool_status", "[]")
				nonce, _ := n.call("eth_getTransactionCount", fmt.Sprintf(`[%q,"latest"]`, devAccount))
				err = fmt.Errorf("receipt %.200s, by hash %.200s, pool %s, next nonce %s", raw, known, pool, nonce)
			}
			return err
		})
	}
}
