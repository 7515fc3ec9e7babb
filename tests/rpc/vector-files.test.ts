/** ImportVector and ExportVector. */

import { type ClientWritableStream, credentials, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ImportVectorStart } from "../../src/client/client.js";
import { contract } from "../../src/client/contract.js";
import { BAD_FILES } from "../support/recorded-files.js";
import { TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { randomRow } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({ flags: ["--max-import-bytes", "20000"] });
  const rows = [1, 2].map((layer) => ({ layer, data: randomRow(layer) }));
  await server.client.vectors.create({ vectorId: "origin", rows, labels: { from: "test" } });
});
afterAll(() => server.stop());

const upload = (start: ImportVectorStart, content: Uint8Array) =>
  server.client.vectors.import(start, content);

const FORMATS = ["SAFETENSORS", "GGUF", "SVEC", "NPY", "NPZ", "JSON"] as const;

describe("a vector as a file", () => {
  it.each(FORMATS)("%s comes back with the same digest", async (name) => {
    const format = `VECTOR_FORMAT_${name}` as const;
    const file = await server.client.vectors.export({ vectorId: "origin", format });
    expect(file.fileName).toBe(`origin.${name.toLowerCase()}`);
    expect(file.vector.vectorId).toBe("origin");
    const start = { vectorId: `from-${name.toLowerCase()}`, labels: { from: name } };
    const layers = name === "NPY" ? [1, 2] : [];
    const vector = await upload({ ...start, layers }, file.content);
    expect(vector).toMatchObject({
      digest: file.vector.digest,
      layers: [1, 2],
      labels: { from: name },
      derivation: null,
    });
    // The same file again is the same vector.
    expect(await upload({ ...start, format, layers }, file.content)).toEqual(vector);
  });

  it("is safetensors unless asked otherwise, pinned or not", async () => {
    const { digest } = await server.client.vectors.get("origin");
    const pinned = `origin@${digest}`;
    const file = await server.client.vectors.export({ vectorId: pinned });
    expect(file.fileName).toBe("origin.safetensors");
    expect(file.content.subarray(8, 9).toString()).toBe("{");
    await expect(server.client.vectors.export({ vectorId: "none" })).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
  });

  it("by the input of a block is moved down by one on its way in", async () => {
    const format = "VECTOR_FORMAT_GGUF";
    const { content } = await server.client.vectors.export({ vectorId: "origin", format });
    const vector = await upload(
      { vectorId: "moved", convention: "LAYER_CONVENTION_BLOCK_INPUT" },
      content,
    );
    expect(vector.layers).toEqual([0, 1]);
    await expect(server.client.vectors.export({ vectorId: "moved", format })).rejects.toMatchObject(
      { code: "INVALID_ARGUMENT", violations: [{ field: "format" }] },
    );
    const again = await server.client.vectors.export({
      vectorId: "moved",
      format,
      convention: "LAYER_CONVENTION_BLOCK_INPUT",
    });
    expect(again.vector.digest).not.toBe((await server.client.vectors.get("origin")).digest);
  });
});

describe("an upload is refused", () => {
  const rows = JSON.stringify({ 1: new Array(TINY.hiddenSize).fill(0.5) });
  const json = Buffer.from(rows);

  it.each<[string, ImportVectorStart, Uint8Array, string, RegExp]>([
    ["with a bad id", { vectorId: "../x" }, json, "vector_id", /does not match/],
    ["with a label without a key", { vectorId: "a", labels: { "": "x" } }, json, "labels", /key/],
    ["with an unknown format", { vectorId: "a", format: 99 as never }, json, "format", /not one/],
    ["with layers it has no use for", { vectorId: "a", layers: [1] }, json, "chunk", /\.npy only/],
    ["of another format", { vectorId: "a", format: "VECTOR_FORMAT_GGUF" }, json, "chunk", /./],
    ["without bytes", { vectorId: "a" }, Buffer.alloc(0), "chunk", /no format/],
    ["over the limit", { vectorId: "a" }, Buffer.alloc(20_001, 32), "chunk", /more than 20000/],
    [
      "of another width",
      { vectorId: "a" },
      Buffer.from('{"1": [1, 2]}'),
      "chunk",
      /row 1 has 2 values; the hidden size is 64/,
    ],
    [
      "that is a pickle",
      { vectorId: "a" },
      BAD_FILES.get("torch.pt") ?? Buffer.alloc(0),
      "chunk",
      /save_file/,
    ],
  ])("%s", async (_, start, content, field, description) => {
    await expect(upload(start, content)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [{ field, description: expect.stringMatching(description) }],
    });
  });

  it("when the id holds something else", async () => {
    await expect(upload({ vectorId: "origin" }, json)).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
    });
  });
});

describe("an upload by hand", () => {
  type Stream = ClientWritableStream<object>;

  /** Writes what `send` writes; resolves to the status, or to null when it succeeds. */
  async function status(send: (stream: Stream) => void): Promise<ServiceError | null> {
    const client = new contract.VectorService(
      server.app.addresses.grpc,
      credentials.createInsecure(),
    );
    const error = await new Promise<ServiceError | null>((resolve) => {
      const stream = client.importVector((problem) => resolve(problem)) as Stream;
      stream.on("error", () => {});
      send(stream);
    });
    client.close();
    return error;
  }
  const start = { start: { vectorId: "by-hand" } };
  const chunk = (text: string) => ({ chunk: Buffer.from(text) });
  const half = JSON.stringify(new Array(TINY.hiddenSize).fill(0.25));

  it("may come in any number of chunks", async () => {
    const error = await status((stream) => {
      stream.write(start);
      for (const character of `{"2": ${half}}`) stream.write(chunk(character));
      stream.end();
    });
    expect(error).toBeNull();
    expect(await server.client.vectors.get("by-hand")).toMatchObject({ layers: [2] });
  });

  it.each<[string, object[], RegExp]>([
    ["nothing", [], /part: is missing/],
    ["bytes before a start", [chunk("{"), start], /part: the first message is no start/],
    ["two starts", [start, start], /part: only the first message is a start/],
    ["an empty message", [start, {}], /part: only the first message is a start/],
  ])("of %s is refused", async (_, messages, details) => {
    const error = await status((stream) => {
      for (const message of messages) stream.write(message);
      stream.end();
    });
    expect(error?.code).toBe(3);
    expect(error?.details).toMatch(details);
  });

  it("that is cancelled half-way leaves nothing, and others go on", async () => {
    const error = await status((stream) => {
      stream.write({ start: { vectorId: "cancelled" } });
      stream.write(chunk('{"1": '));
      setTimeout(() => stream.cancel(), 20);
    });
    expect(error?.code).toBe(1);
    await expect(server.client.vectors.get("cancelled")).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    // Four uploads of the largest size fit at a time; this one holds nothing any more.
    await Promise.all(
      [1, 2, 3, 4].map((i) =>
        upload({ vectorId: `full-${i}` }, Buffer.from(`{"1": ${half}${" ".repeat(19_000)}}`)),
      ),
    );
  });

  it("beside uploads that fill the memory is told to come again", async () => {
    const padding = { chunk: Buffer.alloc(20_000, 32) };
    const waiting: Stream[] = [];
    const client = new contract.VectorService(
      server.app.addresses.grpc,
      credentials.createInsecure(),
    );
    for (let i = 0; i < 4; i += 1) {
      const stream = client.importVector(() => {}) as Stream;
      stream.on("error", () => {});
      stream.write({ start: { vectorId: `waiting-${i}` } });
      stream.write(padding);
      waiting.push(stream);
    }
    await expect
      .poll(() => upload({ vectorId: "late" }, json(half)).catch((error) => error.reason))
      .toBe("UPLOAD_BYTES");
    for (const stream of waiting) stream.cancel();
    await expect
      .poll(() => upload({ vectorId: "late" }, json(half)).catch(() => null))
      .not.toBeNull();
    client.close();
  });

  const json = (values: string) => Buffer.from(`{"0": ${values}}`);
});
