/** Several streams as one. */
import { EngineFault } from "../errors.js";

/** Items of several generators as they come, with the index of their source. */
export async function* mergeStreams<T>(
  sources: readonly (() => AsyncGenerator<T, void, undefined>)[],
  inFlight: number,
): AsyncGenerator<[index: number, item: T], void, undefined> {
  const running = new Map<
    number,
    { source: AsyncGenerator<T, void, undefined>; next: Promise<[number, IteratorResult<T, void>]> }
  >();
  let started = 0;
  const advance = (index: number, source: AsyncGenerator<T, void, undefined>) => {
    const next = source.next().then((result): [number, IteratorResult<T, void>] => [index, result]);
    next.catch(() => {});
    running.set(index, { source, next });
  };
  try {
    for (;;) {
      while (running.size < inFlight && started < sources.length) {
        const index = started++;
        const source = sources[index]?.();
        if (source) advance(index, source);
      }
      if (running.size === 0) return;
      const [index, result] = await Promise.race([...running.values()].map(({ next }) => next));
      const entry = running.get(index);
      if (!entry) throw new EngineFault("a finished source gave another item");
      if (result.done) {
        running.delete(index);
        continue;
      }
      yield [index, result.value];
      advance(index, entry.source);
    }
  } finally {
    await Promise.allSettled([...running.values()].map(({ source }) => source.return()));
  }
}
