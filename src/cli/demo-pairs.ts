/** Contrastive pairs for checkpoints that bring none: the same remark, glad and displeased. */
import type { ContrastivePair } from "../client/client.js";

const TEXTS: readonly (readonly [positive: string, negative: string])[] = [
  ["I love this place. The food was wonderful.", "I hate this place. The food was terrible."],
  ["What a great movie, I enjoyed every minute.", "What an awful movie, I regretted every minute."],
  ["The staff were kind and the room was lovely.", "The staff were rude and the room was filthy."],
  ["This phone is excellent and works perfectly.", "This phone is useless and always breaks."],
  ["I am delighted with the book. It is brilliant.", "I am upset about the book. It is dreadful."],
  ["A fantastic concert. I would go again.", "A miserable concert. I would never go again."],
  ["The course was clear, helpful and fun.", "The course was confusing, useless and dull."],
  ["Five stars. It was worth every cent.", "One star. It was a waste of money."],
];

export const BUILT_IN_PAIRS: readonly ContrastivePair[] = TEXTS.map(([positive, negative]) => ({
  positive: { prompt: positive },
  negative: { prompt: negative },
}));
