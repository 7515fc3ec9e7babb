/** Connections as lists of HTTP/2 frames, and what can be wrong with them. */
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  literal,
  PREFACE,
} from "../../support/http2-frames.js";
import { mutate, pick, type Random } from "../mutate.js";
import { bodyOf } from "./calls.js";
import type { WireCall } from "./requests.js";

interface Frame {
  type: number;
  flags: number;
  stream: number;
  payload: Buffer;
  /** Said in place of the payload's length. */
  length?: number;
}

const MAX_CALLS = 4;
const MAX_MUTATIONS = 4;
const MAX_FLOOD = 400;
const DATA_BYTES = 16_384;
/** Deadlines keep the server busy with what nobody waits for any more. */
const TIMEOUT = "1S";

/** Indexed fields of the static table: `:method POST`, `:scheme http`. */
const INDEXED = [0x83, 0x86];
const STRANGE_NAMES = [
  "",
  ":x",
  "A",
  "x-bin",
  "grpc-status",
  "te",
  "connection",
  "x\0y",
  "\xff",
  "a b",
];
const STRANGE_VALUES = ["", "\0", "\r\n", "\xff\xfe", "not base64 !", " ", "a".repeat(9000), "%zz"];

const integer = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

function headerBlock(path: string, random: Random): Buffer {
  const fields = [
    ...(random() < 0.5
      ? [Buffer.from(INDEXED)]
      : [literal(":method", "POST"), literal(":scheme", "http")]),
    literal(":path", path),
    literal(":authority", "localhost"),
    literal("content-type", "application/grpc"),
    literal("te", "trailers"),
    literal("grpc-timeout", TIMEOUT),
  ];
  if (random() < 0.3)
    fields.push(literal(pick(random, STRANGE_NAMES), pick(random, STRANGE_VALUES)));
  if (random() < 0.05) fields.reverse();
  return Buffer.concat(fields);
}

/** Header block in one frame or two, body in any number. */
function framesOfCall(
  call: WireCall,
  stream: number,
  random: Random,
  others: readonly Uint8Array[],
) {
  const frames: Frame[] = [];
  const add = (type: number, flags: number, payload: Buffer) =>
    frames.push({ type, flags, stream, payload });
  const block = headerBlock(call.path, random);
  if (random() < 0.2) {
    const cut = Math.floor(random() * block.length);
    add(FRAME.headers, 0, block.subarray(0, cut));
    add(FRAME.continuation, END_HEADERS, block.subarray(cut));
  } else {
    add(FRAME.headers, END_HEADERS, block);
  }
  const body = bodyOf(call, random, others);
  const piece = random() < 0.5 ? DATA_BYTES : 1 + Math.floor(random() * 40);
  for (let at = 0; at < body.length; at += piece) add(FRAME.data, 0, body.subarray(at, at + piece));
  // Others stay half open.
  if (random() < 0.8) add(FRAME.data, END_STREAM, Buffer.alloc(0));
  return frames;
}

const PAYLOADS: Record<number, (random: Random) => Buffer> = {
  [FRAME.data]: () => Buffer.alloc(0),
  [FRAME.headers]: (random) => headerBlock("/llamasteer.v1.ModelService/GetModel", random),
  [FRAME.priority]: () => Buffer.alloc(5),
  [FRAME.rstStream]: (random) => integer(pick(random, [0, 1, 5, 8, 99])),
  [FRAME.settings]: (random) => {
    const setting = Buffer.alloc(6);
    setting.writeUInt16BE(pick(random, [1, 2, 3, 4, 5, 6, 8, 99]));
    setting.writeUInt32BE(pick(random, [0, 1, 16_384, 0x7fffffff, 0xffffffff]), 2);
    return setting;
  },
  [FRAME.pushPromise]: () => integer(2),
  [FRAME.ping]: () => Buffer.alloc(8),
  [FRAME.goaway]: (random) => Buffer.concat([integer(0), integer(pick(random, [0, 0, 1, 11]))]),
  [FRAME.windowUpdate]: (random) => integer(pick(random, [0, 1, 65_535, 0x7fffffff])),
  [FRAME.continuation]: () => Buffer.from(INDEXED),
};
const TYPES = Object.keys(PAYLOADS).map(Number);
const OF_THE_CONNECTION: number[] = [FRAME.settings, FRAME.ping, FRAME.goaway];

/** Any frame, well formed by itself. */
function anyFrame(random: Random, type = pick(random, TYPES)): Frame {
  const payload = PAYLOADS[type]?.(random) ?? Buffer.alloc(0);
  const stream = OF_THE_CONNECTION.includes(type) ? 0 : pick(random, [0, 1, 1, 3, 3, 5, 2, 2001]);
  return { type, flags: pick(random, [0, 0, END_STREAM, END_HEADERS]), stream, payload };
}

const FLOODS = [FRAME.ping, FRAME.settings, FRAME.windowUpdate, FRAME.priority, FRAME.data];

/** Calls that are begun and reset, or frames that cost an answer each. */
function flood(random: Random): Frame[] {
  const count = 1 + Math.floor(random() * MAX_FLOOD);
  if (random() < 0.3) {
    return Array.from({ length: count }, (_, index) => {
      const stream = 101 + 2 * index;
      const reset = { ...anyFrame(random, FRAME.rstStream), flags: 0, stream };
      return [{ ...anyFrame(random, FRAME.headers), flags: END_HEADERS, stream }, reset];
    }).flat();
  }
  const one = anyFrame(random, pick(random, FLOODS));
  return Array.from({ length: count }, () => one);
}

const place = (frames: readonly Frame[], random: Random) =>
  Math.floor(random() * (frames.length + 1));

/** Each changes the list in place. */
const MUTATIONS: ((frames: Frame[], random: Random) => void)[] = [
  (frames, random) => void frames.splice(place(frames, random), 1),
  (frames, random) => void frames.splice(place(frames, random), 0, anyFrame(random)),
  (frames, random) => void frames.splice(place(frames, random), 0, ...flood(random)),
  (frames, random) => {
    const at = place(frames, random);
    frames.splice(at, 0, ...frames.slice(at, at + 2));
  },
  (frames, random) => {
    const [moved] = frames.splice(place(frames, random), 1);
    if (moved) frames.splice(place(frames, random), 0, moved);
  },
  (frames, random) => change(frames, random, () => ({ type: Math.floor(random() * 12) })),
  (frames, random) =>
    change(frames, random, ({ flags }) => ({ flags: flags ^ (1 << (random() * 8)) })),
  (frames, random) =>
    change(frames, random, () => ({ stream: pick(random, [0, 1, 2, 3, 0x7fffffff]) })),
  (frames, random) =>
    change(frames, random, () => ({ length: pick(random, [0, 1, 16_385, 0xffffff]) })),
  (frames, random) =>
    change(frames, random, ({ payload }) => ({
      payload: Buffer.from(mutate(payload, random, [payload])),
    })),
];

function change(frames: Frame[], random: Random, to: (frame: Frame) => Partial<Frame>): void {
  const at = Math.floor(random() * frames.length);
  const chosen = frames[at];
  if (chosen) frames[at] = { ...chosen, ...to(chosen) };
}

function bytesOf({ type, flags, stream, payload, length }: Frame): Buffer {
  const bytes = frame(type, flags, stream, payload);
  if (length !== undefined) bytes.writeUIntBE(length, 0, 3);
  return bytes;
}

/** What one connection sends, from its first byte on. The same bytes for the same seed. */
export function connectionBytes(
  calls: readonly WireCall[],
  random: Random,
  others: readonly Uint8Array[],
): Buffer {
  const frames: Frame[] = [{ type: FRAME.settings, flags: 0, stream: 0, payload: Buffer.alloc(0) }];
  const count = 1 + Math.floor(random() * MAX_CALLS);
  for (let call = 0; call < count; call += 1) {
    frames.push(...framesOfCall(pick(random, calls), 2 * call + 1, random, others));
  }
  const mutations = Math.floor(random() * (MAX_MUTATIONS + 1));
  for (let i = 0; i < mutations; i += 1) pick(random, MUTATIONS)(frames, random);
  const bytes = Buffer.concat([PREFACE, ...frames.map(bytesOf)]);
  return random() < 0.3 ? Buffer.from(mutate(bytes, random, others)) : bytes;
}
