// Usage: node ethers.mjs RPC_URL
// Does what a dapp does through ethers, which batches by itself, and prints one line of JSON; any error is exit code 1.
import { Contract, ContractFactory, JsonRpcProvider, NonceManager, Wallet } from 'ethers'
import { abi, bytecode, devKey } from './store.mjs'

const provider = new JsonRpcProvider(process.argv[2], undefined, { polling: true, cacheTimeout: -1 })
provider.pollingInterval = 50

async function mined(sending) {
  const sent = await sending
  const receipt = await sent.wait(1, 20_000)
  if (receipt?.status !== 1) throw new Error(`transaction ${sent.hash} failed`)
  return receipt
}

async function main() {
  const wallet = new Wallet(devKey, provider)
  const signer = new NonceManager(wallet)
  const { chainId } = await provider.getNetwork()
  const balance = await provider.getBalance(wallet.address)

  const deployed = await new ContractFactory(abi, bytecode, signer).deploy()
  await mined(deployed.deploymentTransaction())
  const store = new Contract(await deployed.getAddress(), abi, signer)
  const stored = await mined(store.set(42))
  await mined(store.burst(3))
  const value = await store.get()
  const logs = await store.queryFilter('Stored', 0)

  // Calls of one turn of the event loop travel as one batch.
  const [head, again, ...values] = await Promise.all([
    provider.getBlockNumber(),
    provider.getTransactionReceipt(stored.hash),
    ...Array.from({ length: 10 }, () => store.get()),
  ])

  // A revert keeps its data on the way back.
  let refused = null
  try {
    await store.refuse.staticCall(7)
  } catch (err) {
    refused = err.revert
  }

  console.log(JSON.stringify({
    chainId: Number(chainId),
    balance: balance.toString(),
    value: Number(value),
    logs: logs.map((log) => Number(log.args.value)),
    batch: values.map(Number),
    headReached: head >= again.blockNumber,
    sameReceipt: again.blockHash === stored.blockHash,
    refused: refused && `${refused.name}(${refused.args})`,
  }))
}

// The provider keeps timers running: leave by exit, whatever happened.
main().then(() => process.exit(0), (err) => {
  console.error(err)
  process.exit(1)
})
