/** `llama-steer study run --dry-run`: the plan and what it costs. */
import type { LoadedStudy } from "../../study/file/load.js";
import { checkServers, measureSpeed, type Outline, outlineOf } from "../../study/plan/estimate.js";
import { formatDuration } from "./progress.js";
import { namesServer, type ServerOptions, withServers } from "./servers.js";

interface DryRunOptions extends ServerOptions {
  tokensPerSecond?: number;
}

const say = (text: string) => process.stdout.write(`${text}\n`);

/** The file alone is checked unless a server is named. */
export async function dryRun(
  study: LoadedStudy,
  options: DryRunOptions,
  signal: AbortSignal,
): Promise<void> {
  const outline = outlineOf(study);
  describe(study, outline);
  const { tokensPerSecond } = options;
  if (tokensPerSecond !== undefined) {
    const duration = formatDuration(outline.tokensAtMost / tokensPerSecond);
    say(`time      at most ${duration} at ${tokensPerSecond} tokens a second`);
  }
  if (!namesServer(options)) {
    say("server    not checked: add --server HOST:PORT, or --serve");
    return;
  }
  await withServers(options, study, "", signal, async ({ clients, signal: both }) => {
    await checkServers(clients, study, { signal: both });
    say(`server    ${clients.map(({ address }) => address).join(", ")}: can run the study`);
    if (tokensPerSecond !== undefined) return;
    const speed = await measureSpeed(clients, study, both);
    const duration = formatDuration(outline.answers / speed.answersPerSecond);
    say(
      `time      about ${duration} without judging, at ${Math.round(speed.tokensPerSecond)} tokens a second and ` +
        `${Math.round(speed.tokensPerAnswer)} tokens an answer (measured unsteered)`,
    );
  });
}

function describe({ config, digest, pairs, promptSets }: LoadedStudy, outline: Outline): void {
  say(`${config.name}: ${config.title}`);
  say(`digest    ${digest}`);
  say(
    `model     ${config.model.layers} blocks × ${config.model.hidden_size}, adapter ${config.model.adapter}`,
  );
  for (const [name, vector] of Object.entries(config.vectors)) {
    const sign = vector.toward > 0 ? "+" : "−";
    say(`vector    ${name}: ${vector.method} of ${pairs[name]?.length} pairs, helps as ${sign}`);
  }
  for (const [name, prompts] of Object.entries(promptSets)) {
    say(`prompts   ${name}: ${prompts.length}`);
  }
  for (const { purpose, cells, answers } of outline.byPurpose) {
    say(`step      ${purpose}: ${cells} cells, ${answers} answers`);
  }
  if (config.detection) {
    const { layer, random_directions } = config.detection;
    say(`detection at block ${layer}, beside ${random_directions} random directions`);
  }
  const judges = config.judges.map(({ name, type }) =>
    name === type ? name : `${name} (${type})`,
  );
  say(`judges    ${judges.join(", ") || "none"}`);
  say(
    `answers   ${outline.answers} in ${outline.cells.length} cells, at most ${outline.tokensAtMost} tokens`,
  );
}
