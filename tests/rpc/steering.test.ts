/** What steering does, does not do, and proves. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  bytesToFloats,
  type Completion,
  floatsToBytes,
  type GenerateRequest,
  type Steering,
} from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector, randomRow } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
  for (const [index, vectorId] of ["mood", "tone", "style"].entries()) {
    const rows = [0, 1, 2].map((layer) => ({ layer, data: randomRow(100 * index + layer, 0.5) }));
    await server.client.vectors.create({ vectorId, rows });
  }
});
afterAll(() => server.stop());

const PROMPT = "there are many words in the world";
const SAMPLING = { maxNewTokens: 16, seed: "11", ignoreEos: true, logprobs: 2 };

function request(steering: Steering[], overrides: GenerateRequest = {}): GenerateRequest {
  return { prompt: PROMPT, sampling: SAMPLING, steering, ...overrides };
}

async function completion(steering: Steering[], overrides: GenerateRequest = {}) {
  const { completions } = await server.client.generate(request(steering, overrides));
  return completions[0] as Completion;
}

/** Residual stream after a block, one row a prompt token. */
async function residual(steering: Steering[], layer: number, beforeSteering = false) {
  const messages = await collect(
    server.client.captureActivations({
      inputs: [{ prompt: PROMPT }],
      capture: { sites: ["SITE_RESID_POST"], layers: [layer], beforeSteering },
      steering,
    }),
  );
  return bytesToFloats(
    Buffer.concat(messages.map(({ activations }) => activations?.data ?? Buffer.alloc(0))),
  );
}

describe("without effect", () => {
  it("changes not one bit with coefficient 0", async () => {
    const plain = await completion([]);
    for (const operation of ["OPERATION_ADD", "OPERATION_PROJECT_OUT"] as const) {
      expect(await completion([{ vectorId: "mood", coefficient: 0, operation }])).toEqual(plain);
    }
  });

  it("changes not one bit with a scale of 1", async () => {
    const steering: Steering = {
      vectorId: "mood",
      coefficient: 1,
      operation: "OPERATION_SCALE_COMPONENT",
    };
    expect(await completion([steering])).toEqual(await completion([]));
  });

  it("leaves the tokens before its positions alone", async () => {
    const plain = await residual([], 2);
    const steered = await residual([{ vectorId: "mood", positions: { range: { start: 4 } } }], 2);
    const rowsBefore = 4 * TINY.hiddenSize;
    expect(steered.subarray(0, rowsBefore)).toEqual(plain.subarray(0, rowsBefore));
    expect(steered.subarray(rowsBefore)).not.toEqual(plain.subarray(rowsBefore));
  });
});

describe("operations", () => {
  const data = randomRow(5, 2);
  const vector = bytesToFloats(data);
  const inline = { rows: [{ layer: 1, data }] };
  const norm = Math.hypot(...vector);
  const unit = vector.map((value) => value / norm);

  /** Rows of block 1 before and after the steering. */
  async function rows(steering: Steering) {
    const before = await residual([steering], 1, true);
    const after = await residual([steering], 1);
    const width = TINY.hiddenSize;
    return Array.from({ length: before.length / width }, (_, token) => {
      const row = (values: Float32Array) => values.subarray(token * width, (token + 1) * width);
      return { before: row(before), after: row(after) };
    });
  }

  const dot = (a: Float32Array, b: Float32Array) =>
    a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
  const length = (a: Float32Array) => Math.sqrt(dot(a, a));

  it("ADD adds c·v", async () => {
    for (const { before, after } of await rows({ inline, coefficient: -1.5 })) {
      after.forEach((value, index) => {
        expect(value).toBeCloseTo((before[index] ?? 0) - 1.5 * (vector[index] ?? 0), 4);
      });
    }
  });

  it("PROJECT_OUT removes the component", async () => {
    for (const { before, after } of await rows({ inline, operation: "OPERATION_PROJECT_OUT" })) {
      expect(Math.abs(dot(before, unit))).toBeGreaterThan(1e-3);
      expect(dot(after, unit)).toBeCloseTo(0, 4);
    }
  });

  it("CLAMP holds the component between its bounds; one bound may be missing", async () => {
    const clamp = { inline, operation: "OPERATION_CLAMP" } as const;
    for (const { after } of await rows({ ...clamp, clampMin: -0.01, clampMax: 0.01 })) {
      expect(Math.abs(dot(after, unit))).toBeLessThan(0.0101);
    }
    for (const { before, after } of await rows({ ...clamp, clampMin: 3 })) {
      expect(dot(after, unit)).toBeCloseTo(Math.max(3, dot(before, unit)), 3);
    }
  });

  it("SCALE_COMPONENT multiplies the component", async () => {
    const steering: Steering = {
      inline,
      operation: "OPERATION_SCALE_COMPONENT",
      coefficient: 3,
    };
    for (const { before, after } of await rows(steering)) {
      expect(dot(after, unit)).toBeCloseTo(3 * dot(before, unit), 3);
    }
  });

  it("preserve_norm keeps each row's length", async () => {
    for (const { before, after } of await rows({ inline, coefficient: 2, preserveNorm: true })) {
      expect(length(after)).toBeCloseTo(length(before), 3);
      expect(after).not.toEqual(before);
    }
  });

  it("twice c is 2c", async () => {
    const twice = await residual([{ inline }, { inline }], 2);
    const doubled = await residual([{ inline, coefficient: 2 }], 2);
    twice.forEach((value, index) => {
      expect(value).toBeCloseTo(doubled[index] ?? Number.NaN, 3);
    });
  });
});

describe("vectors in requests", () => {
  it("steers equally by id, by pinned id and inline", async () => {
    const { digest } = await server.client.vectors.get("mood");
    const rows = [0, 1, 2].map((layer) => ({ layer, data: randomRow(layer, 0.5) }));
    const byId = await completion([{ vectorId: "mood", coefficient: 4 }]);
    expect(byId).not.toEqual(await completion([]));
    const pinned = `mood@${digest.slice(0, "sha256:".length + 12)}`;
    expect(await completion([{ vectorId: pinned, coefficient: 4 }])).toEqual(byId);
    expect(await completion([{ inline: { rows }, coefficient: 4 }])).toEqual(byId);
  });

  it("steers only the layers that are named", async () => {
    const first = await residual([{ vectorId: "mood", layers: [1] }], 0);
    expect(first).toEqual(await residual([], 0));
    const second = await residual([{ vectorId: "mood", layers: [1] }], 1);
    expect(second).not.toEqual(await residual([], 1));
  });

  it("composes in the order given", async () => {
    const add: Steering = { ...inlineVector(9, [1], 2) };
    const remove: Steering = { ...inlineVector(9, [1], 2), operation: "OPERATION_PROJECT_OUT" };
    expect(await residual([add, remove], 1)).not.toEqual(await residual([remove, add], 1));
  });
});

describe("proof", () => {
  it("names digest, layers, operation, coefficient and counts of every steering", async () => {
    const { digest } = await server.client.vectors.get("mood");
    const response = await server.client.generate(
      request([
        { vectorId: "mood", coefficient: 2 },
        { vectorId: "tone", layers: [2], positions: { prompt: {} } },
        { ...inlineVector(1, [0, 1]), positions: { generated: {} }, preserveNorm: true },
      ]),
    );
    const promptTokens = response.usage?.promptTokens ?? 0;
    const generated = SAMPLING.maxNewTokens - 1;
    expect(response.applied).toMatchObject([
      {
        vectorId: "mood",
        digest,
        layers: [0, 1, 2],
        operation: "OPERATION_ADD",
        coefficient: 2,
        promptTokens,
        // The last generated token is never fed back, so no row of it exists.
        generatedTokens: generated,
        steeredRows: String(3 * (promptTokens + generated)),
      },
      { vectorId: "tone", layers: [2], promptTokens, generatedTokens: 0, preserveNorm: false },
      { vectorId: "", layers: [0, 1], promptTokens: 0, generatedTokens: generated },
    ]);
    for (const { meanDeltaRatio } of response.applied) expect(meanDeltaRatio).toBeGreaterThan(0);
  });

  it("counts prompt tokens in reused cache blocks too", async () => {
    const ids = Array.from({ length: 100 }, (_, index) => index + 3);
    const steered = request([{ vectorId: "style" }], { tokens: { ids } });
    const { prompt: _, ...withTokens } = steered;
    const first = await server.client.generate(withTokens);
    const second = await server.client.generate(withTokens);
    expect(second.usage?.cachedPromptTokens).toBeGreaterThan(0);
    expect(second.completions).toEqual(first.completions);
    expect(second.applied[0]?.promptTokens).toBe(100);
  });

  it("tells in `started` what is going to act", async () => {
    const events = await collect(server.client.generateStream(request([{ vectorId: "mood" }])));
    expect(events[0]?.started?.applied).toMatchObject([{ vectorId: "mood", promptTokens: 0 }]);
    expect(events.at(-1)?.finished?.applied[0]?.promptTokens).toBeGreaterThan(0);
  });

  it("sums over all completions", async () => {
    const response = await server.client.generate(
      request([{ vectorId: "mood", positions: { generated: {} } }], {
        sampling: { ...SAMPLING, n: 3 },
      }),
    );
    expect(response.applied[0]?.generatedTokens).toBe(3 * (SAMPLING.maxNewTokens - 1));
  });
});

describe("positions", () => {
  const cases: [name: string, positions: Steering["positions"], prompt: number[] | "all"][] = [
    ["absent", undefined, "all"],
    ["all", { all: {} }, "all"],
    ["prompt", { prompt: {} }, "all"],
    ["a closed range", { range: { start: 1, end: 3 } }, [1, 2]],
    ["negative numbers from the prompt's end", { range: { start: -2, end: -1 } }, [-2]],
    ["an end alone", { range: { end: 2 } }, [0, 1]],
  ];
  it.each(cases)("%s", async (_name, positions, expected) => {
    const plain = await residual([], 0);
    const steered = await residual(
      [{ ...inlineVector(3, [0]), ...(positions ? { positions } : {}) }],
      0,
    );
    const width = TINY.hiddenSize;
    const tokens = plain.length / width;
    const changed: number[] = [];
    for (let token = 0; token < tokens; token++) {
      const row = (values: Float32Array) => values.slice(token * width, (token + 1) * width);
      if (!Buffer.from(row(plain).buffer).equals(Buffer.from(row(steered).buffer))) {
        changed.push(token);
      }
    }
    const all = Array.from({ length: tokens }, (_, token) => token);
    expect(changed).toEqual(
      expected === "all" ? all : expected.map((at) => (at < 0 ? tokens + at : at)),
    );
  });

  it("go on through the generated tokens when a range has no end", async () => {
    const response = await server.client.generate(
      request([{ vectorId: "mood", positions: { range: { start: -1 } } }]),
    );
    expect(response.applied[0]).toMatchObject({
      promptTokens: 1,
      generatedTokens: SAMPLING.maxNewTokens - 1,
    });
    expect(response.applied[0]?.positionStart).toBe((response.usage?.promptTokens ?? 0) - 1);
  });
});

describe("batches", () => {
  it("gives 16 mixed requests at once, some cancelled, what each gets alone", async () => {
    const vectors = ["mood", "tone", "style"];
    const requests = Array.from({ length: 16 }, (_, index): GenerateRequest => {
      const vectorId = vectors[index % 3] ?? "mood";
      return {
        prompt: PROMPT.repeat(1 + (index % 5)),
        sampling: { maxNewTokens: 8 + index, seed: String(index), ignoreEos: true, logprobs: 3 },
        steering: index % 4 === 0 ? [] : [{ vectorId, coefficient: index - 8 }],
      };
    });
    const isCancelled = (index: number) => index % 5 === 4;
    const run = async (each: GenerateRequest, index: number) => {
      const tokens: unknown[] = [];
      for await (const { delta } of server.client.generateStream(each)) {
        if (delta) tokens.push(...delta.logprobs);
        if (isCancelled(index) && tokens.length >= 3) break;
      }
      // How many tokens came before the cancellation differs from run to run.
      return isCancelled(index) ? tokens.slice(0, 3) : tokens;
    };
    const alone: unknown[] = [];
    for (const [index, each] of requests.entries()) alone.push(await run(each, index));
    expect(await Promise.all(requests.map(run))).toEqual(alone);
  });

  it("keeps the content that a request began with when the id is deleted", async () => {
    const rows = [{ layer: 1, data: floatsToBytes(new Float32Array(TINY.hiddenSize).fill(1)) }];
    await server.client.vectors.create({ vectorId: "doomed", rows });
    const steered = request([{ vectorId: "doomed", coefficient: 3 }]);
    const whole = await server.client.generate(steered);
    const events = server.client.generateStream(steered);
    expect((await events.next()).value?.event).toBe("started");
    await server.client.vectors.delete("doomed");
    const rest = await collect(events);
    expect(rest.flatMap(({ delta }) => delta?.tokenIds ?? [])).toEqual(
      whole.completions[0]?.tokenIds,
    );
  });
});
