// Package devchain is a small deterministic chain served over HTTP as JSON-RPC, with faults that can be switched on. It is offline, keeps
// everything in memory and is meant for demonstrations, tests and benchmarks: it executes no code, checks no signatures and its roots are
// labels, not tries. Several Backends may serve one Chain, and then agree on every answer.
package devchain
