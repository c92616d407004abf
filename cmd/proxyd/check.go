package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"gateway.internal/proxyd"
	"gateway.internal/proxyd/config"
)

func newCheck() *cobra.Command {
	var strict, allowInactive bool
	c := &cobra.Command{
		Use:   "check CONFIG.toml",
		Short: "Say everything that is wrong with a configuration file",
		Long: `Read a configuration file as "run" would and print every fault and warning with
its line and key, on stderr. Environment variables that the file names must be
set. The exit code is 1 when there is a fault.`,
		Args: exactly(1, "a configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, warnings, err := config.File(args[0], config.Options{Strict: strict, AllowInactive: allowInactive})
			printProblems(cmd.ErrOrStderr(), args[0], "warning", warnings)
			if err != nil {
				return faults(cmd.ErrOrStderr(), args[0], err)
			}
			// Building starts nothing; what it cannot build is a fault too.
			if _, err := proxyd.New(c, proxyd.Options{}); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %d %s\n", args[0], len(warnings), plural(len(warnings), "warning", "warnings"))
			return nil
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "count unknown keys as faults")
	c.Flags().BoolVar(&allowInactive, "allow-inactive", false, "accept protections that are not built yet")
	return c
}
