package integration_tests

import (
	"reflect"
	"strings"
	"testing"
)

// dapp is what node/viem.mjs and node/ethers.mjs print.
type dapp struct {
	ChainID     int    `json:"chainId"`
	Balance     string `json:"balance"`
	Value       int    `json:"value"`
	Logs        []int  `json:"logs"`
	Batch       []int  `json:"batch"`
	HeadReached bool   `json:"headReached"`
	SameReceipt bool   `json:"sameReceipt"`
	Refused     string `json:"refused"`
}

func TestRealClientsWorkThroughTheGatewayAsOnTheNode(t *testing.T) {
	t.Parallel()
	chainIDs := map[string]int{"anvil": 31337, "geth": 1337}
	for kind, start := range nodeKinds {
		for _, client := range []string{"viem", "ethers"} {
			t.Run(client+" on "+kind, func(t *testing.T) {
				t.Parallel()
				n := start(t)
				g := startGateway(t, config{
					backends: []string{n.url},
					more:     "[cache]\nenabled = true\n",
				}.String())
				var got dapp
				runClient(t, &got, client+".mjs", g.url)
				if len(got.Balance) < 20 || strings.HasPrefix(got.Balance, "0") {
					t.Errorf("balance %q, want some hundred ether", got.Balance)
				}
				want := dapp{
					ChainID:     chainIDs[kind],
					Balance:     got.Balance,
					Value:       42,
					Logs:        []int{42, 3, 2, 1},
					Batch:       []int{42, 42, 42, 42, 42, 42, 42, 42, 42, 42},
					HeadReached: true,
					SameReceipt: true,
					Refused:     "Refused(7)",
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		}
	}
}
