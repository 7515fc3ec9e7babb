/**
 * The steady part of a batch: from the moment every stream has its first token until the first of
 * them ends. Prefill and the ragged end are outside.
 */
export class SteadyWindow {
  constructor(streams) {
    this.waiting = new Set(Array.from({ length: streams }, (_, stream) => stream));
    this.times = [];
    this.begin = null;
    this.end = null;
  }

  /** A token of `stream` came now; `last`: it is the stream's last one. */
  add(stream, last) {
    const now = process.hrtime.bigint();
    if (this.begin === null) {
      this.waiting.delete(stream);
      if (this.waiting.size === 0) this.begin = now;
    } else if (this.end === null) {
      this.times.push(now);
    }
    if (last && this.end === null) this.end = now;
  }

  /** Tokens of whole steps inside the window, and their seconds. */
  result() {
    if (this.begin === null || this.times.length === 0) throw new Error("no steady part");
    const seconds = Number(this.times[this.times.length - 1] - this.begin) / 1e9;
    return { tokens: this.times.length, seconds };
  }
}
