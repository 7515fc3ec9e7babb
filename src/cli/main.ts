#!/usr/bin/env node
/** The command `llama-steer`: a client of the public contract, `serve` aside. */
import { ExitCode } from "./exit-code.js";
import { runServe } from "./serve.js";

// A reader that goes away (`| head`) ends the command quietly.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? ExitCode.DONE : ExitCode.FAILED);
});

const [command, ...rest] = process.argv.slice(2);
process.exitCode = command === "serve" ? await runServe(rest) : await client();

/** What the other commands need is loaded for them only: a server starts in half the time. */
async function client(): Promise<number> {
  const { runClient } = await import("./client-commands.js");
  return runClient(process.argv.slice(2));
}
