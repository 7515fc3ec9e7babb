/**
 * Token by token to text. A piece's text can depend on the pieces before it (bytes of one character,
 * leading spaces), so a short window is decoded with and without the new token, and text is given out
 * once it no longer ends in an incomplete character.
 */
import type { Tokenizer } from "./tokenizer.js";

const REPLACEMENT = "\uFFFD";
/** A character takes at most four bytes; more pending tokens than this are not going to be one. */
const MAX_PENDING_TOKENS = 16;

export class IncrementalDetokenizer {
  private ids: number[] = [];
  /** The window starts here… */
  private windowStart = 0;
  /** …and its text up to here has been given out. */
  private givenOut = 0;

  constructor(private readonly tokenizer: Tokenizer) {}

  /** The text that this token makes certain; may be empty. */
  push(id: number): string {
    if (this.tokenizer.isSpecial(id)) return "";
    this.ids.push(id);
    const pending = this.pendingText();
    const incomplete = pending.endsWith(REPLACEMENT);
    if (pending === "" || (incomplete && this.ids.length - this.givenOut < MAX_PENDING_TOKENS)) {
      return "";
    }
    this.advance();
    return pending;
  }

  /** What is left at the end, an incomplete character as U+FFFD. */
  flush(): string {
    const pending = this.pendingText();
    this.advance();
    return pending;
  }

  private pendingText(): string {
    const before = this.tokenizer.decode(this.ids.slice(this.windowStart, this.givenOut), true);
    return this.tokenizer.decode(this.ids.slice(this.windowStart), true).slice(before.length);
  }

  private advance(): void {
    this.ids = this.ids.slice(this.givenOut);
    this.windowStart = 0;
    this.givenOut = this.ids.length;
  }
}
