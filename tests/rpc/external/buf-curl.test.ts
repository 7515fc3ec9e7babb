/** `buf curl` knows the contract from the server's reflection alone. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LiveServer, ROOT, run, startLiveServer } from "../../support/live-server.js";

const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
/** buf exits with the code of the status, shifted by three bits. */
const exitCode = (status: number) => status << 3;

let server: LiveServer;
beforeAll(async () => {
  server = await startLiveServer();
}, 60_000);
afterAll(() => server.stop());

const GRPC = ["--protocol", "grpc", "--http2-prior-knowledge"];
const buf = (...args: string[]) => run(path.join(ROOT, "node_modules/.bin/buf"), ["curl", ...args]);

function call(method: string, request: object, ...flags: string[]) {
  const url = `http://${server.grpc}/${method}`;
  return buf(...GRPC, ...flags, "--data", JSON.stringify(request), url);
}

async function ok(method: string, request: object) {
  const { code, stdout, stderr } = await call(method, request);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  // Streams are printed as one JSON document after the other.
  return stdout
    .trim()
    .split(/\n(?=\{)/)
    .map((text) => JSON.parse(text));
}

const HIDDEN = 256;
const row = (value: number) => Buffer.from(new Float32Array(HIDDEN).fill(value).buffer);

describe("buf curl, by reflection", { timeout: 30_000 }, () => {
  test.each(["grpc-v1", "grpc-v1alpha"])("lists the services over %s", async (protocol) => {
    const { stdout, code } = await buf(
      ...GRPC,
      `--reflect-protocol=${protocol}`,
      "--list-services",
      `http://${server.grpc}`,
    );
    expect(code).toBe(0);
    expect(stdout.trim().split("\n")).toEqual([
      "grpc.health.v1.Health",
      "llamasteer.v1.InferenceService",
      "llamasteer.v1.ModelService",
      "llamasteer.v1.ProbeService",
      "llamasteer.v1.VectorService",
    ]);
  });

  test("asks for health, the model and tokens", async () => {
    expect(await ok("grpc.health.v1.Health/Check", {})).toEqual([{ status: "SERVING" }]);
    const [model] = await ok("llamasteer.v1.ModelService/GetModel", {});
    expect(model).toMatchObject({ architecture: { layers: 8, hiddenSize: HIDDEN } });
    const [{ tokenIds }] = await ok("llamasteer.v1.ModelService/Tokenize", { text: "hello" });
    const [{ text }] = await ok("llamasteer.v1.ModelService/Detokenize", {
      tokenIds,
      skipSpecialTokens: true,
    });
    expect(text).toBe("hello");
  });

  test("registers a vector and generates with it, whole and as a stream", async () => {
    const rows = [{ layer: 3, data: row(0.1).toString("base64") }];
    const [vector] = await ok("llamasteer.v1.VectorService/CreateVector", { vectorId: "v", rows });
    expect(vector).toMatchObject({ vectorId: "v", layers: [3], hiddenSize: HIDDEN });

    const request = {
      prompt: "The hotel was",
      steering: [{ vectorId: "v", coefficient: 2 }],
      sampling: { temperature: 0, maxNewTokens: 6, ignoreEos: true },
    };
    const [answer] = await ok("llamasteer.v1.InferenceService/Generate", request);
    expect(answer.completions[0].tokenIds).toHaveLength(6);
    const { promptTokens } = answer.usage;
    // The last generated token is never an input: nothing acts on it.
    const counts = { vectorId: "v", digest: vector.digest, promptTokens, generatedTokens: 5 };
    expect(answer.applied).toMatchObject([counts]);

    const messages = await ok("llamasteer.v1.InferenceService/GenerateStream", request);
    expect(messages[0].started.applied).toMatchObject([{ digest: vector.digest }]);
    expect(messages.at(-1).finished.applied).toMatchObject([counts]);
    const text = messages.map(({ delta }) => delta?.text ?? "").join("");
    expect(text).toBe(answer.completions[0].text);
  });

  test("captures and scores", async () => {
    const messages = await ok("llamasteer.v1.InferenceService/CaptureActivations", {
      inputs: [{ prompt: "one" }, { prompt: "two" }],
      capture: { sites: ["SITE_RESID_POST"], layers: [0, 7], tokens: { last: {} } },
    });
    const chunks = messages.flatMap(({ activations }) => activations ?? []);
    expect(chunks).toHaveLength(4);
    for (const { shape, data } of chunks) {
      expect(shape).toEqual(["1", String(HIDDEN)]);
      expect(Buffer.from(data, "base64")).toHaveLength(HIDDEN * 4);
    }
    const [score] = await ok("llamasteer.v1.InferenceService/Score", {
      prompt: "The hotel",
      continuations: [{ text: " was" }, { text: " qqq" }],
    });
    const [likely, unlikely] = score.scores.map((one: { sumLogprob: number }) => one.sumLogprob);
    expect(likely).toBeGreaterThan(unlikely);
    expect(likely).toBeLessThan(0);
  });

  test.each([
    ["a bad number", { prompt: "x", sampling: { topP: 7 } }, INVALID_ARGUMENT, "sampling.top_p"],
    ["no input", {}, INVALID_ARGUMENT, "input"],
    ["an unknown vector", { prompt: "x", steering: [{ vectorId: "nobody" }] }, NOT_FOUND, "nobody"],
    ["an unknown adapter", { prompt: "x", adapterId: "nobody" }, NOT_FOUND, "nobody"],
  ])("%s is a typed error", async (_name, request, status, text) => {
    const { code, stderr } = await call("llamasteer.v1.InferenceService/Generate", request);
    expect(stderr).toContain(text);
    expect(code).toBe(exitCode(status));
  });
});
