package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"gateway.internal/proxyd"
	"gateway.internal/proxyd/config"
)

func newRun() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run CONFIG.toml",
		Short: "Serve the endpoint that a configuration file or flags describe",
		Long: `Serve the endpoint that a configuration file describes, until SIGINT or SIGTERM.

Without a file, --upstream or --rollup.sequencer-http names the endpoints: every
method goes to them but for those that begin with admin_, personal_, engine_,
debug_ or miner_, unless --allow-method has them. It listens on 127.0.0.1:8545,
sends no CORS headers, and serves metrics only with --metrics.port.

The log goes to stdout, one JSON object a line. On a signal the health checks
fail, calls are served for graceful_shutdown_seconds more, the listeners close,
and calls in flight have shutdown_timeout to end. A second signal cuts that
short.

Environment: API_KEYS (comma-separated keys that free a client from rate limits
when sent as X-Api-Key), PROXYD_IP (appended to X-Forwarded-For upstream), and
every variable that the file names.`,
		Example: `  proxyd run config.toml
  proxyd run --upstream "http://10.0.0.7:8545,https://node.example/v2/KEY"
  proxyd run --rollup.sequencer-http "http://seq1:8545,http://seq2:8545" --rollup.sequencer-request-timeout 5s`,
		Args: fileOrFlags,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"http.port", "metrics.port"} {
				if err := checkPort(cmd, name); err != nil {
					return err
				}
			}
			if withoutFile(cmd) {
				c, warnings, err := f.noFile.config()
				if err != nil {
					return err
				}
				return run(cmd.Context(), c, warnings, f, "", cmd.OutOrStdout())
			}
			c, warnings, err := config.File(args[0], config.Options{AllowInactive: f.allowInactive})
			if err != nil {
				printProblems(cmd.ErrOrStderr(), args[0], "warning", warnings)
				return faults(cmd.ErrOrStderr(), args[0], err)
			}
			return run(cmd.Context(), c, warnings, f, args[0], cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&f.allowInactive, "allow-inactive", false, "start although the file asks for protections that are not built yet")
	c.Flags().StringVar(&f.httpAddr, "http.addr", "", "listen on this host instead of server.rpc_host, or 127.0.0.1 without a file")
	c.Flags().IntVar(&f.httpPort, "http.port", -1, "listen on this port instead of server.rpc_port, or 8545 without a file; 0 takes a free one")
	c.Flags().IntVar(&f.metricsPort, "metrics.port", -1, "serve metrics on this port of 127.0.0.1 instead of [metrics]; 0 takes a free one")
	f.noFile.define(c)
	for _, name := range []string{"http.port", "metrics.port"} {
		c.Flags().Lookup(name).DefValue = "0" // not shown: -1 stands for none, which is nobody's business
	}
	return c
}

type runFlags struct {
	allowInactive         bool
	httpAddr              string
	httpPort, metricsPort int
	noFile                noFileFlags
}

// run serves what a file describes, or flags where file is "".
func run(ctx context.Context, c *config.Config, warnings []config.Problem, f runFlags, file string, stdout io.Writer) error {
	log := proxyd.Logger(stdout, c.Server.LogLevel)
	for _, w := range warnings {
		if file == "" {
			log.Warn("configuration", "key", w.Key, "problem", w.Text)
			continue
		}
		log.Warn("configuration", "file", file, "line", w.Line, "key", w.Key, "problem", w.Text)
	}
	o := proxyd.Options{Log: log, APIKeys: splitKeys(os.Getenv("API_KEYS")), ProxyIP: os.Getenv("PROXYD_IP")}
	if f.httpAddr != "" {
		c.Server.RPCHost = f.httpAddr
	}
	if f.httpPort >= 0 {
		o.RPCAddr = net.JoinHostPort(c.Server.RPCHost, strconv.Itoa(f.httpPort))
	}
	if f.metricsPort >= 0 {
		o.MetricsAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(f.metricsPort))
	}
	log.Info("starting proxyd", "version", versionText())
	app, err := proxyd.New(c, o)
	if err != nil {
		return err
	}
	return serve(ctx, app, log, nil)
}

// serve starts the gateway, calls started, waits for a signal, drains and stops.
func serve(ctx context.Context, app *proxyd.App, log *slog.Logger, started func()) error {
	// From before the first call is served, so that no signal ends the process
	// without a drain. The second one cuts the drain short.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := app.Start(); err != nil {
		return err
	}
	if started != nil {
		started()
	}
	var failed error
	select {
	case s := <-signals:
		log.Info("signal received", "signal", s.String())
	case <-ctx.Done():
	case failed = <-app.Failed():
		log.Error("listener failed", "error", failed)
	}
	ending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go func() {
		select {
		case <-signals:
			cut()
		case <-ending.Done():
		}
	}()
	if failed == nil {
		app.Drain(ending)
	}
	if err := app.Stop(ending); err != nil {
		log.Warn("not everything ended in time", "error", err)
	}
	log.Info("stopped proxyd")
	return failed
}

func splitKeys(list string) []string {
	var keys []string
	for key := range strings.SplitSeq(list, ",") {
		if key = strings.TrimSpace(key); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// faults prints what is wrong with a file and returns the error that ends the
// program.
func faults(stderr io.Writer, file string, err error) error {
	var found config.Faults
	if !errors.As(err, &found) {
		return err
	}
	printProblems(stderr, file, "error", found)
	return fmt.Errorf("%s: %d %s", file, len(found), plural(len(found), "fault", "faults"))
}

// printProblems writes one line a problem, in the form that editors understand.
func printProblems(w io.Writer, file, kind string, problems []config.Problem) {
	for _, p := range problems {
		at := file
		if p.Line > 0 {
			at += ":" + strconv.Itoa(p.Line)
		}
		if p.Key != "" {
			kind := kind + ": " + p.Key
			fmt.Fprintf(w, "%s: %s: %s\n", at, kind, p.Text)
			continue
		}
		fmt.Fprintf(w, "%s: %s: %s\n", at, kind, p.Text)
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
