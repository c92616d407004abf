package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gateway.internal/proxyd/config"
)

// The flags that stand in place of a configuration file.
const (
	flagSequencers = "rollup.sequencer-http"
	flagUpstreams  = "upstream"
	flagDial       = "rollup.sequencer-dial-timeout"
	flagRequest    = "rollup.sequencer-request-timeout"
	flagAllow      = "allow-method"
)

// noFileFlags describe a gateway without a configuration file: one group of
// endpoints for every method.
type noFileFlags struct {
	sequencers, upstreams []string
	dial, request         time.Duration
	allow                 []string
}

func (f *noFileFlags) define(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVar(&f.sequencers, flagSequencers, nil, "serve these sequencers without a configuration file: `URL[,URL...]`, the one that answered stays the first to be asked")
	flags.StringArrayVar(&f.upstreams, flagUpstreams, nil, "serve these endpoints without a configuration file: `URL[,URL...]`, each is asked when those before it fail")
	flags.DurationVar(&f.dial, flagDial, 5*time.Second, "how long connecting to an endpoint of either flag may take")
	flags.DurationVar(&f.request, flagRequest, 10*time.Second, "how long an endpoint of either flag may take to answer; a call may take that long for each of them")
	flags.StringArrayVar(&f.allow, flagAllow, nil, "serve a `METHOD` that is refused without a configuration file: "+strings.Join(guarded, ", ")+"; a name or a pattern like \"debug_*\", with commas between several")
}

// withoutFile reports whether flags stand in place of a configuration file.
func withoutFile(cmd *cobra.Command) bool {
	return cmd.Flags().Changed(flagSequencers) || cmd.Flags().Changed(flagUpstreams)
}

// fileOrFlags wants a configuration file or the flags in place of it.
func fileOrFlags(cmd *cobra.Command, args []string) error {
	flags := cmd.Flags()
	if !withoutFile(cmd) {
		switch {
		case len(args) == 0:
			return usageError{fmt.Errorf("%s needs a configuration file, or --%s or --%s with the URLs of endpoints", cmd.CommandPath(), flagUpstreams, flagSequencers)}
		case slices.ContainsFunc(args, isURL):
			return usageError{fmt.Errorf("%s takes a configuration file, and a URL was given: write it behind --%s or --%s", cmd.CommandPath(), flagUpstreams, flagSequencers)}
		}
		for _, f := range [][2]string{{flagDial, "backend.dial_timeout"}, {flagRequest, "backend.response_timeout_seconds"}, {flagAllow, "rpc_method_mappings"}} {
			if flags.Changed(f[0]) {
				return usageError{fmt.Errorf("--%s works only without a configuration file: use %s in the file", f[0], f[1])}
			}
		}
		return exactly(1, "a configuration file")(cmd, args)
	}
	flag := flagSequencers
	switch {
	case flags.Changed(flagSequencers) && flags.Changed(flagUpstreams):
		return usageError{fmt.Errorf("--%s and --%s cannot go together: give one of them", flagSequencers, flagUpstreams)}
	case flags.Changed(flagUpstreams):
		flag = flagUpstreams
	}
	if len(args) > 0 && slices.ContainsFunc(args, isURL) {
		return usageError{fmt.Errorf("a URL stands apart from --%s: write the list with commas and without spaces, or in quotes", flag)}
	}
	if len(args) > 0 {
		return usageError{fmt.Errorf("--%s and the configuration file %s cannot go together: give one of them", flag, shown(args[0]))}
	}
	return nil
}

// config returns what the flags describe. The warnings are for the log.
func (f *noFileFlags) config() (*config.Config, []config.Problem, error) {
	flag, list, name, strategy := flagUpstreams, f.upstreams, "upstream", "fallback"
	if f.sequencers != nil {
		flag, list, name, strategy = flagSequencers, f.sequencers, "seq", "sticky"
	}
	urls, err := endpoints(flag, strings.Join(list, ","))
	if err != nil {
		return nil, nil, usageError{err}
	}
	for _, t := range []struct {
		flag string
		time.Duration
	}{{flagDial, f.dial}, {flagRequest, f.request}} {
		// An hour for each of many endpoints can still be added up.
		if t.Duration <= 0 || t.Duration > time.Hour {
			return nil, nil, usageError{fmt.Errorf("--%s must be longer than zero and at most 1h", t.flag)}
		}
	}
	allow := entries(strings.Join(f.allow, ","))
	if f.allow != nil && len(allow) == 0 {
		return nil, nil, usageError{errors.New("--" + flagAllow + " needs the name of a method, or a pattern like \"debug_*\"")}
	}
	methods, idle, err := mappings("main", allow)
	if err != nil {
		return nil, nil, usageError{err}
	}
	names := make([]string, len(urls))
	for i := range urls {
		names[i] = name + strconv.Itoa(i+1)
	}
	c, warnings, err := config.Parse(f.text(names, strategy, methods), config.Options{})
	if err != nil {
		return nil, nil, fmt.Errorf("configuration of --%s: %w", flag, err)
	}
	for i, u := range urls {
		b := c.Backends[names[i]]
		if b.RPCURL = u; isSocket(string(u.Reveal())) {
			b.RPCURL, b.WSURL = "", u
		}
		c.Backends[names[i]] = b
	}
	c.Server.CORSAllowedOrigins = nil // none; a file cannot say so
	for _, name := range idle {
		warnings = append(warnings, config.Problem{Key: "--" + flagAllow, Text: name + " does nothing: such methods are served anyhow; only those that begin with " + strings.Join(guarded, ", ") + " are refused"})
	}
	return c, warnings, nil
}

// isSocket reports whether a URL is one for WebSocket connections.
func isSocket(u string) bool { return len(u) > 2 && strings.EqualFold(u[:2], "ws") }

// text is the configuration as a file. The URLs are put in later, so that
// nothing in them is taken for TOML or for a variable.
func (f *noFileFlags) text(names []string, strategy string, methods map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
ws_backend_group = "main"
[server]
rpc_host = "127.0.0.1"
rpc_port = 8545
timeout_seconds = %q
# The largest transaction that nodes take is 128 KiB, which is twice that in hex;
# those with blobs are larger.
max_body_size_bytes = 2097152

[backend]
dial_timeout = %q
response_timeout_seconds = %q

[backend_groups.main]
backends = ["%s"]
routing_strategy = %q
`, f.request*time.Duration(len(names)), f.dial, f.request, strings.Join(names, `", "`), strategy)
	for _, name := range names {
		fmt.Fprintf(&b, "\n[backends.%s]\nrpc_url = \"http://placeholder.invalid\"\n", name)
	}
	b.WriteString("\n[rpc_method_mappings]\n")
	for _, method := range slices.Sorted(maps.Keys(methods)) {
		fmt.Fprintf(&b, "%q = %q\n", method, methods[method])
	}
	return b.String()
}
