package integration_tests

import (
	"os/exec"
	"syscall"
)

// A test binary that panics on its time limit runs no cleanups; the nodes must not outlive it.
func init() {
	dieWithParent = func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
}
