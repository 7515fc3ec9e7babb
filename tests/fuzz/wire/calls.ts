/** Calls over HTTP/2 as a client makes them, with everything in them open to mutation. */
import http2 from "node:http2";
import { grpcMessage } from "../../support/http2-frames.js";
import { mutate, pick, type Random } from "../mutate.js";
import type { WireCall } from "./requests.js";

/** Longer than any answer here takes, in ticks: what a stopped machine loses is no hang. */
const HANG_TICKS = 60;
const TICK_MS = 500;

export interface Answer {
  /** Of the trailers, or of trailers only; null: the stream was reset or ended without one. */
  grpcStatus: number | null;
  message: string;
}

const TIMEOUTS = ["1n", "20m", "3m", "1S", "99999999H", "999999999S", "-1S", "1", "", "S", "0u"];
const ENCODINGS = ["gzip", "deflate", "identity", "snappy", "x"];
const PATHS = ["/", "//", "/a", "/llamasteer.v1.InferenceService", "*", `/${"a".repeat(9000)}`];

function headersOf(path: string, random: Random): http2.OutgoingHttpHeaders {
  const headers: http2.OutgoingHttpHeaders = {
    ":method": random() < 0.02 ? pick(random, ["GET", "PUT", "OPTIONS"]) : "POST",
    ":path": random() < 0.03 ? pick(random, PATHS) : path,
    "content-type": "application/grpc",
    te: "trailers",
    // Or a wait for a revision of the registry that never comes is one for ever.
    "grpc-timeout": "5S",
  };
  const rarely = () => random() < 0.05;
  if (rarely()) headers["content-type"] = pick(random, ["text/plain", "application/grpc+x", ""]);
  if (rarely()) delete headers["te"];
  if (rarely()) headers["grpc-timeout"] = pick(random, TIMEOUTS);
  if (rarely()) headers["grpc-encoding"] = pick(random, ENCODINGS);
  if (rarely()) headers["grpc-accept-encoding"] = pick(random, ENCODINGS);
  if (rarely()) headers["authorization"] = pick(random, ["Bearer x", "", "é".repeat(300)]);
  if (rarely()) headers["x-bin"] = "not base64 !";
  if (rarely()) headers["grpc-previous-rpc-attempts"] = "-1";
  if (rarely()) headers["traceparent"] = pick(random, ["00-0-0-0", "x".repeat(4000), "00-ff"]);
  return headers;
}

/**
 * The messages of a call as bytes. Most mutations are of one message; the others of the prefixes
 * (compressed flag, length) or of all bytes.
 */
export function bodyOf(call: WireCall, random: Random, others: readonly Uint8Array[]): Buffer {
  const kind = random();
  const framed = call.messages.map(grpcMessage);
  if (kind < 0.15) return Buffer.concat(framed);
  if (kind < 0.7) {
    const chosen = Math.floor(random() * call.messages.length);
    const messages = call.messages.map((message, index) =>
      index === chosen ? mutate(message, random, others) : message,
    );
    return Buffer.concat(messages.map(grpcMessage));
  }
  if (kind < 0.8) {
    const prefixed = Buffer.from(pick(random, framed));
    if (random() < 0.5) prefixed.writeUInt8(pick(random, [1, 2, 128, 255]));
    else prefixed.writeUInt32BE(pick(random, [0, 1, 0xffff, 1 << 24, 0xffffffff]), 1);
    return Buffer.concat([prefixed, ...framed.slice(1)]);
  }
  if (kind < 0.85) return Buffer.concat([...framed, ...framed]);
  return Buffer.from(mutate(Buffer.concat(framed), random, others));
}

/** One call. Rejects when it hangs; null: the connection takes no more calls. */
export function send(
  session: http2.ClientHttp2Session,
  call: WireCall,
  random: Random,
  others: readonly Uint8Array[],
): Promise<Answer> | null {
  const body = bodyOf(call, random, others);
  const headers = headersOf(call.path, random);
  const cut = Math.floor(random() * (body.length + 1));
  const reset = random() < 0.1 ? pick(random, [0, 1, 2, 5, 7, 8, 11]) : null;
  // The server may have said so this moment.
  if (session.closed || session.destroyed) return null;
  const stream = session.request(headers);
  stream.write(body.subarray(0, cut));
  if (reset === null) stream.end(body.subarray(cut));
  else stream.close(reset);
  return answerOf(stream);
}

function answerOf(stream: http2.ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const answer: Answer = { grpcStatus: null, message: "" };
    const take = (headers: http2.IncomingHttpHeaders) => {
      if (headers["grpc-status"] === undefined) return;
      answer.grpcStatus = Number(headers["grpc-status"]);
      answer.message = String(headers["grpc-message"] ?? "");
    };
    let ticks = 0;
    const timer = setInterval(() => {
      ticks += 1;
      if (ticks < HANG_TICKS) return;
      reject(new Error(`the call hangs: ${JSON.stringify(stream.sentHeaders)}`));
      stream.close();
    }, TICK_MS);
    stream.on("response", take).on("trailers", take);
    stream.on("error", () => {});
    stream.on("close", () => {
      clearInterval(timer);
      resolve(answer);
    });
    stream.resume();
  });
}

/** Connections for calls, each for some of them; old ones end by themselves. */
export class Sessions {
  private readonly open = new Set<http2.ClientHttp2Session>();
  private newest: http2.ClientHttp2Session | null = null;
  private calls = 0;

  constructor(
    private readonly address: string,
    private readonly callsEach: number,
  ) {}

  take(): http2.ClientHttp2Session {
    this.calls += 1;
    const { newest } = this;
    if (newest && this.calls <= this.callsEach && !newest.closed && !newest.destroyed) {
      return newest;
    }
    newest?.close();
    const session = http2.connect(`http://${this.address}`);
    session.on("error", () => {});
    session.on("close", () => this.open.delete(session));
    this.open.add(session);
    this.newest = session;
    this.calls = 1;
    return session;
  }

  close(): void {
    for (const session of this.open) session.destroy();
  }
}
