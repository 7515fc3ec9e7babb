/**
 * A checkpoint's weights under mutations of their safetensors file: it is refused with a text, by the
 * service or by the engine, or the engine computes with it; nothing else happens. With the addon
 * built under sanitizers this also holds the engine to the bytes that it maps.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { EngineFault, StartupError } from "../../src/errors.js";
import { Engine } from "../../src/native/engine.js";
import { loadNativeBinding } from "../../src/native/load.js";
import { engineOptions, runRequest } from "../parity/native-run.js";
import { TINY_MODEL, writeSyntheticCheckpoint } from "../parity/synthetic-checkpoint.js";
import { report, runsOf, seedOf, timeoutMs } from "./length.js";
import { mutate, pick, type Random, randomOf } from "./mutate.js";

const RUNS = 400;
/** Numbers may be any: their bytes are changed now and then only. */
const WHOLE_FILE_SHARE = 0.1;
const folder = mkdtempSync(path.join(tmpdir(), "llama-steer-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true }));

writeSyntheticCheckpoint(folder, TINY_MODEL, 1);
const WEIGHTS = path.join(folder, "model.safetensors");
const original = readFileSync(WEIGHTS);
const headerBytes = 8 + Number(original.readBigUInt64LE(0));

/** Most mutations break the length in front; it is put right for half of them. */
function mutatedFile(random: Random): Uint8Array {
  if (random() < WHOLE_FILE_SHARE) return mutate(original, random, [original]);
  const header = Buffer.from(mutate(original.subarray(0, headerBytes), random, [original]));
  const isFixed = header.length >= 8 && random() < 0.5;
  if (isFixed) header.writeBigUInt64LE(BigInt(header.length - 8), 0);
  const data = original.subarray(headerBytes);
  const length = pick(random, [data.length, data.length, data.length - 1, 0]);
  return Buffer.concat([header, data.subarray(0, length)]);
}

/** Whether the engine took it. */
async function load(): Promise<boolean> {
  let engine: Engine | null = null;
  try {
    const options = engineOptions(folder, { threads: 1, kvCacheBytes: 1 << 18 });
    engine = new Engine(loadNativeBinding(), options);
    await engine.ready;
    const request = { prompt: Uint32Array.of(1, 2, 3), maxNewTokens: 2 };
    const { done, tokens } = await runRequest(engine, request);
    // Weights that overflow end a request with a text.
    if (done.status.code === 0) expect(tokens).toHaveLength(2);
    else expect(done.status.message).not.toBe("");
    return true;
  } catch (error) {
    if (error instanceof StartupError || error instanceof EngineFault) return false;
    throw error;
  } finally {
    engine?.close();
  }
}

describe("checkpoint", () => {
  it("survives every mutation", { timeout: timeoutMs }, async () => {
    const isDue = runsOf(RUNS);
    let runs = 0;
    let loaded = 0;
    for (; isDue(runs); runs += 1) {
      const random = randomOf(seedOf(runs));
      writeFileSync(WEIGHTS, mutatedFile(random));
      try {
        if (await load()) loaded += 1;
      } catch (error) {
        throw new Error(`seed ${seedOf(runs)}`, { cause: error });
      }
    }
    expect(loaded).toBeGreaterThan(0);
    expect(loaded).toBeLessThan(runs);
    report("checkpoint", runs, `${loaded} checkpoints were loaded, the others refused`);
  });
});
