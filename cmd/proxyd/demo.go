package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gateway.internal/proxyd"
	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/devchain"
)

func newDemo() *cobra.Command {
	var port int
	c := &cobra.Command{
		Use:   "demo",
		Short: "Serve a small chain of its own, to try the gateway without any provider",
		Long: `Start a gateway in front of two backends of an embedded chain that makes a block
every two seconds. Nothing outside this process is asked. Faults of the backends
can be switched on over HTTP, so that failover can be watched.`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkPort(cmd, "port"); err != nil {
				return err
			}
			return demo(cmd.Context(), port, cmd.OutOrStdout())
		},
	}
	c.Flags().IntVar(&port, "port", 8545, "port of the gateway on 127.0.0.1; a free one is taken when it is in use")
	return c
}

// demoConfig is what the demo runs, as an operator would write it. The verbs are
// the addresses of the two backends.
const demoConfig = `
ws_backend_group = "main"

[server]
rpc_host = "127.0.0.1"
rpc_port = 8545
log_level = "warn"
enable_served_by_header = true

[backend]
response_timeout_seconds = 2
max_retries = 1
out_of_service_seconds = 10

[backends.first]
rpc_url = "http://%[1]s"
ws_url = "ws://%[1]s"
[backends.second]
rpc_url = "http://%[2]s"
ws_url = "ws://%[2]s"

[backend_groups.main]
backends = ["first", "second"]

[rpc_method_mappings]
"eth_*" = "main"
"net_*" = "main"
"web3_*" = "main"

[cache]
enabled = true

[metrics]
enabled = true
host = "127.0.0.1"
port = 0
`

func demo(ctx context.Context, port int, out io.Writer) error {
	chain := devchain.New(devchain.Options{BlockTime: 2 * time.Second})
	chain.Start(ctx)
	defer chain.Close()
	var addrs [2]string
	for i, name := range []string{"first", "second"} {
		addr, stop, err := serveBackend(devchain.NewBackend(chain, name))
		if err != nil {
			return err
		}
		defer stop()
		addrs[i] = addr
	}
	c, _, err := config.Parse(fmt.Sprintf(demoConfig, addrs[0], addrs[1]), config.Options{})
	if err != nil {
		return err
	}
	log := proxyd.Logger(out, c.Server.LogLevel)
	app, err := proxyd.New(c, proxyd.Options{Log: log, RPCAddr: freeAddress(port)})
	if err != nil {
		return err
	}
	return serve(ctx, app, log, func() { printDemo(out, app, addrs) })
}

// freeAddress is where the demo listens: on a free port when the wanted one is
// taken.
func freeAddress(port int) string {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close()
	return addr
}

func serveBackend(b *devchain.Backend) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("demo backend: %w", err)
	}
	srv := &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // returns when stop closes it
	}()
	return l.Addr().String(), func() {
		b.Close()
		_ = srv.Close()
		<-done
	}, nil
}

func printDemo(out io.Writer, app *proxyd.App, backends [2]string) {
	gateway := app.RPCAddr()
	fmt.Fprintf(out, `proxyd demo: a gateway in front of two backends of an embedded chain

  gateway   http://%[1]s
  metrics   http://%[2]s/metrics
  backends  first http://%[3]s   second http://%[4]s

Ask for the head, and for an account's balance (X-Served-By says who answered):

  curl -si http://%[1]s -H 'Content-Type: application/json' -d '{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}'
  curl -s http://%[1]s -H 'Content-Type: application/json' -d '{"jsonrpc":"2.0","id":2,"method":"eth_getBalance","params":["%[5]s","latest"]}'

Make the first backend fail, ask again, and see the second one answer:

  curl -s -X POST 'http://%[3]s/fault?kind=status&status=503'

Mend it again (kinds: none, status, hang, garbage, 429, rpc-error, slow, wrong-id, close, truncate, mute, drop):

  curl -s -X POST 'http://%[3]s/fault?kind=none'

Subscribe to new heads (wscat is an npm package), and drop the first backend's sockets: no head is missed.

  npx wscat -c ws://%[1]s -w 3600 -x '{"jsonrpc":"2.0","id":3,"method":"eth_subscribe","params":["newHeads"]}'
  curl -s -X POST 'http://%[3]s/fault?kind=drop'

Ctrl-C ends the demo. Below is the gateway's log, warnings and worse.

`, gateway, app.MetricsAddr(), backends[0], backends[1], devchain.SenderAddress)
}
