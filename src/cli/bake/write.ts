/**
 * Writes the baked checkpoint: the source's shards with the biases of each block beside its
 * down_proj. Tensors of the source are copied byte for byte. The folder appears whole or not at all.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { floatsToBytes } from "../../client/client.js";
import { CommandError, UsageError } from "../exit.js";
import { floatsOf, safetensorsHeader, type TensorEntry } from "../files/safetensors.js";
import { downProjection, INDEX_FILE, type Shard, type SourceCheckpoint } from "./source.js";

/** Beside config.json: all that an engine needs. The card of the source describes another model. */
const COPIED_FILES =
  /^(generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json$|^(merges\.txt|tokenizer\.model|.*\.jinja)$|^(LICENSE|NOTICE|USE_POLICY)/;
const COPY_BYTES = 16 * 1024 * 1024;

/** What a tensor of the result is made of. */
interface Piece extends TensorEntry {
  /** Offset in the source's shard, or the bytes themselves. */
  source: number | Buffer;
}

/**
 * `biases`: what is added to each block's down_proj, float32 [hidden]. `record`: written to
 * steering.json, so that the folder says what was done to it.
 */
export async function writeBaked(
  source: SourceCheckpoint,
  biases: ReadonlyMap<number, Float32Array>,
  out: string,
  record: object,
  onProgress: (bytesDone: number) => void,
  signal: AbortSignal,
): Promise<void> {
  refuseTarget(out);
  const temporary = `${out}.partial`;
  rmSync(temporary, { recursive: true, force: true });
  try {
    mkdirSync(temporary, { recursive: true });
    const shards = source.shards.map((shard) => ({
      shard,
      pieces: piecesOf(source, shard, biases),
    }));
    let bytesDone = 0;
    for (const { shard, pieces } of shards) {
      for await (const bytes of writeShard(source.folder, temporary, shard, pieces)) {
        bytesDone += bytes;
        onProgress(bytesDone);
        if (signal.aborted) throw new CommandError("interrupted");
      }
    }
    if (source.index) writeIndex(temporary, source.index, shards);
    writeJson(temporary, "config.json", { ...source.config, mlp_bias: true });
    writeJson(temporary, "steering.json", record);
    for (const name of readdirSync(source.folder)) {
      if (COPIED_FILES.test(name)) {
        copyFileSync(path.join(source.folder, name), path.join(temporary, name));
      }
    }
    if (existsSync(out)) rmdirSync(out);
    renameSync(temporary, out);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw error;
  }
}

/** An existing folder with something in it is never written into. */
function refuseTarget(out: string): void {
  if (existsSync(out) && readdirSync(out).length > 0) {
    throw new UsageError(`${out}: exists and is not empty`);
  }
}

/** The source's tensors in their order, then the biases of the blocks whose down_proj lies here. */
function piecesOf(
  source: SourceCheckpoint,
  shard: Shard,
  biases: ReadonlyMap<number, Float32Array>,
): Piece[] {
  const pieces: Piece[] = shard.tensors.map((tensor) => ({ ...tensor, source: tensor.offset }));
  const names = new Set(source.shards.flatMap(({ tensors }) => tensors.map(({ name }) => name)));
  for (let block = 0; block < source.blocks; block++) {
    const down = downProjection(block);
    const bias = biases.get(block);
    const here = (name: string) => shard.tensors.some((tensor) => tensor.name === name);
    if (names.has(`${down}.bias`)) {
      if (bias && here(`${down}.bias`)) replaceBias(source, shard, pieces, `${down}.bias`, bias);
    } else if (here(`${down}.weight`)) {
      pieces.push(biasPiece(`${down}.bias`, bias ?? new Float32Array(source.hiddenSize)));
      for (const name of ["gate_proj", "up_proj"]) {
        const zeros = new Float32Array(source.intermediateSize);
        pieces.push(biasPiece(`model.layers.${block}.mlp.${name}.bias`, zeros));
      }
    }
  }
  return pieces;
}

/**
 * float32 whatever the weights are: the service adds c·v in float32, and 8 bits of a bf16 would
 * move logits by what separates close tokens. Engines convert it to their own type as they load.
 */
function biasPiece(name: string, values: Float32Array): Piece {
  const source = floatsToBytes(values);
  return { name, type: "F32", shape: [values.length], sizeBytes: source.length, source };
}

/** A model that has the bias already: the sum. */
function replaceBias(
  source: SourceCheckpoint,
  shard: Shard,
  pieces: Piece[],
  name: string,
  added: Float32Array,
): void {
  const file = path.join(source.folder, shard.name);
  const at = pieces.findIndex((piece) => piece.name === name);
  const piece = pieces[at] as Piece;
  const data = Buffer.alloc(piece.sizeBytes);
  const descriptor = openSync(file, "r");
  try {
    readSync(descriptor, data, 0, data.length, piece.source as number);
  } finally {
    closeSync(descriptor);
  }
  const before = floatsOf(piece, data, file);
  pieces[at] = biasPiece(
    name,
    before.map((value, i) => value + (added[i] ?? 0)),
  );
}

const sum = (tensors: readonly TensorEntry[]) =>
  tensors.reduce((total, { sizeBytes }) => total + sizeBytes, 0);

/** Yields the bytes of each write, and lets other work in between. */
async function* writeShard(
  from: string,
  to: string,
  shard: Shard,
  pieces: readonly Piece[],
): AsyncGenerator<number, void, undefined> {
  const input = openSync(path.join(from, shard.name), "r");
  const output = openSync(path.join(to, shard.name), "w");
  try {
    writeAll(output, safetensorsHeader(pieces, shard.metadata));
    const buffer = Buffer.allocUnsafe(COPY_BYTES);
    for (const { name, source, sizeBytes } of pieces) {
      if (typeof source !== "number") writeAll(output, source);
      for (let done = 0; typeof source === "number" && done < sizeBytes; ) {
        const size = Math.min(COPY_BYTES, sizeBytes - done);
        const got = readSync(input, buffer, 0, size, source + done);
        if (got === 0) throw new CommandError(`${shard.name}: tensor ${name} was cut short`);
        writeAll(output, buffer.subarray(0, got));
        done += got;
        yield got;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  } finally {
    closeSync(input);
    closeSync(output);
  }
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done);
  }
}

function writeIndex(
  folder: string,
  index: NonNullable<SourceCheckpoint["index"]>,
  shards: readonly { shard: Shard; pieces: readonly Piece[] }[],
): void {
  const weightMap = shards.flatMap(({ shard, pieces }) =>
    pieces.map(({ name }) => [name, shard.name] as const),
  );
  writeJson(folder, INDEX_FILE, {
    metadata: { ...index.metadata, total_size: sum(shards.flatMap(({ pieces }) => pieces)) },
    weight_map: Object.fromEntries(weightMap),
  });
}

function writeJson(folder: string, name: string, value: object): void {
  writeFileSync(path.join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
}
