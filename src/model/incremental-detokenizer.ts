/**
 * Token by token to text. Text is given out as soon as no later token can change it, so that the
 * parts together are what `Tokenizer.decode` makes of all tokens, special ones left out. The cost of
 * a token does not grow with the number of tokens before it.
 */
import { bytesOfPiece, isBytePiece } from "./decoder-kind.js";
import type { Tokenizer } from "./tokenizer.js";

interface Strategy {
  push(id: number, piece: string): string;
  flush(): string;
}

export class IncrementalDetokenizer {
  private readonly strategy: Strategy;

  constructor(private readonly tokenizer: Tokenizer) {
    this.strategy = tokenizer.decoderKind.isByteLevel
      ? new ByteStream()
      : new PieceWindow(tokenizer);
  }

  /** The text that this token makes certain; may be empty. */
  push(id: number): string {
    const piece = this.tokenizer.piece(id);
    return piece === "" || this.tokenizer.isSpecial(id) ? "" : this.strategy.push(id, piece);
  }

  /** What is left at the end, an incomplete character as U+FFFD. */
  flush(): string {
    return this.strategy.flush();
  }
}

/** Byte-level BPE: pieces are bytes, and a streaming decoder holds back an incomplete character. */
class ByteStream implements Strategy {
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  push(_id: number, piece: string): string {
    return this.decoder.decode(bytesOfPiece(piece), { stream: true });
  }

  flush(): string {
    return this.decoder.decode();
  }
}

/**
 * Other decoders treat the first piece in a special way (a leading space goes) and a run of byte
 * pieces as a whole. So new pieces are decoded behind some that have been given out before, and a
 * run of byte pieces waits for its end.
 */
class PieceWindow implements Strategy {
  /** Given out last; the text behind them is not the start of a text. */
  private before: number[] = [];
  private pending: number[] = [];

  constructor(private readonly tokenizer: Tokenizer) {}

  push(id: number, piece: string): string {
    const { hasByteFallback } = this.tokenizer.decoderKind;
    if (hasByteFallback && isBytePiece(piece)) {
      this.pending.push(id);
      return "";
    }
    const run = this.take();
    this.pending.push(id);
    return run + this.take();
  }

  flush(): string {
    return this.take();
  }

  private take(): string {
    if (this.pending.length === 0) return "";
    const known = this.tokenizer.decode(this.before, false);
    const text = this.tokenizer.decode([...this.before, ...this.pending], false);
    this.before = this.pending;
    this.pending = [];
    return text.slice(known.length);
  }
}
