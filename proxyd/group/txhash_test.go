package group

import (
	"encoding/hex"
	"strings"
	"testing"
)

// Vectors signed with the key of EIP-155's example. The hashes are what geth
// v1.17.5 says; the first is in the EIP's own tests.
const (
	legacyTx = "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
	blobTx   = "0x03f885010401098252089435353535353535353535353535353535353535358080c003e1a0013ac7fdbbd0d002b05fa446fd576ed35a18c0f2b547990d4be1da4e2367e4e101a0e6962ab70bfb0560ac66153f5600d649f35c92e7144c911bdb47216517e742d3a077143d5174998d777dcbeef32834c6b9aa06adcd2641c538abcc55412fe3a82d"

	legacyHash = "0x33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788"
	blobHash   = "0x38c5f5c964906b6ffd7c8db5c698f63eabdf65559ba1b35e4c880b3ae4596faf"
)

var hashes = map[string]struct{ raw, hash string }{
	"legacy":              {legacyTx, legacyHash},
	"upper case":          {"0X" + strings.ToUpper(legacyTx[2:]), legacyHash},
	"EIP-2930":            {"0x01f89a0101058275309435353535353535353535353535353535353535358080f838f7943535353535353535353535353535353535353535e1a0010000000000000000000000000000000000000000000000000000000000000001a07c8b77290c08b9952d0c611702d323c659ab31bedf69683b4b2bfeda9d67de04a01ec3c57c263a32a781f00a15e9420b8f0e266a7b280ec75d44200323ff351f29", "0xa04395f75ed57764b47ac08a9b737de375716f9907d2344efb1bee02983cb1dc"},
	"EIP-1559, long":      {"0x02f9017c0102010782ea608080b9012c" + strings.Repeat("00", 300) + "c001a0a4142cc50a96cd5ff885d0df968f625044a2f37b180f5ca2b58cb4f081855c81a073daf0177bad2331d67f728d02c058e01c4478eac309c9eb3b8f533d28f73798", "0x635bfbcc8d82293533fda72311b8d3269d4ab1fe94e4190440f848f26aa6c9c1"},
	"EIP-7702":            {"0x04f8c10103010983015f909435353535353535353535353535353535353535358080c0f85cf85a019435353535353535353535353535353535353535350380a0f15614000fa7b3ec673d4ea166e43217be280e34fb9f8458970ab8a41ab41765a0572f93ad7f143655d0dc928f93c09ed65d5ff3c96ded2ea6b1e5df1ce9a2469480a025976ddd03efb0cbe4acff7b9669593a860b538dc5c4eb571ab62ec42adc7b0aa05a453e0a0767e9a4fc90ef5fb486614dd1642b9099df167cbf25fa971a1f15a9", "0x881671f41dcb6af46e4dbe9a3449ac827101b8efd84f7418933bd5c7b3cbb5d4"},
	"EIP-4844":            {blobTx, blobHash},
	"blob, sidecar v0":    {withSidecar(blobTx), blobHash},
	"blob, sidecar v1":    {withSidecar(blobTx, 1), blobHash},
	"a type not known":    {"0x05" + blobTx[4:], ""},
	"a deposit":           {"0x7e" + blobTx[4:], ""},
	"reserved type":       {"0x00" + blobTx[4:], ""},
	"cut off":             {legacyTx[:len(legacyTx)-2], ""},
	"bytes behind it":     {legacyTx + "00", ""},
	"typed, cut off":      {blobTx[:len(blobTx)-2], ""},
	"sidecar, bytes more": {withSidecar(blobTx) + "00", ""},
	"only a type":         {"0x02", ""},
	"only a blob type":    {"0x03", ""},
	"length overflows":    {"0xffffffffffffffffff", ""},
	"nested overflow":     {"0x03c2f8ff", ""},
	"not hex":             {"0xzz", ""},
	"odd digits":          {"0xf8f", ""},
	"no prefix":           {legacyTx[2:], ""},
	"empty":               {"", ""},
	"0x":                  {"0x", ""},
}

// withSidecar wraps a blob transaction in its network form: EIP-4844's, or
// EIP-7594's with a version.
func withSidecar(tx string, version ...byte) string {
	raw, _ := hex.DecodeString(tx[2:])
	body := append([]byte(nil), raw[1:]...)
	proofs := 1
	for _, v := range version {
		body = append(body, v)
		proofs = 128
	}
	text := func(n int) []byte { return append(rlpHead(0x80, n), make([]byte, n)...) }
	list := func(item []byte, n int) []byte {
		var all []byte
		for range n {
			all = append(all, item...)
		}
		return append(rlpHead(0xc0, len(all)), all...)
	}
	body = append(body, list(text(131072), 1)...)
	body = append(body, list(text(48), 1)...)
	body = append(body, list(text(48), proofs)...)
	return "0x03" + hex.EncodeToString(append(rlpHead(0xc0, len(body)), body...))
}

func rlpHead(kind byte, n int) []byte {
	if n <= 55 {
		return []byte{kind + byte(n)}
	}
	var size []byte
	for ; n > 0; n >>= 8 {
		size = append([]byte{byte(n)}, size...)
	}
	return append([]byte{kind + 55 + byte(len(size))}, size...)
}

func TestHashesOfSentTransactions(t *testing.T) {
	for name, c := range hashes {
		if got := sendHash(call("eth_sendRawTransaction", `["`+c.raw+`"]`)); got != c.hash {
			t.Errorf("%s: got %q, want %q", name, got, c.hash)
		}
	}
	for _, params := range []string{"", "[]", "[1]", "null", `[{"raw":"0x01"}]`, `["0x`} {
		if got := sendHash(call("eth_sendRawTransaction", params)); got != "" {
			t.Errorf("%s: got %q", params, got)
		}
	}
}

func TestHashIsOfTheFirstParameterAlone(t *testing.T) {
	got := sendHash(call("eth_sendRawTransactionConditional", `[ "`+legacyTx+`" , {"knownAccounts":{}} ]`))
	if got != legacyHash {
		t.Errorf("got %q", got)
	}
}

func FuzzTxHashDoesNotPanicAndInventsNothing(f *testing.F) {
	for _, c := range hashes {
		if raw, err := hex.DecodeString(strings.TrimPrefix(c.raw, "0x")); err == nil && len(raw) < 1000 && len(raw) > 0 {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 {
			return
		}
		if h := txHash(raw); h != "" && (len(h) != 66 || raw[0] > 4 && raw[0] < 0xc0 || raw[0] == 0) {
			t.Errorf("%x: %s", raw, h)
		}
	})
}
