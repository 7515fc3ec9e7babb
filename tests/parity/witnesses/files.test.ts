/** Vector files that other tools wrote, and files for them. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TestServer } from "../../support/server.js";
import { goldenPath, readWitnessCases, startOn, WitnessGolden } from "./witness.js";

const cases = readWitnessCases();

describe.each(cases.models)("on $name", (model) => {
  const golden = new WitnessGolden(model.name);
  const content = readFileSync(goldenPath(`${model.name}.repeng.gguf`));
  let server: TestServer;
  let stop: () => Promise<void> = async () => {};
  /** The rows that repeng exported, registered as they are. */
  let sent: { digest: string };
  let sentOneBlockBefore: { digest: string };
  beforeAll(async () => {
    ({ server, stop } = await startOn(model, golden));
    const { rows } = golden.inline("repeng.pca_center");
    sent = await server.client.vectors.create({ vectorId: "sent", rows });
    sentOneBlockBefore = await server.client.vectors.create({
      vectorId: "sent-one-block-before",
      rows: rows.map(({ layer, data }) => ({ layer: layer - 1, data })),
    });
  });
  afterAll(() => stop());

  it("imports what repeng exports, bit for bit", async () => {
    const vector = await server.client.vectors.import({ vectorId: "repeng" }, content);
    expect(vector.digest).toBe(sent.digest);
  });

  it("moves rows to the block before for a file of block inputs", async () => {
    const convention = "LAYER_CONVENTION_BLOCK_INPUT";
    const start = { vectorId: "cvector-generator", convention } as const;
    const vector = await server.client.vectors.import(start, content);
    expect(vector.digest).toBe(sentOneBlockBefore.digest);
  });

  it("exports GGUF that gguf-py and repeng have read right", async () => {
    const format = "VECTOR_FORMAT_GGUF";
    const file = await server.client.vectors.export({ vectorId: "sent", format });
    const read = JSON.parse(readFileSync(goldenPath(`${model.name}.read.json`), "utf8"));
    const digest = createHash("sha256").update(file.content).digest("hex");
    expect(digest, "the exporter has changed: run read_exports.py again").toBe(read.sha256);
    expect(read.readBy).toEqual(["gguf", "repeng"]);
  });
});

describe("files of CAST", () => {
  const model = cases.models.find(({ svec }) => svec);
  if (!model) throw new Error("no model has a recorded .svec");
  const golden = new WitnessGolden(model.name);
  const content = readFileSync(goldenPath(`${model.name}.svec`));
  let server: TestServer;
  let stop: () => Promise<void> = async () => {};
  beforeAll(async () => {
    ({ server, stop } = await startOn(model, golden));
  });
  afterAll(() => stop());

  it("import as they were measured, or as CAST applies them", async () => {
    const { rows } = golden.inline("repeng.pca_center");
    const { vectors } = server.client;
    const measured = await vectors.import({ vectorId: "measured" }, content);
    expect(measured.digest).toBe((await vectors.create({ vectorId: "sent", rows })).digest);
    const convention = "LAYER_CONVENTION_BLOCK_INPUT";
    const applied = await vectors.import({ vectorId: "applied", convention }, content);
    expect(applied.layers).toEqual(measured.layers.map((layer) => layer - 1));
  });

  it("are exported in the same shape", async () => {
    await server.client.vectors.import({ vectorId: "again" }, content);
    const format = "VECTOR_FORMAT_SVEC";
    const file = await server.client.vectors.export({ vectorId: "again", format });
    const [ours, theirs] = [file.content, content].map((bytes) => JSON.parse(bytes.toString()));
    expect(ours.model_type).toBe("llama");
    // Its reader wants the field; what a direction explained is not known here.
    expect(ours.explained_variances).toEqual({});
    for (const [layer, row] of Object.entries<number[]>(theirs.directions)) {
      expect(Float32Array.from(ours.directions[layer])).toEqual(Float32Array.from(row));
    }
  });
});
