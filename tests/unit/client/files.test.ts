/** Vectors as files: uploads and downloads. */
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerReadableStream, type sendUnaryData, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "vitest";
import { ClientError, LlamaSteerClient } from "../../../src/client/client.js";
import { type FakeServer, failure, type Streaming, startFakeServer } from "./fake-server.js";

let server: FakeServer;
let client: LlamaSteerClient;
afterEach(() => {
  client.close();
  server.stop();
});

interface Part {
  start?: { vectorId: string };
  chunk?: Buffer;
}
type Upload = (call: ServerReadableStream<Part, object>, callback: sendUnaryData<object>) => void;

async function start(handlers: { importVector?: Upload; exportVector?: Streaming }): Promise<void> {
  server = await startFakeServer({ VectorService: handlers as never });
  client = new LlamaSteerClient({ address: server.address });
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "none",
    (error: unknown) => (error instanceof ClientError ? error.code : `no ClientError: ${error}`),
  );

describe("an upload", () => {
  test("sends the start and then every byte in order", async () => {
    const received: Part[] = [];
    await start({
      importVector(call, callback) {
        call.on("data", (part) => received.push(part));
        call.on("end", () => callback(null, { vectorId: "v", digest: "sha256:00" }));
      },
    });
    const content = Buffer.from(Array.from({ length: 600_000 }, (_, i) => i % 251));
    const vector = await client.vectors.import({ vectorId: "v" }, content);
    expect(vector.digest).toBe("sha256:00");
    expect(received[0]?.start).toMatchObject({ vectorId: "v" });
    const chunks = received.slice(1).map(({ chunk }) => chunk ?? Buffer.alloc(0));
    expect(chunks.length).toBeGreaterThan(1);
    expect(Buffer.concat(chunks).equals(content)).toBe(true);
  });

  test("ends when the server refuses in the middle", async () => {
    await start({
      importVector(call, callback) {
        call.once("data", () => callback(failure(status.INVALID_ARGUMENT, "is a pickle")));
      },
    });
    const content = Buffer.alloc(32 * 1024 * 1024);
    expect(await codeOf(client.vectors.import({ vectorId: "v" }, content))).toBe(
      "INVALID_ARGUMENT",
    );
  });

  test("an abort cancels it; the server sees that", async () => {
    let cancelled = false;
    let begun = false;
    await start({
      importVector(call) {
        begun = true;
        call.on("cancelled", () => {
          cancelled = true;
        });
      },
    });
    const abort = new AbortController();
    // The server reads nothing: the upload waits for room.
    const content = Buffer.alloc(32 * 1024 * 1024);
    const pending = codeOf(client.vectors.import({ vectorId: "v" }, content, abort));
    while (!begun) await sleep(5);
    abort.abort();
    expect(await pending).toBe("CANCELLED");
    while (!cancelled) await sleep(5);
  });
});

describe("a download", () => {
  const header = (sizeBytes: number) => ({
    header: { vector: { vectorId: "v" }, fileName: "v.gguf", sizeBytes },
  });

  test("is put together", async () => {
    await start({
      exportVector(call) {
        call.write(header(5));
        call.write({ chunk: Buffer.from("abc") });
        call.write({ chunk: Buffer.from("de") });
        call.end();
      },
    });
    const file = await client.vectors.export({ vectorId: "v" });
    expect(file).toMatchObject({ fileName: "v.gguf", vector: { vectorId: "v" } });
    expect(file.content.toString()).toBe("abcde");
  });

  test("that is cut short is an error", async () => {
    await start({
      exportVector(call) {
        call.write(header(5));
        call.write({ chunk: Buffer.from("abc") });
        call.end();
      },
    });
    expect(await codeOf(client.vectors.export({ vectorId: "v" }))).toBe("INTERNAL");
  });
});
