/**
 * The steady part of a batch: from the moment every stream has its first token until the first of
 * them ends. Prefill and the ragged end are outside.
 */
export class SteadyWindow {
  constructor(streams) {
    this.waiting = new Set(Array.from({ length: streams }, (_, stream) => stream));
    this.times = [];
    this.begin = null;
    this.ended = false;
  }

  /** A token of `stream` came now; `last`: it is the stream's last one. */
  add(stream, last) {
    const now = process.hrtime.bigint();
    // The step in which a stream ends counts no more: only its first event would.
    if (last) this.ended = true;
    if (this.begin !== null && !this.ended) {
      this.times.push(now);
      return;
    }
    this.waiting.delete(stream);
    if (this.begin === null && this.waiting.size === 0) this.begin = now;
  }

  /** Tokens of whole steps inside the window, and their seconds. */
  result() {
    if (this.begin === null || this.times.length === 0) throw new Error("no steady part");
    const seconds = Number(this.times[this.times.length - 1] - this.begin) / 1e9;
    return { tokens: this.times.length, seconds };
  }
}
