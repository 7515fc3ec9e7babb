/** All that a request was told, in a form in which two of them can be compared bit for bit. */
import type {
  NativeActivationEvent,
  NativeDoneEvent,
  NativeScoredToken,
  NativeTokenEvent,
  NativeTokenLogprob,
} from "../../../src/native/binding.js";
import type { EngineStream, RequestEvent } from "../../../src/native/engine.js";

/** A double as its bits: NaN and the sign of zero count too. */
function bits(value: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes.toString("hex");
}

const logprobBits = ({ tokenId, logprob }: NativeTokenLogprob) => `${tokenId}:${bits(logprob)}`;

function tokenBits({ tokenId, logprob, top }: NativeScoredToken): string {
  return [logprobBits({ tokenId, logprob }), ...top.map(logprobBits)].join(" ");
}

/**
 * Lists of texts by what they belong to ("tokens of completion 1"). How events were cut into pieces
 * does not show.
 */
export class Transcript {
  readonly lists = new Map<string, string[]>();
  done: NativeDoneEvent | null = null;
  /** The largest of all KL divergences. */
  largestKl = 0;

  private list(name: string): string[] {
    const found = this.lists.get(name) ?? [];
    this.lists.set(name, found);
    return found;
  }

  add(event: RequestEvent): void {
    switch (event.type) {
      case "token":
        this.addToken(event);
        break;
      case "prompt_logprobs":
        for (const [i, token] of event.tokens.entries()) {
          this.list("prompt").push(`${event.firstPosition + i} ${tokenBits(token)}`);
        }
        break;
      case "probe_scores":
        for (const [i, position] of event.positions.entries()) {
          const score = event.scores[i] ?? Number.NaN;
          const name = `probe ${event.probe} of completion ${event.completion}`;
          this.list(name).push(`${position} ${bits(score)}`);
        }
        break;
      case "activations":
        this.addActivations(event);
        break;
      case "done":
        this.done = event;
    }
  }

  private addToken(event: NativeTokenEvent): void {
    const { completion, token, hasLogprob, finish, klToUnsteered } = event;
    const kl = klToUnsteered === null ? "none" : bits(klToUnsteered);
    this.largestKl = Math.max(this.largestKl, klToUnsteered ?? 0);
    this.list(`tokens of completion ${completion}`).push(
      `${tokenBits(token)} ${hasLogprob} ${finish} kl ${kl}`,
    );
  }

  private addActivations(event: NativeActivationEvent): void {
    const name = `${event.site} of block ${event.layer}, completion ${event.completion}`;
    const rowBytes = event.data.byteLength / event.rows;
    const data = Buffer.from(event.data.buffer, event.data.byteOffset, event.data.byteLength);
    // A mean is one row for many positions.
    const perRow = event.positions.length === event.rows;
    for (let row = 0; row < event.rows; row++) {
      const positions = perRow ? [event.positions[row]] : [...event.positions];
      const ids = perRow ? [event.tokenIds[row]] : [...event.tokenIds];
      const lens = (event.lens[row] ?? []).map(logprobBits).join(" ");
      const values = data.toString("hex", row * rowBytes, (row + 1) * rowBytes);
      this.list(name).push(`${positions} ${ids} ${event.dtype} ${event.cols} ${values} ${lens}`);
    }
  }

  /** What the end says, without times and without what the prefix cache spared. */
  ending(): object {
    if (!this.done) return { ended: false };
    const { status, finishReasons, promptTokens, completionTokens, applied } = this.done;
    return {
      status,
      finishReasons,
      promptTokens,
      completionTokens,
      applied: applied.map(({ meanDeltaRatio, firstPositions, ...counts }) => ({
        ...counts,
        meanDeltaRatio: bits(meanDeltaRatio),
        firstPositions: [...firstPositions],
      })),
    };
  }

  /** Everything, for comparison with a whole run. */
  whole(): object {
    return { ending: this.ending(), lists: Object.fromEntries([...this.lists].sort()) };
  }

  /** This transcript's lists cut to the lengths of those of `part`, which was cancelled. */
  beginningLike(part: Transcript): object {
    return Object.fromEntries(
      [...part.lists]
        .sort()
        .map(([name, items]) => [name, (this.lists.get(name) ?? []).slice(0, items.length)]),
    );
  }

  beginning(): object {
    return Object.fromEntries([...this.lists].sort());
  }
}

/** Reads to the end; cancels after `cancelAfter` events. */
export async function follow(stream: EngineStream, cancelAfter: number | null = null) {
  const transcript = new Transcript();
  let events = 0;
  for await (const batch of stream) {
    for (const event of batch) {
      transcript.add(event);
      events += 1;
      if (events === cancelAfter) stream.cancel();
    }
  }
  return transcript;
}
