/** Makes checkpoint folders: good ones, and bad ones on purpose. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

export interface TensorSpec {
  dtype: string;
  shape: number[];
  data_offsets: number[];
}

export const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 32,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 50000,
  tie_word_embeddings: false,
  eos_token_id: 2,
};

const SIZES: Record<string, number> = { F32: 4, F16: 2, BF16: 2 };

/** Tensors one behind the other. */
export function layOut(tensors: Record<string, [dtype: string, shape: number[]]>) {
  let offset = 0;
  return Object.fromEntries(
    Object.entries(tensors).map(([name, [dtype, shape]]): [string, TensorSpec] => {
      const begin = offset;
      offset += shape.reduce((product, size) => product * size, SIZES[dtype] ?? 1);
      return [name, { dtype, shape, data_offsets: [begin, offset] }];
    }),
  );
}

export const TENSORS = layOut({
  "model.embed_tokens.weight": ["BF16", [32, 64]],
  "model.norm.weight": ["F32", [64]],
  "lm_head.weight": ["F16", [32, 64]],
});

/** A file with this header and as many bytes of data as its tensors take, and `extra` more. */
export function safetensors(header: object | string | Uint8Array, extra = 0): Buffer {
  const json =
    typeof header === "string" || header instanceof Uint8Array
      ? Buffer.from(header)
      : Buffer.from(JSON.stringify(header));
  const ends = typeof header === "string" || header instanceof Uint8Array ? [] : endsOf(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const data = Buffer.alloc(Math.max(0, Math.max(0, ...ends) + extra));
  for (let i = 0; i < data.length; i += 1) data[i] = i % 251;
  return Buffer.concat([length, json, data]);
}

function endsOf(header: object): number[] {
  return Object.values(header).flatMap((entry) => {
    const end: unknown = entry?.data_offsets?.[1];
    return typeof end === "number" && end > 0 && end < 1 << 20 ? [end] : [];
  });
}

export class Folders {
  private readonly root = mkdtempSync(path.join(tmpdir(), "checkpoint-"));
  private count = 0;

  /** Objects are written as JSON; null leaves the file out. */
  make(change: Record<string, object | string | Uint8Array | null> = {}): string {
    const folder = path.join(this.root, `checkpoint-${this.count++}`);
    mkdirSync(folder);
    const files = { "config.json": CONFIG, "model.safetensors": safetensors(TENSORS), ...change };
    for (const [name, content] of Object.entries(files)) {
      if (content === null) continue;
      const isRaw = typeof content === "string" || content instanceof Uint8Array;
      writeFileSync(path.join(folder, name), isRaw ? content : JSON.stringify(content));
    }
    return folder;
  }

  remove(): void {
    rmSync(this.root, { recursive: true });
  }
}
