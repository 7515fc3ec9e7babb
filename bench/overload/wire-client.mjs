/**
 * A gRPC client of one unary method, straight on HTTP/2. It costs a third of what grpc-js does, and
 * where clients and server share the cores, what clients cost is taken from the server.
 */
import http2 from "node:http2";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { dist } from "../lib/server.mjs";

const load = (name) => import(pathToFileURL(path.join(dist, "client", name)).href);
const { contract } = await load("contract.js");
const { decodeStatusDetails } = await load("status-details.js");

const METHOD = contract.InferenceService.service.Generate;
/** Calls take turns at them, as those of many clients would. */
const CONNECTIONS = 8;
/** Status codes of gRPC. */
export const OK = 0;
export const RESOURCE_EXHAUSTED = 8;

/** The bytes of a request on the wire; may be sent more than once. */
export function frameOf(request) {
  const message = METHOD.requestSerialize(request);
  // Of Node's pool: tens of thousands are held, and each with memory of its own is work for the collector.
  const frame = Buffer.allocUnsafe(5 + message.length);
  frame[0] = 0; // not compressed
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, 5);
  return frame;
}

export class WireClient {
  constructor(address) {
    this.sessions = Array.from({ length: CONNECTIONS }, () => http2.connect(`http://${address}`));
    this.next = 0;
    this.headers = {
      ":method": "POST",
      ":path": METHOD.path,
      "content-type": "application/grpc",
      te: "trailers",
      "user-agent": "llama-steer-bench",
    };
  }

  /**
   * Resolves to the status code and the bytes of the answer; of a refusal also to what RetryInfo and
   * grpc-retry-pushback-ms say, undefined where they are not there. Rejects when the connection does.
   */
  call(frame) {
    this.next = (this.next + 1) % this.sessions.length;
    const stream = this.sessions[this.next].request(this.headers);
    return new Promise((resolve, reject) => {
      let status = {};
      let bytes = 0;
      const read = (headers) => {
        if (headers["grpc-status"] !== undefined) status = headers;
      };
      // Without a message the first headers are the last.
      stream.on("response", read);
      stream.on("trailers", read);
      stream.on("data", (chunk) => {
        bytes += chunk.length;
      });
      stream.on("error", reject);
      stream.on("end", () => resolve(resultOf(status, bytes)));
      stream.end(frame);
    });
  }

  close() {
    for (const session of this.sessions) session.close();
  }
}

function resultOf(status, bytes) {
  const code = Number(status["grpc-status"] ?? Number.NaN);
  if (code !== RESOURCE_EXHAUSTED) return { code, bytes };
  const details = Buffer.from(String(status["grpc-status-details-bin"] ?? ""), "base64");
  const { retryDelayMs } = decodeStatusDetails({ get: () => [details] });
  const pushback = status["grpc-retry-pushback-ms"];
  return { code, bytes, retryDelayMs, pushbackMs: pushback && Number(pushback) };
}
