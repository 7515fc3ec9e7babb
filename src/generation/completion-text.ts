/** Text of one completion: detokenizer, then stop texts. */
import { IncrementalDetokenizer } from "../model/incremental-detokenizer.js";
import type { Tokenizer } from "../model/tokenizer.js";
import { StopStrings } from "./stop-strings.js";

export class CompletionText {
  private readonly detokenizer: IncrementalDetokenizer;
  private readonly stops: StopStrings;

  constructor(tokenizer: Tokenizer, stop: readonly string[]) {
    this.detokenizer = new IncrementalDetokenizer(tokenizer);
    this.stops = new StopStrings(stop);
  }

  /** `stopped`: a stop text was completed; the text ends before it. */
  push(tokenId: number): { text: string; stopped: boolean } {
    return this.stops.push(this.detokenizer.push(tokenId));
  }

  /** The rest, when no token follows; it can still complete a stop text. */
  finish(): { text: string; stopped: boolean } {
    const last = this.stops.push(this.detokenizer.flush());
    return last.stopped ? last : { text: last.text + this.stops.flush(), stopped: false };
  }
}
