/** Stop texts, matched across token boundaries. */

/** Text is held back while it may be the beginning of a stop text. */
export class StopStrings {
  private held = "";

  constructor(private readonly stops: readonly string[]) {}

  /** Text that may be given out; `stopped`: a stop text was completed, and nothing may follow. */
  push(text: string): { text: string; stopped: boolean } {
    if (this.stops.length === 0) return { text, stopped: false };
    const seen = this.held + text;
    const at = this.firstMatch(seen);
    if (at >= 0) {
      this.held = "";
      return { text: seen.slice(0, at), stopped: true };
    }
    const keep = this.possibleBeginning(seen);
    this.held = seen.slice(seen.length - keep);
    return { text: seen.slice(0, seen.length - keep), stopped: false };
  }

  /** What was held back, when nothing follows. */
  flush(): string {
    const held = this.held;
    this.held = "";
    return held;
  }

  private firstMatch(text: string): number {
    const places = this.stops.map((stop) => text.indexOf(stop)).filter((place) => place >= 0);
    return places.length === 0 ? -1 : Math.min(...places);
  }

  /** Length of the longest end of `text` with which a stop text begins. */
  private possibleBeginning(text: string): number {
    let longest = 0;
    for (const stop of this.stops) {
      for (let size = Math.min(stop.length - 1, text.length); size > longest; size--) {
        if (text.endsWith(stop.slice(0, size))) longest = size;
      }
    }
    return longest;
  }
}
