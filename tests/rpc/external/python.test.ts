/** A Python client with stubs made by grpcio-tools; see python/test_client.py. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LiveServer, MAIN, ROOT, run, startLiveServer } from "../../support/live-server.js";

const HERE = path.join(ROOT, "tests/rpc/external/python");
/** The first run installs the packages. */
const SETUP_MS = 300_000;

let server: LiveServer;
let folder: string;
let stubs: string;
beforeAll(async () => {
  const made = await run(path.join(HERE, "stubs.sh"), []);
  if (made.code !== 0) throw new Error(`stubs.sh failed: ${made.stderr}`);
  stubs = made.stdout.trim();
  folder = mkdtempSync(path.join(tmpdir(), "llama-steer-python-"));
  server = await startLiveServer();
}, SETUP_MS);
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true });
});

async function captureTo(name: string): Promise<string> {
  const out = path.join(folder, name);
  const prompt = ["--prompt", "The hotel was very", "--layers", "2,5"];
  const args = [MAIN, "capture", "--server", server.grpc, "--out", out, ...prompt];
  const { code, stderr } = await run(process.execPath, args);
  if (code !== 0) throw new Error(`capture failed: ${stderr}`);
  return out;
}

describe("a Python grpcio client", { timeout: 120_000 }, () => {
  test("finds the contract kept", async () => {
    const python = path.join(stubs, "venv/bin/python");
    const result = await run(python, ["-m", "unittest", "--verbose", "test_client"], {
      env: {
        PYTHONPATH: [path.join(stubs, "stubs"), HERE].join(path.delimiter),
        PYTHONDONTWRITEBYTECODE: "1",
        SERVER: server.grpc,
        CAPTURE_NPY: await captureTo("c.npy"),
        CAPTURE_SAFETENSORS: await captureTo("c.safetensors"),
      },
    });
    // unittest reports on standard error.
    expect(result.code, result.stderr).toBe(0);
    const ran = Number(/Ran (\d+) tests/.exec(result.stderr)?.[1]);
    expect(ran).toBeGreaterThanOrEqual(16);
  });
});
