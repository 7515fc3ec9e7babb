/** How long a target is fuzzed: a fixed number of runs, or minutes that `run.mjs` asks for. */
const MINUTES = Number(process.env["LLAMA_STEER_FUZZ_MINUTES"] ?? 0);
const SEED = Number(process.env["LLAMA_STEER_FUZZ_SEED"] ?? 1);

export const timeoutMs = MINUTES * 60_000 + 120_000;

/** Whether another run is due. */
export function runsOf(defaultRuns: number): (runs: number) => boolean {
  const end = Date.now() + MINUTES * 60_000;
  return (runs) => (MINUTES > 0 ? Date.now() < end : runs < defaultRuns);
}

/** Every run can be repeated by its own seed. */
export const seedOf = (run: number) => SEED * 1_000_003 + run;

/** For the record of a long run. */
export function report(target: string, runs: number, what: string): void {
  if (MINUTES > 0) console.log(`${target}: ${runs} runs in ${MINUTES} minutes; ${what}`);
}
