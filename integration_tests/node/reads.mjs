// Usage: node reads.mjs viem|ethers GATEWAY_URL NODE_URL CONTRACT LEAST
// Reads old blocks through the gateway until stdin ends, at least LEAST times, ten calls at a time, and wants from each
// what the node itself said at the beginning. Prints one line of JSON with the counts now and then, and at the end;
// failed calls do not end it.
import { FetchRequest, JsonRpcProvider, Network } from 'ethers'
import { createPublicClient, http } from 'viem'
import { privateKeyToAddress } from 'viem/accounts'
import { devKey } from './store.mjs'

const [library, gatewayURL, nodeURL, contract, least] = process.argv.slice(2)
const account = privateKeyToAddress(devKey)
const timeout = 10_000 // of each call
const lanes = 10
const get = '0x6d4ce63c' // the contract's get()

// What is read, alike for both libraries. None of them repeats a call by itself.
const libraries = {
  viem(url) {
    const client = createPublicClient({ transport: http(url, { retryCount: 0, timeout }), cacheTime: 0 })
    return {
      blockNumber: () => client.getBlockNumber(),
      balance: (blockNumber) => client.getBalance({ address: account, blockNumber }),
      block: (blockNumber) => client.getBlock({ blockNumber }),
      receipt: (_, hash) => client.getTransactionReceipt({ hash }),
      logs: (blockNumber) => client.getLogs({ address: contract, fromBlock: blockNumber, toBlock: blockNumber + 9n }),
      call: (blockNumber) => client.call({ to: contract, data: get, blockNumber }),
    }
  },
  ethers(url) {
    const request = new FetchRequest(url)
    request.timeout = timeout
    const network = Network.from(31337)
    const provider = new JsonRpcProvider(request, network, { staticNetwork: network, cacheTimeout: -1 })
    return {
      blockNumber: () => provider.getBlockNumber(),
      balance: (blockTag) => provider.getBalance(account, blockTag),
      block: (blockTag) => provider.getBlock(blockTag),
      receipt: (_, hash) => provider.getTransactionReceipt(hash),
      logs: (block) => provider.getLogs({ address: contract, fromBlock: block, toBlock: block + 9n }),
      call: (blockTag) => provider.call({ to: contract, data: get, blockTag }),
    }
  },
}
const print = (value) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))

async function expected() {
  const node = libraries[library](nodeURL)
  const head = BigInt(await node.blockNumber())
  const blocks = Array.from({ length: 20 }, (_, i) => 1n + (BigInt(i) * (head - 1n)) / 19n)
  const reads = await Promise.all(blocks.map(async (number) => {
    const hash = (await node.block(number)).transactions[0]
    return Promise.all(Object.keys(node).map(async (kind) => {
      const want = print(await node[kind](number, hash))
      if (want === undefined || want === 'null') throw new Error(`the node has no ${kind} of block ${number}`)
      return { kind, number, hash, want }
    }))
  }))
  return reads.flat()
}

async function main() {
  let open = true
  process.stdin.on('end', () => { open = false }).resume()
  const reads = await expected()
  const gateway = libraries[library](gatewayURL)
  const seen = { reads: 0, faults: 0, slowest: 0, first: [] }
  const fault = (text) => {
    seen.faults++
    if (seen.first.length < 5) seen.first.push(text)
  }
  let next = 0
  const lane = async () => {
    while (open || next < Number(least)) {
      const { kind, number, hash, want } = reads[next++ % reads.length]
      const began = performance.now()
      try {
        const got = print(await gateway[kind](number, hash))
        if (got !== want) fault(`${kind} of block ${number}: ${got}, the node said ${want}`)
      } catch (err) {
        fault(`${kind} of block ${number} after ${Math.round(performance.now() - began)} ms: ${err.stack}`)
      }
      seen.slowest = Math.max(seen.slowest, Math.round(performance.now() - began))
      if (++seen.reads % 20 === 0) console.log(JSON.stringify(seen))
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  console.log(JSON.stringify(seen))
}

// Connections are kept: leave by exit, whatever happened.
main().then(() => process.exit(0), (err) => {
  console.error(err)
  process.exit(1)
})
