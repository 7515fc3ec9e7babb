/** Before speeds are compared: both programs must be running the same model. */
import { promptOf } from "./contestants.mjs";

const PROMPT_TOKENS = 48;
const STEPS = 8;
const TOP = 20;
/**
 * Largest difference of a logprob that rounding explains, by the peer's weights: ours keeps
 * activations in float32, the peer rounds them to the type of its weights. A wrong row order or
 * rotary table is off by whole units.
 */
const LARGEST_DIFFERENCE = { bf16: 0.1, f16: 0.1, q8_0: 0.3 };

/**
 * Compares the top logprobs along the common greedy continuation. Returns a row for the report;
 * throws when the two cannot be the same model.
 */
export async function checkAgreement(ours, peer, vocabSize) {
  const order = { prompt: promptOf(PROMPT_TOKENS, 1, vocabSize), tokens: STEPS, top: TOP };
  const [mine, theirs] = [await ours.agree(order), await peer.agree(order)];
  let largest = 0;
  let squares = 0;
  let compared = 0;
  let equal = 0;
  for (let step = 0; step < STEPS; step++) {
    const known = new Map(theirs.rows[step].map(({ tokenId, logprob }) => [tokenId, logprob]));
    const common = mine.rows[step].filter(({ tokenId }) => known.has(tokenId));
    if (common.length < TOP / 2) {
      throw new Error(`step ${step}: only ${common.length} of ${TOP} top tokens in common`);
    }
    for (const { tokenId, logprob } of common) {
      const difference = logprob - known.get(tokenId);
      largest = Math.max(largest, Math.abs(difference));
      squares += difference ** 2;
    }
    compared += common.length;
    if (mine.generated[step] !== theirs.generated[step]) break;
    equal += 1;
  }
  if (!(largest <= LARGEST_DIFFERENCE[peer.weights])) {
    throw new Error(`logprobs of ${ours.name} and ${peer.name} differ by ${largest}`);
  }
  return [
    `${ours.name} / ${peer.name}`,
    `${equal} of ${STEPS}`,
    largest.toFixed(4),
    Math.sqrt(squares / compared).toFixed(4),
  ];
}
