/** Bounded concurrency. */

/**
 * Results in the order of the items; at most `limit` run at the same time. The first failure aborts
 * the others' signal, waits for them, and is thrown.
 */
export async function mapInFlight<Item, Result>(
  items: readonly Item[],
  limit: number,
  signal: AbortSignal,
  run: (item: Item, signal: AbortSignal) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const failure = new AbortController();
  const either = AbortSignal.any([signal, failure.signal]);
  const queue = items.entries();
  const worker = async () => {
    for (const [index, item] of queue) {
      if (failure.signal.aborted) return;
      try {
        results[index] = await run(item, either);
      } catch (error) {
        failure.abort(error);
        return;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  failure.signal.throwIfAborted();
  return results;
}
