/** Streams of generated tokens without pause, each held to the answer that is due. */
import {
  ClientError,
  type GenerateRequest,
  type LlamaSteerClient,
} from "../../src/client/client.js";

export interface Failure {
  code: string;
  message: string;
  /** Whether the server had accepted the stream: its first event had come. */
  accepted: boolean;
}

export interface KnownStream {
  request: GenerateRequest;
  tokenIds: readonly number[];
}

/** Before a call is sent again, milliseconds. */
const PAUSE_MS = 20;

/** Sampled, so that only the same seed gives the same tokens. */
export function streamRequests(count: number, maxNewTokens: number): GenerateRequest[] {
  return Array.from({ length: count }, (_, index) => ({
    prompt: `Tell me about number ${index}.`,
    sampling: { maxNewTokens, ignoreEos: true, temperature: 0.9, seed: String(index + 1) },
  }));
}

/** What the server answers when it is asked for nothing else. */
export async function knownStreams(
  client: LlamaSteerClient,
  requests: readonly GenerateRequest[],
): Promise<KnownStream[]> {
  const known: KnownStream[] = [];
  for (const request of requests) {
    const answer = await client.generate(request);
    known.push({ request, tokenIds: answer.completions[0]?.tokenIds ?? [] });
  }
  return known;
}

export class StreamLoad {
  finished = 0;
  /** Streams that ended with other tokens than are due. */
  readonly wrong: string[] = [];
  /** Of calls that were all sent again until they succeeded. */
  readonly failures: Failure[] = [];
  /** Accepted and not at their end. */
  private underWay = 0;
  private stopping = false;
  private abandoned = false;
  private readonly workers: Promise<void>[];

  /** One worker a stream of `streams`, over and over. */
  constructor(
    private readonly client: LlamaSteerClient,
    streams: readonly KnownStream[],
  ) {
    this.workers = streams.map((stream) => this.work(stream));
  }

  get lostStreams(): Failure[] {
    return this.failures.filter(({ accepted }) => accepted);
  }

  /** Whether every worker's stream is accepted and not at its end. */
  get allUnderWay(): boolean {
    return this.underWay === this.workers.length;
  }

  /** Lets every stream end. */
  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.workers);
  }

  /** Ends also what fails for ever. */
  abandon(): void {
    this.stopping = true;
    this.abandoned = true;
  }

  private async work(stream: KnownStream): Promise<void> {
    while (!this.stopping) {
      // A call that failed is sent again also when the load is to end.
      while (!this.abandoned && !(await this.once(stream))) {
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  /** False when the call failed. */
  private async once({ request, tokenIds }: KnownStream): Promise<boolean> {
    const tokens: number[] = [];
    let accepted = false;
    try {
      for await (const { delta } of this.client.generateStream(request)) {
        if (!accepted) this.underWay += 1;
        accepted = true;
        tokens.push(...(delta?.tokenIds ?? []));
      }
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      this.failures.push({ code: error.code, message: error.message, accepted });
      return false;
    } finally {
      if (accepted) this.underWay -= 1;
    }
    this.finished += 1;
    if (tokens.join() !== tokenIds.join()) this.wrong.push(`${request.prompt}: ${tokens.join()}`);
    return true;
  }
}
