// Usage: node reads.mjs MODULES READS AT_ONCE TIMEOUT_MS WELL URL...
// Reads balances through viem, which is taken from the directory MODULES, so many at once, and prints one line of JSON.
// With one URL the transport is viem's http as it comes. With more it is viem's fallback over http of each, and TIMEOUT_MS
// is the timeout of these: with the default of 10 s a backend that hangs would cost that. Reads from WELL, an upstream that
// answers, come first, so that Node.js has what it loads and compiles.
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

const [modules, reads, atOnce, timeout, well, ...urls] = process.argv.slice(2)
const { createPublicClient, fallback, http } = createRequire(join(resolve(modules), 'package.json'))('viem')

let requests = 0
const onFetchRequest = () => {
  requests++
}
const transport =
  urls.length === 1
    ? http(urls[0], { onFetchRequest })
    : fallback(urls.map((url) => http(url, { onFetchRequest, timeout: Number(timeout) })))

const calls = []
let next = 0
async function read(client, last) {
  while (next < last) {
    const address = `0x${(++next).toString(16).padStart(40, '0')}`
    const call = { address }
    calls.push(call)
    const from = performance.now()
    try {
      call.balance = `0x${(await client.getBalance({ address })).toString(16).padStart(64, '0')}`
    } catch (err) {
      call.error = err.shortMessage ?? err.message
    }
    call.ms = performance.now() - from
  }
}

const readAll = (client, last) => Promise.all(Array.from({ length: Number(atOnce) }, () => read(client, last)))

await readAll(createPublicClient({ transport: http(well) }), 200)
calls.length = next = 0
const from = performance.now()
await readAll(createPublicClient({ transport }), Number(reads))
const text = JSON.stringify({ ms: performance.now() - from, requests, calls })
// Connections that are kept would hold the process for some seconds; an exit before all is written would cut it off.
process.stdout.write(text + '\n', () => process.exit(0))
