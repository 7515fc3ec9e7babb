/** The worker that the built program uses: `npm run build` first. */
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { Background } from "../../../../src/vectors/background/background.js";
import { DifferenceSums } from "../../../../src/vectors/derive/differences.js";
import { deriveLayer, type LayerTask } from "../../../../src/vectors/derive/layer.js";
import { seededNormals } from "../../../../src/vectors/random.js";
import { REPOSITORY } from "../../../support/tiny-checkpoint.js";

const ENTRY = path.join(REPOSITORY, "dist/vectors/background/worker.js");
const HIDDEN = 24;
const never = new AbortController().signal;

function task(method: LayerTask["method"], pairs: number): LayerTask {
  const sums = new DifferenceSums(1, HIDDEN, pairs);
  for (let pair = 0; pair < pairs; pair += 1) {
    sums.add(
      Float32Array.from(seededNormals(1n, 2 * pair, HIDDEN), (value) => value + 0.25),
      Float32Array.from(seededNormals(1n, 2 * pair + 1, HIDDEN)),
    );
  }
  const differences = sums.take(0);
  return {
    kind: "derive",
    method,
    normalize: true,
    differences,
    randomDirections: 50,
    randomSeed: 9n,
  };
}

describe("the worker", () => {
  it("is built", () => expect(existsSync(ENTRY)).toBe(true));

  it.each(["mean_difference", "pca_pairwise", "pca_centered", "logistic"] as const)(
    "gives the same bits for %s as this thread, task after task",
    async (method) => {
      await using background = new Background(ENTRY);
      for (const pairs of [1, 2, 17, 40]) {
        if (method === "pca_centered" && pairs === 1) continue;
        const expected = deriveLayer(task(method, pairs));
        expect(expected.row).not.toBeNull();
        expect(await background.run(task(method, pairs), never)).toEqual(expected);
      }
    },
  );

  it("takes the arrays instead of copying them", async () => {
    await using background = new Background(ENTRY);
    const given = task("logistic", 5);
    await background.run(given, never);
    expect(given.differences.kept.values).toHaveLength(0);
  });

  it("computes while the event loop turns, and stops when it is told to", async () => {
    await using background = new Background(ENTRY);
    const large = { ...task("pca_pairwise", 1500), randomDirections: 20_000 };
    const abort = new AbortController();
    const running = background.run(large, abort.signal);
    setImmediate(() => abort.abort(new Error("enough")));
    await expect(running).rejects.toThrow("enough");
    await expect(background.run(large, abort.signal)).rejects.toThrow("enough");
    // Another task gets a thread of its own.
    expect(await background.run(task("logistic", 5), never)).toEqual(
      deriveLayer(task("logistic", 5)),
    );
  });
});
