/** Requests by the thousand: a fixed number at once, all kinds mixed. */
import { ClientError, floatsToBytes } from "./server.mjs";

/** The same sequence for the same seed. */
export function randomSource(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Runs `count` calls of `body(index)`, `atOnce` at a time. `onDone(n)` after each. */
export async function runMany(count, atOnce, body, onDone = () => {}) {
  let next = 0;
  let done = 0;
  const worker = async () => {
    while (next < count) {
      await body(next++);
      done += 1;
      await onDone(done);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

export const BENCH_VECTOR = "bench";

/** One vector on all layers, small enough for random weights. */
export async function createBenchVector(client, { layers, hiddenSize }, id = BENCH_VECTOR) {
  const values = Float32Array.from({ length: hiddenSize }, (_, i) => (i % 2 === 0 ? 0.01 : -0.01));
  const data = floatsToBytes(values);
  const rows = Array.from({ length: layers }, (_, layer) => ({ layer, data }));
  await client.vectors.create({ vectorId: id, rows });
}

/** A short request: 4 to 24 random prompt tokens, sampled, every other one steered. */
export function shortRequest(random, vocabSize, maxNewTokens) {
  const length = 4 + Math.floor(random() * 21);
  const ids = Array.from({ length }, () => Math.floor(random() * vocabSize));
  const steering = random() < 0.5 ? [{ vectorId: BENCH_VECTOR, coefficient: random() }] : [];
  return {
    tokens: { ids },
    steering,
    sampling: { maxNewTokens, temperature: 0.8, seed: String(Math.floor(random() * 2 ** 31)) },
  };
}

export async function consume(stream) {
  let tokens = 0;
  for await (const message of stream) tokens += message.delta?.tokenIds.length ?? 0;
  return tokens;
}

/** Lets a cancelled call end quietly, and nothing else. */
export async function expectCancelled(promise) {
  try {
    await promise;
    return false;
  } catch (error) {
    if (error instanceof ClientError && error.code === "CANCELLED") return true;
    throw error;
  }
}
