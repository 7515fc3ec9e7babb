/** config.json of a LlamaForCausalLM, in the layouts of transformers 4 and 5. */
import { StartupError } from "../errors.js";
import type { NativeLlamaConfig } from "../native/binding.js";
import { isObject, type JsonObject } from "./json.js";

/** Reads typed fields of config.json; every complaint names the file and the field. */
class Fields {
  constructor(
    private readonly file: string,
    private readonly object: JsonObject,
    private readonly prefix = "",
  ) {}

  fail(name: string, text: string): never {
    throw new StartupError(`${this.file}: ${this.prefix}${name}: ${text}`);
  }

  has(name: string): boolean {
    return this.object[name] !== undefined && this.object[name] !== null;
  }

  raw(name: string): unknown {
    return this.object[name];
  }

  integer(name: string, min: number, max: number, fallback?: number): number {
    const value = this.has(name) ? this.object[name] : fallback;
    if (value === undefined) this.fail(name, "is missing");
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
      this.fail(name, `${JSON.stringify(value)} is not an integer from ${min} to ${max}`);
    }
    return value;
  }

  number(name: string, min: number, max: number, fallback?: number): number {
    const value = this.has(name) ? this.object[name] : fallback;
    if (value === undefined) this.fail(name, "is missing");
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      this.fail(name, `${JSON.stringify(value)} is not a number from ${min} to ${max}`);
    }
    return value;
  }

  boolean(name: string, fallback: boolean): boolean {
    if (!this.has(name)) return fallback;
    const value = this.object[name];
    if (typeof value !== "boolean")
      this.fail(name, `${JSON.stringify(value)} is not true or false`);
    return value;
  }

  nested(name: string): Fields | null {
    if (!this.has(name)) return null;
    const value = this.object[name];
    if (!isObject(value)) this.fail(name, "is not an object");
    return new Fields(this.file, value, `${this.prefix}${name}.`);
  }
}

type Rope = Pick<NativeLlamaConfig, "ropeTheta" | "ropeScaling" | "ropeLinearFactor">;

const DEFAULT_ROPE_THETA = 10_000;

/** transformers 4: `rope_theta` and `rope_scaling`; transformers 5: both inside `rope_parameters`. */
function parseRope(fields: Fields): Rope {
  const parameters = fields.nested("rope_parameters");
  const scaling = parameters ?? fields.nested("rope_scaling");
  const theta = parameters?.has("rope_theta")
    ? parameters.number("rope_theta", 1, 1e12)
    : fields.number("rope_theta", 1, 1e12, DEFAULT_ROPE_THETA);
  const rotated = (scaling ?? fields).number("partial_rotary_factor", 0, 1, 1);
  if (rotated !== 1) fields.fail("partial_rotary_factor", `${rotated} is not supported; 1 is`);
  const none: Rope = { ropeTheta: theta, ropeScaling: null, ropeLinearFactor: 1 };
  if (!scaling) return none;

  const type = scaling.raw("rope_type") ?? scaling.raw("type") ?? "default";
  switch (type) {
    case "default":
      return none;
    case "linear":
      return { ...none, ropeLinearFactor: scaling.number("factor", 1, 1e6) };
    case "llama3": {
      const lowFrequencyFactor = scaling.number("low_freq_factor", 1e-6, 1e6);
      const highFrequencyFactor = scaling.number("high_freq_factor", 1e-6, 1e6);
      if (highFrequencyFactor <= lowFrequencyFactor) {
        scaling.fail("high_freq_factor", "is not above low_freq_factor");
      }
      return {
        ...none,
        ropeScaling: {
          factor: scaling.number("factor", 1, 1e6),
          lowFrequencyFactor,
          highFrequencyFactor,
          originalContextTokens: scaling.integer("original_max_position_embeddings", 1, 1 << 24),
        },
      };
    }
    default:
      return scaling.fail(
        "rope_type",
        `${JSON.stringify(type)} is not supported; default, linear and llama3 are`,
      );
  }
}

function checkArchitecture(fields: Fields): void {
  const architectures = fields.raw("architectures");
  const named = Array.isArray(architectures)
    ? architectures.includes("LlamaForCausalLM")
    : fields.raw("model_type") === "llama";
  if (!named) {
    fields.fail(
      "architectures",
      `${JSON.stringify(architectures ?? null)} is not supported; LlamaForCausalLM is`,
    );
  }
  const activation = fields.raw("hidden_act") ?? "silu";
  if (activation !== "silu") {
    fields.fail("hidden_act", `${JSON.stringify(activation)} is not supported; silu is`);
  }
  if (fields.has("quantization_config")) {
    fields.fail("quantization_config", "quantised checkpoints are not supported; use --dtype int8");
  }
}

export function parseLlamaConfig(file: string, object: JsonObject): NativeLlamaConfig {
  const fields = new Fields(file, object);
  checkArchitecture(fields);
  const hiddenSize = fields.integer("hidden_size", 1, 1 << 17);
  const queryHeads = fields.integer("num_attention_heads", 1, 4096);
  const kvHeads = fields.integer("num_key_value_heads", 1, 4096, queryHeads);
  if (queryHeads % kvHeads !== 0) {
    fields.fail("num_key_value_heads", `${kvHeads} does not divide ${queryHeads} query heads`);
  }
  if (!fields.has("head_dim") && hiddenSize % queryHeads !== 0) {
    fields.fail("num_attention_heads", `${queryHeads} does not divide hidden_size ${hiddenSize}`);
  }
  const headSize = fields.integer("head_dim", 1, 256, hiddenSize / queryHeads);
  if (headSize % 16 !== 0) {
    fields.fail("head_dim", `${headSize} is not supported; multiples of 16 up to 256 are`);
  }
  return {
    hiddenSize,
    intermediateSize: fields.integer("intermediate_size", 1, 1 << 20),
    layers: fields.integer("num_hidden_layers", 1, 1024),
    queryHeads,
    kvHeads,
    headSize,
    vocabSize: fields.integer("vocab_size", 1, 1 << 24),
    contextTokens: fields.integer("max_position_embeddings", 1, 1 << 24, 2048),
    normEpsilon: fields.number("rms_norm_eps", 0, 1, 1e-6),
    ...parseRope(fields),
    tiedEmbeddings: fields.boolean("tie_word_embeddings", false),
    attentionBias: fields.boolean("attention_bias", false),
    mlpBias: fields.boolean("mlp_bias", false),
  };
}
