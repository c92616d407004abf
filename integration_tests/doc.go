// Package integration_tests runs the built program against real nodes and real clients: anvil and geth as backends,
// viem and ethers in front, and TCP faults in between. Everything listens on 127.0.0.1 and on ports nobody fixed.
//
// scripts/install-test-tools installs what it needs. A component that is missing fails the tests when CI=true, and
// skips those that need it otherwise. PROXYD_BIN names a binary to test instead of the one built here, PROXYD_RACE=1
// builds it with the race detector; ANVIL_BIN and GETH_BIN name the nodes' binaries.
package integration_tests
