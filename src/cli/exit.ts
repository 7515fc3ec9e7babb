/** Errors as one line that says what to do. */
import { ClientError } from "../client/client.js";
import { StudyFileError } from "../study/file/parse.js";
import { ExitCode } from "./exit-code.js";

/** The command line, or a file it names, is wrong. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The work failed for a reason that is already in words for the user. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** One line for the user; a study file has as many as it has problems. */
export function errorLine(error: unknown, server: string): string {
  // One line for each problem of the file.
  if (error instanceof StudyFileError) return error.message;
  if (error instanceof ClientError) return oneLine(clientErrorText(error, server));
  if (error instanceof Error) return oneLine(error.message);
  return oneLine(String(error));
}

/** Command that lists what exists, by the type of a resource that does not. */
const LISTS: Readonly<Record<string, string>> = {
  vector: "vectors list",
  probe: "probes list",
  adapter: "adapters list",
};

function clientErrorText(error: ClientError, server: string): string {
  const { code, message, reason, resource, retryDelayMs } = error;
  switch (code) {
    case "UNAVAILABLE":
      if (reason !== undefined) break;
      return (
        `cannot reach a server at ${server}: start one with \`llama-steer serve --model DIR\`, ` +
        "or name it with --server HOST:PORT"
      );
    case "UNAUTHENTICATED":
      return `${message}: give a token with --token-file FILE or LLAMA_STEER_TOKEN`;
    case "NOT_FOUND": {
      const list = LISTS[resource?.type ?? ""];
      if (list) return `${message}: see \`llama-steer ${list}\``;
      break;
    }
    case "DEADLINE_EXCEEDED":
      return `${message}: allow more time with --timeout SECONDS`;
  }
  const retry = retryDelayMs === undefined ? "" : `; try again in ${Math.ceil(retryDelayMs)} ms`;
  return `${message} (${code})${retry}`;
}

const oneLine = (text: string) => text.replaceAll(/\s*\n\s*/g, " ").trim();

export function exitCodeOf(error: unknown, interrupted: boolean): number {
  if (interrupted) return ExitCode.INTERRUPTED;
  const usage = error instanceof UsageError || error instanceof StudyFileError;
  return usage ? ExitCode.USAGE : ExitCode.FAILED;
}
