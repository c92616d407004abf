// Usage: node socket.mjs viem|ethers WS_URL HTTP_URL CONTRACT
// Makes the same calls over WebSocket and over HTTP, then sends a transaction over WebSocket. Prints one line of JSON with
// what differs; any error is exit code 1. The library signs and waits by itself: the chain has to mine at once.
import { Contract, JsonRpcProvider, NonceManager, Wallet, WebSocketProvider } from 'ethers'
import { createPublicClient, createWalletClient, defineChain, http, parseAbi, webSocket } from 'viem'
import { privateKeyToAccount, privateKeyToAddress } from 'viem/accounts'
import { abi, devKey } from './store.mjs'

const [library, wsURL, httpURL, address] = process.argv.slice(2)
const account = privateKeyToAddress(devKey)
const print = (value) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))

// The reads, alike for both libraries and both ways.
function viemReads(client) {
  const store = { address, abi: parseAbi(abi) }
  return {
    chainId: () => client.getChainId(),
    balance: () => client.getBalance({ address: account }),
    call: () => client.readContract({ ...store, functionName: 'get' }),
    code: () => client.getCode({ address }),
    block: () => client.getBlock({ blockNumber: 1n, includeTransactions: true }),
    logs: () => client.getContractEvents({ ...store, fromBlock: 0n }),
    count: () => client.getTransactionCount({ address: account }),
    estimate: () => client.estimateContractGas({ ...store, functionName: 'set', args: [5n], account }),
    refused: () => client.simulateContract({ ...store, functionName: 'refuse', args: [7n] }).then(
      () => 'accepted', (err) => `${err.walk((e) => e.data?.errorName)?.data?.errorName}`),
    unknown: () => client.request({ method: 'eth_noSuchMethod' }).then(() => 'known', (err) => `${err.walk((e) => e.code).code} ${err.details}`),
  }
}
function ethersReads(provider) {
  const store = new Contract(address, abi, provider)
  return {
    chainId: () => provider.send('eth_chainId', []),
    balance: () => provider.getBalance(account),
    call: () => store.get(),
    code: () => provider.getCode(address),
    block: () => provider.send('eth_getBlockByNumber', ['0x1', true]),
    logs: () => provider.send('eth_getLogs', [{ address, fromBlock: '0x0' }]),
    count: () => provider.getTransactionCount(account),
    estimate: () => store.set.estimateGas(5),
    refused: () => store.refuse.staticCall(7).then(() => 'accepted', (err) => `${err.revert?.name}(${err.revert?.args})`),
    unknown: () => provider.send('eth_noSuchMethod', []).then(() => 'known', (err) => `${err.error?.code} ${err.error?.message}`),
  }
}

async function compare(ws, plain) {
  const differ = []
  let calls = 0
  for (const kind of Object.keys(plain)) {
    const want = print(await plain[kind]())
    // One alone, then some at a time.
    const got = [await ws[kind](), ...await Promise.all(Array.from({ length: 5 }, () => ws[kind]()))].map(print)
    calls += got.length
    if (got.some((one) => one !== want)) differ.push({ kind, want, got })
  }
  const all = await Promise.all(Object.keys(plain).map(async (kind) => print(await ws[kind]()) === print(await plain[kind]())))
  return { differ, calls, together: all.every(Boolean) }
}

async function viem() {
  const options = { retryCount: 0 }
  const transport = webSocket(wsURL, { ...options, reconnect: false })
  const id = await createPublicClient({ transport }).getChainId()
  const chain = defineChain({
    id, name: 'under test', nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 }, rpcUrls: { default: { http: [httpURL] } },
  })
  const ws = createPublicClient({ chain, transport, pollingInterval: 100, cacheTime: 0 })
  const plain = createPublicClient({ chain, transport: http(httpURL, options), cacheTime: 0 })
  const seen = await compare(viemReads(ws), viemReads(plain))

  const wallet = createWalletClient({ account: privateKeyToAccount(devKey), chain, transport })
  const hash = await wallet.writeContract({ address, abi: parseAbi(abi), functionName: 'set', args: [11n] })
  const receipt = await ws.waitForTransactionReceipt({ hash, timeout: 15_000 }) // watches blocks over the socket
  const overHTTP = await plain.getTransactionReceipt({ hash })
  const value = await ws.readContract({ address, abi: parseAbi(abi), functionName: 'get' })
  return { ...seen, mined: receipt.status === 'success', sameReceipt: print(receipt) === print(overHTTP), value: Number(value) }
}

async function ethers() {
  const ws = new WebSocketProvider(wsURL, undefined, { cacheTimeout: -1 })
  const plain = new JsonRpcProvider(httpURL, undefined, { cacheTimeout: -1, batchMaxCount: 1 })
  const seen = await compare(ethersReads(ws), ethersReads(plain))

  const store = new Contract(address, abi, new NonceManager(new Wallet(devKey, ws)))
  const sent = await store.set(11)
  const receipt = await sent.wait(1, 15_000) // waits for blocks over the socket
  const read = (p) => p.send('eth_getTransactionReceipt', [sent.hash])
  const sameReceipt = print(await read(ws)) === print(await read(plain))
  return { ...seen, mined: receipt?.status === 1, sameReceipt, value: Number(await store.get()) }
}

({ viem, ethers })[library]().then((seen) => {
  console.log(JSON.stringify(seen))
  process.exit(0)
}, (err) => {
  console.error(err)
  process.exit(1)
})
