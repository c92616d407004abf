// Usage: node viem.mjs RPC_URL
// Does what a dapp does through viem and prints one line of JSON; any error is exit code 1.
import { createPublicClient, createWalletClient, defineChain, http, parseAbi } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { abi as signatures, bytecode, devKey } from './store.mjs'

const url = process.argv[2]
const abi = parseAbi(signatures)
const account = privateKeyToAccount(devKey)

// retryCount 0: a call that the gateway loses must not be hidden by the client's own retries.
const plain = http(url, { retryCount: 0 })
const chainId = await createPublicClient({ transport: plain }).getChainId()
const chain = defineChain({
  id: chainId,
  name: 'under test',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [url] } },
})
const client = createPublicClient({ chain, transport: plain, pollingInterval: 50, cacheTime: 0 })
const batched = createPublicClient({
  chain,
  transport: http(url, { batch: true, retryCount: 0 }),
  pollingInterval: 50,
  cacheTime: 0,
})
const wallet = createWalletClient({ account, chain, transport: plain })

async function mined(hash) {
  const receipt = await client.waitForTransactionReceipt({ hash, timeout: 20_000 })
  if (receipt.status !== 'success') throw new Error(`transaction ${hash} failed`)
  return receipt
}

const balance = await client.getBalance({ address: account.address })
const { contractAddress: address } = await mined(await wallet.deployContract({ abi, bytecode }))
const store = { address, abi }
const stored = await mined(await wallet.writeContract({ ...store, functionName: 'set', args: [42n] }))
await mined(await wallet.writeContract({ ...store, functionName: 'burst', args: [3n] }))
const value = await client.readContract({ ...store, functionName: 'get' })
const logs = await client.getContractEvents({ ...store, eventName: 'Stored', fromBlock: 0n })

// One HTTP request with many calls.
const [head, again, ...values] = await Promise.all([
  batched.getBlockNumber(),
  batched.getTransactionReceipt({ hash: stored.transactionHash }),
  ...Array.from({ length: 10 }, () => batched.readContract({ ...store, functionName: 'get' })),
])

// A revert keeps its data on the way back.
let refused = null
try {
  await client.simulateContract({ ...store, functionName: 'refuse', args: [7n] })
} catch (err) {
  refused = err.walk((e) => e.data?.errorName)?.data
}

console.log(JSON.stringify({
  chainId,
  balance: balance.toString(),
  value: Number(value),
  logs: logs.map((log) => Number(log.args.value)),
  batch: values.map(Number),
  headReached: head >= again.blockNumber,
  sameReceipt: again.blockHash === stored.blockHash,
  refused: refused && `${refused.errorName}(${refused.args})`,
}))
