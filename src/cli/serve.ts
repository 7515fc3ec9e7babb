/** `llama-steer serve`: the only command that is not a client. Its options are the server's own. */
import type { Command } from "commander";

/** Set in the environment, the server ends as with SIGTERM when its standard input ends. */
export const STOP_WITH_STDIN = "LLAMA_STEER_STOP_WITH_STDIN";

/** The command line is parsed by the server, from the schema of its configuration. */
export async function runServe(argv: string[]): Promise<number> {
  const { serve } = await import("../main.js");
  if (process.env[STOP_WITH_STDIN] === "1") {
    process.stdin.once("end", () => process.kill(process.pid, "SIGTERM")).resume();
    // Waiting for it must not keep a server alive that has stopped.
    process.stdin.unref();
  }
  return serve(argv);
}

/** Only for the list of commands: `serve` never reaches this parser. */
export function describeServe(program: Command): void {
  program.command("serve").description("run the service (its options: llama-steer serve --help)");
}
