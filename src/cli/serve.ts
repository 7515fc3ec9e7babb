/** `llama-steer serve`: the only command that is not a client. Its options are the server's own. */
import type { Command } from "commander";

/** The command line is parsed by the server, from the schema of its configuration. */
export async function runServe(argv: string[]): Promise<number> {
  const { serve } = await import("../main.js");
  return serve(argv);
}

/** Only for the list of commands: `serve` never reaches this parser. */
export function describeServe(program: Command): void {
  program.command("serve").description("run the service (its options: llama-steer serve --help)");
}
