// A small contract, written by hand so that no compiler is needed. As Solidity it would be:
//
//   contract Store {
//     uint256 value;
//     event Stored(address indexed by, uint256 value);
//     error Refused(uint256 value);
//     function set(uint256 v) external { value = v; emit Stored(msg.sender, v); }
//     function get() external view returns (uint256) { return value; }
//     function burst(uint256 n) external { for (; n != 0; n--) emit Stored(msg.sender, n); }
//     function refuse(uint256 v) external pure { revert Refused(v); }
//   }
const topic = 'ebfcf7c0a1b09f6499e519a8d8bb85ce33cd539ec6cbd964e116cd74943ead1a' // keccak256("Stored(address,uint256)")

// emit Stored(caller, memory[0:32]): CALLER PUSH32 topic PUSH1 32 PUSH0 LOG2
const emit = '33' + '7f' + topic + '60205fa2'

const dispatch = [
  ['5f3560e01c', 'selector = calldata[0:4]'],
  ['806360fe47b114602f57', 'set(uint256)'],
  ['80636d4ce63c14605f57', 'get()'],
  ['8063657eb4ca14606857', 'burst(uint256)'],
  ['63a60a07b21460a457', 'refuse(uint256)'],
  ['5f5ffd', 'anything else reverts without data'],
]
const bodies = [
  ['5b600435805f555f52' + emit + '00', 'set: store and emit'],
  ['5b5f545f5260205ff3', 'get: return the stored word'],
  ['5b6004355b801560a257805f52' + emit + '60019003606c565b00', 'burst: emit n, n-1, … 1'],
  ['5b63590a515160e01b5f5260043560045260245ffd', 'refuse: revert with Refused(v)'],
]

const runtime = [...dispatch, ...bodies].map(([code]) => code).join('')
const length = (runtime.length / 2).toString(16).padStart(4, '0')

// The constructor: copy what follows its own ten bytes and return it.
export const bytecode = `0x61${length}80600a5f395ff3${runtime}`

export const abi = [
  'event Stored(address indexed by, uint256 value)',
  'error Refused(uint256 value)',
  'function set(uint256 v)',
  'function get() view returns (uint256)',
  'function burst(uint256 n)',
  'function refuse(uint256 v) pure',
]

// The first account of the well-known development mnemonic ("test test … junk"). Worth nothing anywhere.
export const devKey = '0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80'
