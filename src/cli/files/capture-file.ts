/**
 * Captured activations on their way to one file. Chunks go to `FILE.partial` as they arrive, so that
 * memory stays small however much is captured; at the end the file is put together in its order.
 *
 *   .safetensors  `input.<i>.<site>.layer.<L>` [rows, hidden] in the captured type, and for each input
 *                 `input.<i>.positions` and `input.<i>.token_ids` (uint32)
 *   .npy          one site: [rows, hidden] for one layer, else [layers, rows, hidden]; rows of all
 *                 inputs one after the other; bfloat16 is widened to float32 (NumPy has none)
 */
import { closeSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { type ActivationChunk, type ActivationDType, decodeFloats } from "../../client/client.js";
import { CommandError, UsageError } from "../exit.js";
import { npyHeader } from "./npy.js";
import { type SafetensorsType, safetensorsHeader, type TensorEntry } from "./safetensors.js";

const SAFETENSORS_TYPES: Readonly<Record<ActivationDType, SafetensorsType>> = {
  D_TYPE_FLOAT32: "F32",
  D_TYPE_BFLOAT16: "BF16",
  D_TYPE_FLOAT16: "F16",
};

interface Segment {
  offset: number;
  sizeBytes: number;
}

/** Rows of one input, site and layer. */
interface Tensor {
  input: number;
  site: string;
  layer: number;
  rows: number;
  segments: Segment[];
}

/** `RESID_POST` → `resid_post` */
const siteName = (site: string) => site.replace("SITE_", "").toLowerCase();

export class CaptureFile {
  readonly #partial: string;
  readonly #spill: number;
  readonly #tensors = new Map<string, Tensor>();
  readonly #tokens = new Map<number, { key: string; positions: number[]; tokenIds: number[] }>();
  #dtype: ActivationDType = "D_TYPE_FLOAT32";
  #hiddenSize = 0;
  #bytes = 0;

  constructor(readonly path: string) {
    if (!/\.(npy|safetensors)$/.test(path)) {
      throw new UsageError(`--out ${path}: the name must end in .npy or .safetensors`);
    }
    this.#partial = `${path}.partial`;
    try {
      this.#spill = openSync(this.#partial, "w+");
    } catch (error) {
      throw new CommandError(`${this.#partial}: cannot be written: ${(error as Error).message}`);
    }
  }

  /** Bytes received so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** `input`: index over the whole command, whatever batch it came in. */
  add(chunk: ActivationChunk, input: number): void {
    const rows = Number(chunk.shape[0] ?? 0);
    this.#hiddenSize = Number(chunk.shape[1] ?? 0);
    this.#dtype = chunk.dtype as ActivationDType;
    const key = `${input}/${chunk.site}/${chunk.layer}`;
    let tensor = this.#tensors.get(key);
    if (!tensor) {
      const site = siteName(chunk.site);
      tensor = { input, site, layer: chunk.layer, rows: 0, segments: [] };
      this.#tensors.set(key, tensor);
    }
    writeAll(this.#spill, chunk.data);
    tensor.segments.push({ offset: this.#bytes, sizeBytes: chunk.data.length });
    tensor.rows += rows;
    this.#bytes += chunk.data.length;
    const tokens = this.#tokens.get(input) ?? { key, positions: [], tokenIds: [] };
    this.#tokens.set(input, tokens);
    // Every site and layer of an input has the same tokens: those of the first are kept.
    if (tokens.key !== key) return;
    tokens.positions.push(...chunk.positions);
    tokens.tokenIds.push(...chunk.tokenIds);
  }

  /** Writes the file. The file appears whole or not at all. Returns the shape, for people. */
  finish(metadata: Readonly<Record<string, string>>): string {
    if (this.#tensors.size === 0) throw new CommandError("the server sent no activations");
    const temporary = `${this.path}.tmp`;
    const out = openSync(temporary, "w");
    try {
      const shape = this.path.endsWith(".npy")
        ? this.#writeNpy(out)
        : this.#writeSafetensors(out, metadata);
      closeSync(out);
      renameSync(temporary, this.path);
      return shape;
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  }

  /** Removes what is only needed on the way. */
  close(): void {
    closeSync(this.#spill);
    rmSync(this.#partial, { force: true });
  }

  #sorted(): Tensor[] {
    return [...this.#tensors.values()].sort(
      (a, b) => a.input - b.input || a.site.localeCompare(b.site) || a.layer - b.layer,
    );
  }

  #writeSafetensors(out: number, metadata: Readonly<Record<string, string>>): string {
    const type = SAFETENSORS_TYPES[this.#dtype];
    const tensors = this.#sorted();
    const entries: TensorEntry[] = tensors.map(({ input, site, layer, rows, segments }) => ({
      name: `input.${input}.${site}.layer.${layer}`,
      type,
      shape: [rows, this.#hiddenSize],
      sizeBytes: segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    }));
    const tables: Buffer[] = [];
    for (const [input, { positions, tokenIds }] of this.#tokens) {
      for (const [name, ids] of Object.entries({ positions, token_ids: tokenIds })) {
        const sizeBytes = ids.length * 4;
        entries.push({
          name: `input.${input}.${name}`,
          type: "U32",
          shape: [ids.length],
          sizeBytes,
        });
        tables.push(uint32Bytes(ids));
      }
    }
    writeAll(out, safetensorsHeader(entries, metadata));
    for (const tensor of tensors) this.#copy(tensor, out, (bytes) => bytes);
    for (const table of tables) writeAll(out, table);
    return `${tensors.length} ${tensors.length === 1 ? "tensor" : "tensors"}`;
  }

  #writeNpy(out: number): string {
    const tensors = this.#sorted();
    if (new Set(tensors.map(({ site }) => site)).size > 1) {
      throw new UsageError(".npy holds one site; use .safetensors, or capture one --site");
    }
    // Layers outermost: the inputs of one layer lie next to each other.
    tensors.sort((a, b) => a.layer - b.layer || a.input - b.input);
    const layers = new Set(tensors.map(({ layer }) => layer)).size;
    const rows = tensors.reduce((sum, tensor) => sum + tensor.rows, 0) / layers;
    const shape = layers === 1 ? [rows, this.#hiddenSize] : [layers, rows, this.#hiddenSize];
    const isHalf = this.#dtype === "D_TYPE_FLOAT16";
    writeAll(out, npyHeader(isHalf ? "<f2" : "<f4", shape));
    const convert = (bytes: Buffer) =>
      this.#dtype === "D_TYPE_BFLOAT16"
        ? Buffer.from(decodeFloats(bytes, this.#dtype).buffer)
        : bytes;
    for (const tensor of tensors) this.#copy(tensor, out, convert);
    return `[${shape.join(", ")}]`;
  }

  #copy({ segments }: Tensor, out: number, convert: (bytes: Buffer) => Buffer): void {
    for (const { offset, sizeBytes } of segments) {
      const bytes = Buffer.allocUnsafe(sizeBytes);
      for (let done = 0; done < sizeBytes; ) {
        const got = readSync(this.#spill, bytes, done, sizeBytes - done, offset + done);
        if (got === 0) throw new CommandError(`${this.#partial}: was cut short`);
        done += got;
      }
      writeAll(out, convert(bytes));
    }
  }
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done);
  }
}

function uint32Bytes(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4);
  return bytes;
}
