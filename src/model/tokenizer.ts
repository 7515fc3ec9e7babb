/** tokenizer.json through the Hugging Face `tokenizers` package: the same ids as transformers. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { invalid, StartupError } from "../errors.js";
import { type DecoderKind, decoderKindOf } from "./decoder-kind.js";
import { isObject, reasonOf } from "./json.js";
import { hasLoneSurrogate } from "./unicode.js";

interface SpecialToken {
  id: number;
  content: string;
  /** Looked for in normalised text. */
  normalized: boolean;
}

export class Tokenizer {
  private readonly specialIds: Set<number>;
  private readonly decoder: ReturnType<HuggingFaceTokenizer["getDecoder"]>;

  private constructor(
    private readonly inner: HuggingFaceTokenizer,
    readonly specialTokens: readonly SpecialToken[],
    readonly decoderKind: DecoderKind,
    /** Ids of the model; may be more than the tokenizer has pieces for. */
    readonly vocabSize: number,
  ) {
    this.specialIds = new Set(specialTokens.map(({ id }) => id));
    this.decoder = inner.getDecoder();
  }

  static open(folder: string, vocabSize: number): Tokenizer {
    const file = path.join(folder, "tokenizer.json");
    if (!existsSync(file)) throw new StartupError(`${folder}: tokenizer.json is missing`);
    try {
      const text = readFileSync(file, "utf8");
      const inner = HuggingFaceTokenizer.fromString(text);
      inner.disableTruncation();
      inner.disablePadding();
      const json: unknown = JSON.parse(text);
      const tokenizer = new Tokenizer(inner, specialTokensOf(json), decoderKindOf(json), vocabSize);
      tokenizer.checkIds(file);
      return tokenizer;
    } catch (error) {
      if (error instanceof StartupError) throw error;
      throw new StartupError(`${file}: not a tokenizer: ${reasonOf(error)}`);
    }
  }

  private checkIds(file: string): void {
    const largest = Object.values(this.inner.getVocab(true)).reduce((a, b) => Math.max(a, b), -1);
    if (largest >= this.vocabSize) {
      throw new StartupError(`${file}: token id ${largest}, but the model has ${this.vocabSize}`);
    }
  }

  /**
   * Off the event loop. `addSpecialTokens`: BOS and whatever else the post-processor adds. `field`
   * is the path of the text in the request. Throws InvalidArgumentError for what is not Unicode.
   */
  async encode(text: string, addSpecialTokens: boolean, field = "text"): Promise<number[]> {
    if (hasLoneSurrogate(text)) throw invalid(field, "holds a lone surrogate, which is no text");
    const encoding = await this.inner.encode(text, null, { addSpecialTokens });
    return encoding.getIds();
  }

  /** The piece of an id; empty for ids that the tokenizer does not know. */
  piece(id: number): string {
    return this.inner.idToToken(id) ?? "";
  }

  isSpecial(id: number): boolean {
    return this.specialIds.has(id);
  }

  /** As `decode` of the Hugging Face library, without clean-up of spaces; unknown ids have no text. */
  decode(ids: readonly number[], skipSpecialTokens: boolean): string {
    const pieces: string[] = [];
    for (const id of ids) {
      if (skipSpecialTokens && this.specialIds.has(id)) continue;
      const piece = this.inner.idToToken(id);
      if (piece !== null) pieces.push(piece);
    }
    return this.joinPieces(pieces);
  }

  /** The text of pieces. */
  joinPieces(pieces: string[]): string {
    return this.decoder === null ? pieces.join(" ") : this.decoder.decode(pieces);
  }

  /** The first special token that encoding `text` would find in it. */
  findSpecialToken(text: string): string | null {
    const isIn = ({ content, normalized }: SpecialToken) =>
      normalized ? this.normalize(text).includes(this.normalize(content)) : text.includes(content);
    return this.specialTokens.find(isIn)?.content ?? null;
  }

  private normalize(text: string): string {
    return this.inner.getNormalizer()?.normalizeString(text) ?? text;
  }
}

function specialTokensOf(json: unknown): SpecialToken[] {
  const added = isObject(json) ? json["added_tokens"] : undefined;
  if (!Array.isArray(added)) return [];
  return added.flatMap((token: unknown) => {
    if (!isObject(token) || token["special"] !== true) return [];
    const { id, content, normalized } = token;
    if (typeof id !== "number" || typeof content !== "string" || content === "") return [];
    return [{ id, content, normalized: normalized === true }];
  });
}
