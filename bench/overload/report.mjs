/** What a run of the overload says, and whether it holds. */
import { factList, table, writeReport } from "../lib/report.mjs";
import { percentile, slope } from "../lib/stats.mjs";
import { MAX_ATTEMPTS } from "./crowd.mjs";

/** Caches, pools and the JavaScript heap reach their size in the first part of a run. */
const WARM_SHARE = 0.3;
/** An admitted request waits for the queue, and for what runs; twice that is the verdict's limit. */
const LATENCY_SLACK = 2;
/** Refusals and the clients of an overload take their share of the same cores; so much must be left. */
const LEAST_THROUGHPUT = 0.5;
const MAX_GROWTH_MIB_PER_10K = 8;

/** True when every check holds. */
export function reportOverload(run) {
  const { limits, capacity, rate, seconds } = run;
  const checks = checksOf(run);
  writeReport(run.out, "Overload", [
    factList([
      ...run.facts,
      [
        "limits",
        `${limits.running} run, ${limits.waiting} wait, ${limits.newTokens} new tokens each`,
      ],
      [`capacity: ${limits.running} clients that never pause`, `${capacity.toFixed(1)} requests/s`],
      [`offered for ${(seconds / 60).toFixed(1)} minutes`, `${rate.toFixed(1)} new clients/s`],
    ]),
    "Clients come at random times. One that is refused waits as long as `RetryInfo` says and tries " +
      `again, ${MAX_ATTEMPTS} times in all. They are one process beside the server on the same cores, ` +
      "and speak gRPC straight on HTTP/2, when the capacity is measured too.",
    table(["check", "measured", "limit", "verdict"], checks),
    table(["figure", "value"], figuresOf(run)),
    "## Where the time of an admitted request goes",
    table(["mean", "s"], latencyOf(run)),
    "## Processors in use",
    table(["", "server", "clients", "others", "stolen", "idle"], processorsOf(run)),
    "## Over time",
    table(OVER_TIME, overTime(run)),
  ]);
  return checks.every((row) => row[3] === "ok");
}

function checksOf({ limits, capacity, seconds, tally, samples, exitCode }) {
  const checks = [];
  const check = (name, value, limit, passed) =>
    checks.push([name, value, limit, passed ? "ok" : "FAILED"]);
  const others = [...tally.other].map(([code, count]) => `${count} of code ${code}`).join(", ");
  check("exit code after SIGTERM", exitCode, "0", exitCode === 0);
  check("refused attempts", tally.refused, "> 0", tally.refused > 0);
  check(
    "of them without RetryInfo and the same grpc-retry-pushback-ms",
    tally.withoutDelay,
    "0",
    tally.withoutDelay === 0,
  );
  check("ended with any other code", others || "0", "0", tally.other.size === 0);
  const longest = Math.max(...samples.map(({ waiting }) => waiting));
  check(
    "requests in the queue, most seen",
    longest,
    `<= ${limits.waiting}`,
    longest <= limits.waiting,
  );
  const throughput = tally.completed / seconds;
  check(
    "throughput ÷ capacity",
    (throughput / capacity).toFixed(2),
    `> ${LEAST_THROUGHPUT}`,
    throughput / capacity > LEAST_THROUGHPUT,
  );
  // It waits until the queue before it has gone, then runs beside the others that may run.
  const boundSeconds = (LATENCY_SLACK * (limits.waiting + limits.running)) / capacity;
  const p99 = percentile(tally.seconds, 0.99);
  check(
    "latency of admitted requests, p99",
    `${p99.toFixed(3)} s`,
    `< ${boundSeconds.toFixed(3)} s: ${LATENCY_SLACK} × (${limits.waiting} waiting + ` +
      `${limits.running} running) ÷ capacity`,
    p99 < boundSeconds,
  );
  const warm = samples.filter((sample) => sample.seconds > WARM_SHARE * seconds);
  const growth =
    slope(warm.map((one) => [one.completed + one.refused, one.memory.anonymous])) * 1e4;
  check(
    "growth of anonymous memory over 10,000 answers, after the warm part",
    `${growth.toFixed(1)} MiB`,
    `< ${MAX_GROWTH_MIB_PER_10K} MiB`,
    growth < MAX_GROWTH_MIB_PER_10K,
  );
  return checks;
}

function figuresOf({ limits, seconds, tally, leftWaiting, mostCalls, growthOf, clientLagMs }) {
  const throughput = tally.completed / seconds;
  const latency = (share) => percentile(tally.seconds, share).toFixed(3);
  const delay = (share) => percentile(tally.retryMs, share);
  return [
    ["attempts", `${tally.attempts} (${(tally.attempts / seconds).toFixed(0)} a second)`],
    ["completed", `${tally.completed} (${throughput.toFixed(1)} a second)`],
    [`clients that gave up after ${MAX_ATTEMPTS} refusals`, tally.gaveUp],
    ["clients whose time to come back was after the end", leftWaiting],
    ["calls at the same time, most", mostCalls],
    ["latency of admitted requests, p50, s", latency(0.5)],
    ["latency of admitted requests, p99, s", latency(0.99)],
    ["latency of admitted requests, longest, s", latency(1)],
    [
      "(waiting + running) ÷ throughput, s",
      ((limits.waiting + limits.running) / throughput).toFixed(3),
    ],
    ["delay told to refused clients, p50 and p99, ms", `${delay(0.5)}, ${delay(0.99)}`],
    ["rejections counted by the server", growthOf("llamasteer_admission_rejections_total")],
    ["connections retired", growthOf("llamasteer_connections_retired_total")],
    ["lag of the clients' own event loop, p99, ms", clientLagMs.toFixed(1)],
  ];
}

/** The engine's own times from /metrics, beside what the clients see. */
function latencyOf({ tally, growthOf }) {
  const meanOf = (name) =>
    growthOf(`llamasteer_request_${name}_seconds_sum`) /
    growthOf(`llamasteer_request_${name}_seconds_count`);
  const [queue, prefill, decode] = ["queue", "prefill", "decode"].map(meanOf);
  const seen = tally.seconds.reduce((sum, one) => sum + one, 0) / tally.seconds.length;
  const rest = seen - queue - prefill - decode;
  return [
    ["in the engine's queue", queue],
    ["prefill", prefill],
    ["decode", decode],
    ["before and after the engine: both event loops, the wire", rest],
    ["as the client sees it", seen],
  ].map(([name, value]) => [name, value.toFixed(4)]);
}

function processorsOf({ processors }) {
  const row = (name, { server, clients, others, stolen, idle }) => [
    name,
    ...[server, clients, others, stolen, idle].map((cores) => cores.toFixed(2)),
  ];
  return [row("at capacity", processors.atCapacity), row("overloaded", processors.overloaded)];
}

const OVER_TIME = [
  "s",
  "completed",
  "refused",
  "latency since the line above, p99, s",
  "others, cores",
  "clients",
  "waiting",
  "resident, MiB",
  "anonymous, MiB",
  "server's lag p99, ms",
];

function overTime({ samples, tally }) {
  const every = Math.max(1, Math.floor(samples.length / 12));
  const lines = samples.filter((_, index) => index % every === every - 1);
  return lines.map((one, line) => {
    const since = samples.slice(line * every, (line + 1) * every);
    const others = since.reduce((sum, sample) => sum + sample.others, 0) / since.length;
    const latencies = tally.seconds.slice(lines[line - 1]?.completed ?? 0, one.completed);
    return [
      one.seconds.toFixed(0),
      one.completed,
      one.refused,
      percentile(latencies, 0.99)?.toFixed(3) ?? "",
      others.toFixed(2),
      one.clients,
      one.waiting,
      one.memory.rss.toFixed(1),
      one.memory.anonymous.toFixed(1),
      (one.lag * 1000).toFixed(1),
    ];
  });
}
