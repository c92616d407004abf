// Usage: node filters.mjs URL CONTRACT
// Makes filters with viem over HTTP or WebSocket, whatever the URL says, and prints {"made": N}. Then for each line on
// stdin: "poll" prints what is new to each filter, "remove" uninstalls all. An error is printed as {"error": "…"}.
import { createInterface } from 'node:readline'
import { createPublicClient, http, parseAbi, webSocket } from 'viem'
import { abi } from './store.mjs'

const [url, address] = process.argv.slice(2)
const options = { retryCount: 0, timeout: 15_000 }
const transport = url.startsWith('ws') ? webSocket(url, { ...options, reconnect: false }) : http(url, options)
const client = createPublicClient({ transport, cacheTime: 0 })
const print = (value) => console.log(JSON.stringify(value))

const rounds = 4 // of each kind, so that taking turns would find all backends
const made = await Promise.all(Array.from({ length: rounds }, async () => ({
  blocks: await client.createBlockFilter(),
  events: await client.createContractEventFilter({ address, abi: parseAbi(abi), eventName: 'Stored' }),
})))
print({ made: made.length })

const log = (l) => ({ number: Number(l.blockNumber), index: Number(l.logIndex), value: Number(l.args.value) })
const commands = {
  async poll() {
    const filters = await Promise.all(made.map(async ({ blocks, events }) => ({
      blocks: await client.getFilterChanges({ filter: blocks }),
      events: (await client.getFilterChanges({ filter: events })).map(log),
    })))
    return { filters }
  },
  async logs() {
    return { filters: await Promise.all(made.map(async ({ events }) => ({ events: (await client.getFilterLogs({ filter: events })).map(log) }))) }
  },
  async remove() {
    return { removed: (await Promise.all(made.flatMap(({ blocks, events }) => [blocks, events]).map((filter) => client.uninstallFilter({ filter })))) }
  },
}
for await (const line of createInterface({ input: process.stdin })) {
  print(await commands[line]().catch((err) => ({ error: `${err.shortMessage} ${err.details}` })))
}
process.exit(0)
