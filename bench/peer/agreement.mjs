/** Before speeds are compared: both programs must be running the same model. */
import { promptOf } from "./contestants.mjs";

const PROMPT_TOKENS = 48;
const STEPS = 8;
const TOP = 20;
/** The two round activations differently (bf16 or int8 rows in the peer), no further apart. */
const LARGEST_DIFFERENCE = 0.1;

/**
 * Compares the top logprobs along the common greedy continuation. Returns a row for the report;
 * throws when the two cannot be the same model.
 */
export async function checkAgreement(ours, peer, vocabSize) {
  const order = { prompt: promptOf(PROMPT_TOKENS, 1, vocabSize), tokens: STEPS, top: TOP };
  const [mine, theirs] = [await ours.agree(order), await peer.agree(order)];
  let largest = 0;
  let equal = 0;
  for (let step = 0; step < STEPS; step++) {
    const known = new Map(theirs.rows[step].map(({ tokenId, logprob }) => [tokenId, logprob]));
    const common = mine.rows[step].filter(({ tokenId }) => known.has(tokenId));
    if (common.length < TOP / 2) {
      throw new Error(`step ${step}: only ${common.length} of ${TOP} top tokens in common`);
    }
    for (const { tokenId, logprob } of common) {
      largest = Math.max(largest, Math.abs(logprob - known.get(tokenId)));
    }
    if (mine.generated[step] !== theirs.generated[step]) break;
    equal += 1;
  }
  if (!(largest <= LARGEST_DIFFERENCE)) {
    throw new Error(`logprobs of ${ours.name} and ${peer.name} differ by ${largest}`);
  }
  return [`${ours.name} / ${peer.name}`, `${equal} of ${STEPS}`, largest.toFixed(4)];
}
