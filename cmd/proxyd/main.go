// Command proxyd is a gateway between the clients of an Ethereum JSON-RPC
// endpoint and the providers behind it.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK    = 0
	exitFault = 1 // the configuration is wrong, or the program could not run
	exitUsage = 2 // the command line is wrong
)

func main() {
	// net/http writes what it finds odd through the standard logger, with bytes
	// that a provider sent: neither JSON nor free of secrets.
	log.SetOutput(io.Discard)
	floor := newHeapFloor()
	code := execute(os.Args[1:], os.Stdout, os.Stderr)
	floor.keep()
	os.Exit(code)
}

// execute runs the command line and returns the exit code. Errors go to stderr.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "proxyd: %v\nTry 'proxyd --help'.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "proxyd: %v\n", err)
	return exitFault
}

// usageError is a fault of the command line.
type usageError struct{ error }

// commands is the table of commands. A new one is a file and a line here.
var commands = []func() *cobra.Command{newRun, newDemo, newCheck, newVersion}

func newRoot() *cobra.Command {
	root := newRun()
	root.Use = "proxyd CONFIG.toml"
	root.Short = "A gateway for Ethereum-style JSON-RPC"
	root.Long = `proxyd stands between the clients of a JSON-RPC endpoint and the providers
behind it. One TOML file maps each method to a group of backends; proxyd
refuses what is not mapped, caches what can be cached, limits each client, and
fails over when a provider errs.

"proxyd CONFIG.toml" is short for "proxyd run CONFIG.toml". Without a file, the
flags --upstream or --rollup.sequencer-http name the endpoints; "proxyd run
--help" says what is served then.

Exit codes: 0 success, 1 a wrong configuration or a failure, 2 a wrong command line.`
	root.Example = `  proxyd demo                  a gateway in front of a small chain of its own
  proxyd check config.toml     say everything that is wrong with a file
  proxyd config.toml           serve
  proxyd --upstream "http://10.0.0.7:8545,https://node.example/v2/KEY"
                               serve two endpoints without a file`
	root.Version = versionText()
	root.SetVersionTemplate(versionLine())
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 && !withoutFile(cmd) && !slices.ContainsFunc(args, isURL) {
			return usageError{fmt.Errorf("%q is not a command%s", args[0], didYouMean(cmd, args[0]))}
		}
		return fileOrFlags(cmd, args)
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, command := range commands {
		c := command()
		c.SilenceErrors, c.SilenceUsage = true, true
		root.AddCommand(c)
	}
	root.SetFlagErrorFunc(flagError)
	return root
}

// flagError is a fault of the flags, without the URL that may stand in it.
func flagError(_ *cobra.Command, err error) error {
	if isURL(err.Error()) {
		err = fmt.Errorf("a URL stands where none can: URLs go behind --%s or --%s, with two dashes", flagUpstreams, flagSequencers)
	}
	return usageError{err}
}

func didYouMean(root *cobra.Command, name string) string {
	root.SuggestionsMinimumDistance = 2
	for _, near := range root.SuggestionsFor(name) {
		return "; did you mean " + near + "?"
	}
	return ""
}

// exactly wants n arguments and names what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return usageError{fmt.Errorf("%s needs %s", cmd.CommandPath(), what)}
		case len(args) > n:
			return usageError{fmt.Errorf("%s takes %s; %s is too much", cmd.CommandPath(), what, shown(args[n]))}
		}
		return nil
	}
}

// checkPort refuses a port flag outside of what ports are.
func checkPort(cmd *cobra.Command, name string) error {
	port, err := cmd.Flags().GetInt(name)
	if err == nil && cmd.Flags().Changed(name) && (port < 0 || port > 65535) {
		return usageError{fmt.Errorf("--%s must be between 0 and 65535", name)}
	}
	return nil
}
