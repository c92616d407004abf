// Usage: node sign.mjs CHAIN_ID COUNT TO [FIRST_NONCE [CALLDATA_BYTES]]
// Signs COUNT transactions from the development account, offline, with increasing nonces, and prints them as
// [{"raw": "0x…", "hash": "0x…"}, …]. TO says what they do:
//   0x…          transfer 1 wei to it, with CALLDATA_BYTES bytes of data to make big blocks
//   deploy       create the contract of store.mjs, whose address is printed as "contract"
//   burst:0x…:N  let that contract emit N events
import { encodeFunctionData, getContractAddress, keccak256, pad, parseAbi, toHex } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { abi, bytecode, devKey } from './store.mjs'

const [chainId, count, to, firstNonce = '0', bytes = '0'] = process.argv.slice(2)
const account = privateKeyToAccount(devKey)

function what(nonce) {
  const [verb, address, n] = to.split(':')
  if (verb === 'deploy') {
    const contract = getContractAddress({ from: account.address, nonce: BigInt(nonce) })
    return { data: bytecode, gas: 1_000_000n, contract }
  }
  if (verb === 'burst') {
    const data = encodeFunctionData({ abi: parseAbi(abi), functionName: 'burst', args: [BigInt(n)] })
    return { to: address, data, gas: 50_000n + 3_000n * BigInt(n) }
  }
  const data = Number(bytes) ? pad(toHex(nonce + 1), { size: Number(bytes) }) : undefined
  return { to, value: 1n, data, gas: 21_000n + 40n * BigInt(bytes) }
}

const signed = []
for (let i = 0; i < Number(count); i++) {
  const nonce = Number(firstNonce) + i
  const { contract, ...tx } = what(nonce)
  const raw = await account.signTransaction({
    type: 'eip1559',
    chainId: Number(chainId),
    nonce,
    maxFeePerGas: 20_000_000_000n,
    maxPriorityFeePerGas: 1_000_000_000n,
    ...tx,
  })
  signed.push({ raw, hash: keccak256(raw), contract })
}
console.log(JSON.stringify(signed))
