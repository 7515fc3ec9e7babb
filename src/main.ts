/** The server process: arguments and environment, then the app, then signals. */
import { App } from "./app.js";
import { ConfigError } from "./config/config-error.js";
import { helpText } from "./config/help.js";
import { loadConfig } from "./config/load.js";
import type { Config } from "./config/schema.js";
import { EngineFault, StartupError } from "./errors.js";
import { createLogger, type Logger } from "./observability/logger.js";

const EXIT_DONE = 0;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

/** Runs until a signal ends it; resolves to the exit code. */
export async function serve(argv: string[]): Promise<number> {
  let config: Config | null;
  try {
    config = loadConfig(argv, process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`llama-steer serve: ${error.message}\n(--help shows the options)\n`);
    return EXIT_USAGE;
  }
  if (!config) {
    process.stdout.write(helpText());
    return EXIT_DONE;
  }
  const logger = await createLogger(config.logLevel);
  const signals = new Signals();
  try {
    const app = await App.listen(config, logger);
    try {
      return await run(app, signals, logger);
    } finally {
      await app[Symbol.asyncDispose]();
      if (app.hangs) killAtOnce(logger);
    }
  } catch (error) {
    if (error instanceof StartupError || error instanceof EngineFault) {
      logger.fatal(error.message);
    } else {
      logger.fatal({ err: error }, "the server failed");
    }
    return EXIT_FAILED;
  } finally {
    signals.close();
  }
}

/** Every other way out waits for the thread that hangs. */
function killAtOnce(logger: Logger): void {
  logger.fatal("a step of the engine hangs; the process ends without it");
  process.kill(process.pid, "SIGKILL");
}

async function run(app: App, signals: Signals, logger: Logger): Promise<number> {
  const loading = app.load();
  loading.catch(() => {});
  const loaded = await Promise.race([loading, signals.next()]);
  if (loaded !== undefined) return exitCode(loaded);

  const ended = await Promise.race([app.faulted, signals.next()]);
  if (ended instanceof EngineFault) {
    logger.fatal(ended.message);
    return EXIT_FAILED;
  }
  const stopped = await Promise.race([stop(app, logger), signals.next()]);
  if (typeof stopped === "boolean") return stopped ? exitCode(ended) : EXIT_FAILED;
  logger.warn("stopping at once: a second signal came");
  app.abort();
  return EXIT_FAILED;
}

/** Finishes what was accepted, and closes; false when something had to be cut. */
async function stop(app: App, logger: Logger): Promise<boolean> {
  const running = await app.drain();
  if (running > 0) {
    logger.warn({ running }, "the drain timeout passed; running requests are cut");
  } else {
    logger.info("drained");
  }
  await app[Symbol.asyncDispose]();
  return running === 0;
}

function exitCode(signal: NodeJS.Signals): number {
  return signal === "SIGINT" ? EXIT_INTERRUPTED : EXIT_DONE;
}

/** SIGTERM and SIGINT, one after the other. */
class Signals {
  private readonly pending: NodeJS.Signals[] = [];
  private waiting: ((signal: NodeJS.Signals) => void) | null = null;
  private readonly listener = (signal: NodeJS.Signals) => {
    if (this.waiting) this.waiting(signal);
    else this.pending.push(signal);
    this.waiting = null;
  };

  constructor() {
    process.on("SIGTERM", this.listener);
    process.on("SIGINT", this.listener);
  }

  /** The next signal; a promise that was not awaited to its end gives way to a later one. */
  next(): Promise<NodeJS.Signals> {
    const signal = this.pending.shift();
    if (signal) return Promise.resolve(signal);
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  close(): void {
    process.off("SIGTERM", this.listener);
    process.off("SIGINT", this.listener);
  }
}
