// Package devchain is a small deterministic chain served over HTTP and WebSockets as JSON-RPC, with faults that can be switched on. It is
// offline, keeps everything in memory and is meant for demonstrations, tests and benchmarks: it executes no code, checks no signatures and its
// roots are labels, not tries. Several Backends may serve one Chain, and then agree on every answer; a Backend may also lag behind its Chain
// or move to another one, and a Chain may replace its last blocks.
package devchain
