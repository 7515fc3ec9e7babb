/** HTTP/2 frames by hand (RFC 9113), for what no library's client would send. */
import { loadContract } from "../../src/rpc/contract.js";

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
export const END_STREAM = 0x1;
export const END_HEADERS = 0x4;
/** Unless settings say otherwise. */
const MAX_FRAME_BYTES = 16_384;
const CANCEL = 8;

export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** The length of a text in a header block, in a prefix of seven bits (RFC 7541, 5.1). */
function lengthPrefix(length: number): Buffer {
  if (length < 127) return Buffer.from([length]);
  const bytes = [127];
  let rest = length - 127;
  for (; rest >= 128; rest >>= 7) bytes.push((rest & 127) | 128);
  return Buffer.from([...bytes, rest]);
}

/** One field of a header block, spelled out (RFC 7541, 6.2.2); texts are taken as Latin-1. */
export function literal(name: string, value: string): Buffer {
  const text = (of: string) => Buffer.concat([lengthPrefix(of.length), Buffer.from(of, "latin1")]);
  return Buffer.concat([Buffer.from([0]), text(name), text(value)]);
}

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** What a client says first: that it is one, and that it has no settings. */
function hello(): Buffer {
  return Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0, Buffer.alloc(0))]);
}

function headersOf(path: string): Buffer {
  return Buffer.concat([
    literal(":method", "POST"),
    literal(":scheme", "http"),
    literal(":path", path),
    literal(":authority", "localhost"),
    literal("content-type", "application/grpc"),
    literal("te", "trailers"),
  ]);
}

/** `method`: "Service/Method" of the contract. */
export function serializeRequest(method: string, request: object): Buffer {
  const [service = "", name = ""] = method.split("/");
  const definition = loadContract().services.get(`llamasteer.v1.${service}`)?.[name];
  if (!definition) throw new Error(`the contract has no ${method}`);
  return definition.requestSerialize(request);
}

/** A message behind its prefix, as gRPC sends it. */
export function grpcMessage(bytes: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([prefix, bytes]);
}

/** A new connection on which one call of `path` is made, and then a frame longer than allowed. */
export function callAndBrokenFrame(path: string, message: Uint8Array): Buffer {
  const broken = frame(FRAME.data, 0, 1, Buffer.alloc(0));
  broken.writeUIntBE(MAX_FRAME_BYTES + 1, 0, 3);
  return Buffer.concat([
    hello(),
    frame(FRAME.headers, END_HEADERS, 1, headersOf(path)),
    frame(FRAME.data, END_STREAM, 1, grpcMessage(message)),
    broken,
  ]);
}

/**
 * A new connection that says goodbye and goes on: a call in two frames of headers, and a frame too
 * short for its type.
 */
export function callAfterGoaway(path: string): Buffer {
  const block = headersOf(path);
  const half = block.length >> 1;
  return Buffer.concat([
    hello(),
    frame(FRAME.goaway, 0, 0, Buffer.alloc(8)),
    frame(FRAME.headers, 0, 1, block.subarray(0, half)),
    frame(FRAME.continuation, END_HEADERS, 1, block.subarray(half)),
    frame(FRAME.pushPromise, 0, 3, Buffer.alloc(0)),
  ]);
}

/** A new connection on which calls of `path` are begun and reset, pair by pair. */
export function floodOfResets(path: string, calls: number): Buffer {
  const block = headersOf(path);
  const code = Buffer.alloc(4);
  code.writeUInt32BE(CANCEL);
  const frames = [hello()];
  for (let call = 0; call < calls; call++) {
    const stream = 2 * call + 1;
    // The request message never comes: the reset is what ends the call.
    frames.push(frame(FRAME.headers, END_HEADERS, stream, block));
    frames.push(frame(FRAME.rstStream, 0, stream, code));
  }
  return Buffer.concat(frames);
}
