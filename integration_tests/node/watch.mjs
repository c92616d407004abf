// Usage: node watch.mjs viem|viem-poll|ethers URL CONTRACT [nopending] [noblocks]
// Watches blocks, the contract's events and pending transactions over one WebSocket connection until stdin ends. Prints
// a line of JSON for each thing it is told, {"kind":"ready"} once all of it is subscribed to, and {"kind":"closed"} when
// the connection ends before it is told to. viem-poll asks again and again, by filters, instead of subscribing; its URL
// may be of HTTP, and its filters are not made yet when it is ready. noblocks leaves viem's watchBlocks out, which makes
// a call for each block; no call is repeated, so that nothing is hidden.
import { WebSocketProvider, Interface } from 'ethers'
import { createPublicClient, http, parseAbi, webSocket } from 'viem'
import { abi } from './store.mjs'

const [library, url, contract, ...options] = process.argv.slice(2)
const nopending = options.includes('nopending')
const noblocks = options.includes('noblocks')
const retryCount = 0
const told = (kind, what = {}) => console.log(JSON.stringify({ kind, ...what }))
const failed = (error) => told('error', { text: String(error?.stack ?? error?.message ?? error).slice(0, 600) })
const closed = (event) => told('closed', { code: event.code, text: event.reason })
const event = (kind, log) => told(kind, {
  number: Number(log.blockNumber), index: Number(log.logIndex ?? log.index), hash: log.blockHash, removed: log.removed,
})
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

// The first connection, which must stay the only one.
let still = () => true

async function watchWithViem(poll) {
  // A short keep-alive: its calls have the id null.
  const transport = url.startsWith('http') ? http(url, { retryCount })
    : webSocket(url, { keepAlive: { interval: 500 }, retryCount, reconnect: { attempts: 3, delay: 100 } })
  const client = createPublicClient({ transport, pollingInterval: 100, cacheTime: 0 })
  const rpc = await client.transport.getRpcClient?.()
  const socket = rpc?.socket
  socket?.addEventListener('close', closed)
  still = () => rpc?.socket === socket && (socket?.readyState ?? 1) === 1

  const common = { onError: failed, ...(poll ? { poll: true, emitMissed: true } : {}) }
  if (!noblocks) client.watchBlocks({ ...common, onBlock: (b) => told('block', { number: Number(b?.number ?? -1), hash: b?.hash }) })
  client.watchBlockNumber({ ...common, onBlockNumber: (n) => told('number', { number: Number(n) }) })
  const events = parseAbi(abi.filter((line) => line.startsWith('event')))
  client.watchEvent({ ...common, address: contract, events, onLogs: (logs) => logs.forEach((l) => event('event', l)) })
  client.watchContractEvent({
    ...common, address: contract, abi: parseAbi(abi), eventName: 'Stored', onLogs: (logs) => logs.forEach((l) => event('contractEvent', l)),
  })
  if (!nopending) client.watchPendingTransactions({ ...common, onTransactions: (list) => list.forEach((hash) => told('pending', { hash })) })
  while (!poll && rpc.subscriptions.size < 5 - nopending - noblocks) await pause(5)
}

async function watchWithEthers() {
  const provider = new WebSocketProvider(url)
  const send = provider.send.bind(provider)
  let subscribed = 0
  provider.send = async (method, params) => {
    const result = await send(method, params)
    if (method === 'eth_subscribe') subscribed++
    return result
  }
  const socket = provider.websocket
  socket.addEventListener('close', closed)
  socket.addEventListener('error', failed)
  provider.on('error', failed)
  still = () => socket.readyState === 1

  const topics = [new Interface(abi).getEvent('Stored').topicHash]
  provider.on('block', (number) => told('number', { number }))
  provider.on({ address: contract, topics }, (log) => event('event', log))
  if (!nopending) provider.on('pending', (hash) => told('pending', { hash }))
  while (subscribed < (nopending ? 2 : 3)) await pause(5)
}

process.stdin.on('end', () => {
  told('end', { same: still() })
  process.exit(0)
}).resume()
process.on('unhandledRejection', failed)

const watch = { viem: () => watchWithViem(false), 'viem-poll': () => watchWithViem(true), ethers: watchWithEthers }[library]
watch().then(() => told('ready'), (err) => {
  console.error(err)
  process.exit(1)
})
