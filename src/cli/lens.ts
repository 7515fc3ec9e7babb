/** `llama-steer lens`: the tokens that the residual stream would give if the model ended here. */
import type { Command } from "commander";
import type {
  CallOptions,
  CaptureActivationsRequest,
  LlamaSteerClient,
  Site,
  TokenSelector,
  TopLogprob,
} from "../client/client.js";
import { type AdapterOptions, adapterOf, adapterOption } from "./arguments/adapter.js";
import { sitesOption, tokensOption } from "./arguments/capture.js";
import { type InputOptions, readInput } from "./arguments/input.js";
import { integer, layersOption } from "./arguments/options.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { proofLine } from "./terminal/proof.js";
import { percent, table } from "./terminal/table.js";

interface LensOptions extends ConnectionOptions, InputOptions, SteerOptions, AdapterOptions {
  site?: Site[];
  layers?: number[];
  tokens: TokenSelector;
  topK: number;
  json?: boolean;
}

/** One captured row, read as tokens. */
export interface LensRead {
  site: string;
  layer: number;
  position: number;
  token: string;
  /** By falling log-probability. */
  top: { tokenId: number; token: string; logprob: number }[];
}

export function addLens(program: Command, signal: AbortSignal): void {
  const command = program
    .command("lens")
    .description("logit lens: the most likely tokens at each layer, unembed(norm(row))")
    .option("-p, --prompt <TEXT>", "prompt, as it stands")
    .option("-c, --chat <TEXT>", "message of a user, through the chat template")
    .option("--system <TEXT>", "system message for --chat")
    .option("-f, --file <FILE>", "prompt from a file, - is standard input; .json: messages")
    .addOption(sitesOption())
    .addOption(layersOption("3-5,7 (default: all)"))
    .addOption(tokensOption("last"))
    .addOption(integer("-k, --top-k <K>", "tokens at each row", 1).default(5));
  addSteerOption(command)
    .addOption(adapterOption())
    .option("--json", "one JSON object for each row");
  addConnectionOptions(command).action(async (options: LensOptions) => {
    const request: CaptureActivationsRequest = {
      inputs: [readInput(options)],
      capture: {
        sites: options.site ?? ["SITE_RESID_POST"],
        layers: options.layers ?? [],
        tokens: options.tokens,
        // The rows themselves are not looked at.
        dtype: "D_TYPE_BFLOAT16",
        lensTopK: options.topK,
      },
      steering: steeringOf(options),
      ...adapterOf(options),
    };
    await withConnection(options, signal, ({ client, call }) =>
      printLens(client, request, options, call),
    );
  });
}

async function printLens(
  client: LlamaSteerClient,
  request: CaptureActivationsRequest,
  options: LensOptions,
  call: CallOptions,
): Promise<void> {
  const texts = new TokenTexts(client, call);
  const reads: LensRead[] = [];
  for await (const { activations, finished } of client.captureActivations(request, call)) {
    for (const [row, { top }] of (activations?.lens ?? []).entries()) {
      reads.push({
        site: activations?.site ?? "",
        layer: activations?.layer ?? 0,
        position: activations?.positions[row] ?? 0,
        token: await texts.of(activations?.tokenIds[row] ?? 0),
        top: await Promise.all(top.map((entry) => withText(entry, texts))),
      });
    }
    for (const applied of finished?.applied ?? []) process.stderr.write(`${proofLine(applied)}\n`);
  }
  reads.sort(
    (a, b) => a.position - b.position || a.layer - b.layer || a.site.localeCompare(b.site),
  );
  const text = options.json
    ? reads.map((read) => `${JSON.stringify(read)}\n`).join("")
    : describeLens(reads);
  process.stdout.write(text);
}

async function withText({ tokenId, logprob }: TopLogprob, texts: TokenTexts) {
  return { tokenId, token: await texts.of(tokenId), logprob };
}

/** Texts of tokens, each asked for once. */
class TokenTexts {
  readonly #texts = new Map<number, Promise<string>>();

  constructor(
    readonly client: LlamaSteerClient,
    readonly call: CallOptions,
  ) {}

  of(tokenId: number): Promise<string> {
    const text = this.#texts.get(tokenId) ?? this.client.model.detokenize([tokenId], this.call);
    this.#texts.set(tokenId, text);
    return text;
  }
}

/** A table for each position: a line for each layer, the most likely token first. */
export function describeLens(reads: readonly LensRead[]): string {
  const positions = [...new Set(reads.map(({ position }) => position))];
  return positions
    .map((position) => lensTable(reads.filter((read) => read.position === position)))
    .join("\n");
}

/** `reads`: of one position, at least one. */
function lensTable(reads: readonly LensRead[]): string {
  const sites = new Set(reads.map(({ site }) => site)).size;
  const width = Math.max(...reads.map(({ top }) => top.length));
  const left = (title: string) => ({ title, align: "left" as const });
  const columns = [
    ...(sites > 1 ? [left("site")] : []),
    { title: "layer" },
    ...Array.from({ length: width }, (_, i) => left(String(i + 1))),
  ];
  const rows = reads.map(({ site, layer, top }) => [
    ...(sites > 1 ? [site.replace("SITE_", "")] : []),
    String(layer),
    ...top.map(({ token, logprob }) => `${JSON.stringify(token)} ${percent(Math.exp(logprob))}`),
  ]);
  const [first] = reads;
  const title = `position ${first?.position}, after ${JSON.stringify(first?.token)}`;
  return `${title}\n${table(columns, rows)}`;
}
