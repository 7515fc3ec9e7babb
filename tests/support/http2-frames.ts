/** HTTP/2 frames by hand (RFC 9113), for what no library's client would send. */
import { loadContract } from "../../src/rpc/contract.js";

const FRAME = { data: 0, headers: 1, rstStream: 3, settings: 4 } as const;
const END_STREAM = 0x1;
const END_HEADERS = 0x4;
/** Unless settings say otherwise. */
const MAX_FRAME_BYTES = 16_384;
const CANCEL = 8;

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** One field of a header block, spelled out (RFC 7541, 6.2.2); both texts below 127 bytes. */
function literal(name: string, value: string): Buffer {
  const text = (of: string) => Buffer.from([of.length, ...Buffer.from(of)]);
  return Buffer.concat([Buffer.from([0]), text(name), text(value)]);
}

/** What a client says first: that it is one, and that it has no settings. */
function hello(): Buffer {
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  return Buffer.concat([preface, frame(FRAME.settings, 0, 0, Buffer.alloc(0))]);
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
