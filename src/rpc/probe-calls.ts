/** FitProbe, CalibrateProbe and ScoreProbe. */
import { EngineFault, FailedPreconditionError, invalid } from "../errors.js";
import type { CalibrateProbeRequest__Output } from "../generated/llamasteer/v1/CalibrateProbeRequest.js";
import type { FitProbeRequest__Output } from "../generated/llamasteer/v1/FitProbeRequest.js";
import type { ScoreProbeRequest__Output } from "../generated/llamasteer/v1/ScoreProbeRequest.js";
import type { ScoreProbeResponse } from "../generated/llamasteer/v1/ScoreProbeResponse.js";
import { admitted, type Call } from "../generation/context.js";
import {
  type ReadInput,
  type ReadRule,
  readTargets,
  resolveReads,
  tokensInFlight,
} from "../generation/residuals.js";
import { factsOf } from "../probes/registry.js";
import { thresholdOf } from "../probes/threshold.js";
import { Background } from "../vectors/background/background.js";
import type { Derived } from "../vectors/derive/derive.js";
import { digestOfTargets } from "../vectors/derive/pairs.js";
import type { ScoreResult, ScoreTask } from "../vectors/derive/score.js";
import { rowOf, type VectorRecord } from "../vectors/vector.js";
import { Checker } from "./checker.js";
import { probeMessage } from "./convert-vector.js";
import {
  type DerivationJob,
  type DerivationRoom,
  derivationOf,
  runDerivation,
} from "./derive-vector.js";
import { useAdapter } from "./use-adapter.js";
import { readRevision } from "./validate.js";
import {
  PROBE_METHODS,
  readContrastive,
  readPairInputs,
  readRule,
  ruleOfName,
} from "./validate-pairs.js";

const DEFAULT_RANDOM_DIRECTIONS = 100;

export async function fitProbe(
  room: DerivationRoom,
  request: FitProbeRequest__Output,
  call: Call,
): Promise<VectorRecord> {
  const { context } = room;
  const { probeId: id, labels } = request;
  context.probes.checkNew(id, labels);
  const job = readFit(room, request);
  const { hiddenSize } = context.model.config;
  const pairs = job.inputs.length;
  // Positive reads, then negative ones.
  const values = new Float32Array(2 * pairs * hiddenSize);
  using memory = room.activations.reserve();
  memory.grow(values.byteLength);
  using adapter = useAdapter(context, job.adapterId);
  let derived: Derived | null = null;
  const events = runDerivation(room, job, adapter, call, (pair, positive, negative) => {
    values.set(positive, pair * hiddenSize);
    values.set(negative, (pairs + pair) * hiddenSize);
  });
  for await (const event of events) if (event.type === "derived") derived = event;
  const [row] = derived?.rows ?? [];
  if (!derived || !row) throw new EngineFault("a fit ended without a direction");
  const { discrimination } = await score(call, {
    kind: "score",
    reads: { rows: 2 * pairs, columns: hiddenSize, values },
    direction: row.values,
    scores: null,
    positive: Array.from({ length: 2 * pairs }, (_, read) => read < pairs),
    randomDirections: job.randomDirections,
    randomSeed: job.randomSeed,
  });
  if (!discrimination) throw new EngineFault("a fit ended without both kinds of texts");
  const derivation = derivationOf(context, job, adapter, derived);
  const [meanResidualNorm = 0] = derived.meanResidualNorms;
  return context.probes.create({
    id,
    row,
    labels,
    derivation,
    meanResidualNorm,
    fit: discrimination,
  });
}

function readFit({ limits }: DerivationRoom, request: FitProbeRequest__Output): DerivationJob {
  const check = new Checker();
  const range = { min: 0, max: limits.layers - 1 };
  const layer = check.number("layer", request.layer, Math.floor(limits.layers / 2), range);
  const job: DerivationJob = {
    inputs: readPairInputs(request.pairs, limits, check),
    method: check.enumValue("method", request.method, PROBE_METHODS, "mean_difference"),
    layers: [layer],
    rule: readRule(request.tokenRule, request.tokenText, limits, check),
    normalize: false,
    adapterId: request.adapterId ?? "",
    ...readControl(request, limits.maxRandomDirections, check),
  };
  check.throwIfAny();
  return job;
}

function readControl(
  request: { randomDirections?: number; randomSeed?: string },
  limit: number,
  check: Checker,
): { randomDirections: number; randomSeed: bigint } {
  const { randomDirections = Math.min(DEFAULT_RANDOM_DIRECTIONS, limit) } = request;
  check.atMost("random_directions", randomDirections, limit, "random directions");
  return { randomDirections, randomSeed: BigInt(request.randomSeed ?? 0) };
}

export async function calibrateProbe(
  room: DerivationRoom,
  request: CalibrateProbeRequest__Output,
  call: Call,
): Promise<VectorRecord> {
  const { context, limits } = room;
  const check = new Checker();
  const { benign, falsePositiveRate: rate } = request;
  if (benign.length === 0) check.add("benign", "is empty");
  check.atMost("benign", benign.length, limits.maxProbeInputs, "texts");
  if (rate === undefined) check.add("false_positive_rate", "is missing");
  // Written so that NaN is refused too.
  else if (!(rate >= 0 && rate < 1)) check.add("false_positive_rate", `${rate} is not in [0, 1)`);
  const inputs = benign
    .slice(0, limits.maxProbeInputs)
    .map((input, index) => readContrastive(input, `benign[${index}]`, limits, check));
  check.throwIfAny();
  const record = context.probes.getFitting(request.probeId);
  const { result, digest } = await readAndScore(room, record, call, {
    inputs,
    field: "benign",
    adapterId: request.adapterId,
    positive: inputs.map(() => null),
    randomDirections: 0,
    randomSeed: 0n,
  });
  const threshold = thresholdOf(result.scores, rate ?? 0);
  return context.probes.calibrate(record, { ...threshold, benignDigest: digest });
}

export async function scoreProbe(
  room: DerivationRoom,
  request: ScoreProbeRequest__Output,
  call: Call,
): Promise<ScoreProbeResponse> {
  const { context, limits } = room;
  const check = new Checker();
  const { inputs } = request;
  if (inputs.length === 0) check.add("inputs", "is empty");
  check.atMost("inputs", inputs.length, limits.maxProbeInputs, "texts");
  const control = readControl(request, limits.maxRandomDirections, check);
  const texts = inputs
    .slice(0, limits.maxProbeInputs)
    .map(({ input }, index) => readContrastive(input, `inputs[${index}].input`, limits, check));
  check.throwIfAny();
  await context.probes.waitForRevision(readRevision(request.minRegistryRevision), call.signal);
  const record = context.probes.getFitting(request.probeId);
  const { result } = await readAndScore(room, record, call, {
    inputs: texts,
    field: "inputs",
    adapterId: request.adapterId,
    positive: inputs.map(({ positive }) => positive ?? null),
    ...control,
  });
  const threshold = factsOf(record).calibration?.threshold;
  const scores = [...result.scores];
  return {
    scores,
    fired: threshold === undefined ? [] : scores.map((each) => each > threshold),
    discrimination: result.discrimination,
    probe: probeMessage(record),
  };
}

interface Texts {
  inputs: ReadInput[];
  /** Path of the texts in the request. */
  field: string;
  /** Absent: the probe's own. */
  adapterId: string | undefined;
  positive: (boolean | null)[];
  randomDirections: number;
  randomSeed: bigint;
}

/** Reads the texts as the probe was fitted, and scores them. `digest`: of what was read. */
async function readAndScore(
  { context, limits, activations }: DerivationRoom,
  record: VectorRecord,
  call: Call,
  texts: Texts,
): Promise<{ result: ScoreResult; digest: string }> {
  const { hiddenSize } = context.model.config;
  const rule = ruleOf(record);
  const adapterId = texts.adapterId ?? record.derivation?.adapterId ?? "";
  const values = new Float32Array(texts.inputs.length * hiddenSize);
  if (values.byteLength > limits.maxDeriveBytes) {
    throw invalid(
      texts.field,
      `need ${values.byteLength} bytes of activations; the limit is ${limits.maxDeriveBytes}`,
    );
  }
  using memory = activations.reserve();
  memory.grow(values.byteLength);
  const pin = context.probes.acquire(`${record.id}@${record.digest}`, "probe_id");
  // The rules that a probe may be read by while generating; there, these very scores come out.
  const isServed = rule.kind === "last" || rule.kind === "at_text";
  const scores = isServed ? new Float64Array(texts.inputs.length) : null;
  const reading = admitted(context, call, null, async function* (ticket) {
    using adapter = useAdapter(context, adapterId);
    const targets = await resolveReads(context, texts.inputs, rule, call.signal);
    ticket.countTokens(tokensInFlight(targets));
    ticket.submitted();
    const what = {
      adapter: adapter.handle,
      layers: [pin.layer],
      probe: isServed ? { handle: pin.handle, layer: pin.layer } : null,
    };
    let text = 0;
    for await (const read of readTargets(context, call, targets, what)) {
      values.set(read.rows, text * hiddenSize);
      if (scores) scores[text] = read.score ?? Number.NaN;
      text += 1;
    }
    yield digestOfTargets("texts", targets);
  });
  let digest = "";
  try {
    for await (const read of reading) digest = read;
  } finally {
    pin.release();
  }
  if (scores?.some((each) => !Number.isFinite(each))) throw new EngineFault("a score is missing");
  const { positive, randomDirections, randomSeed } = texts;
  const result = await score(call, {
    kind: "score",
    reads: { rows: texts.inputs.length, columns: hiddenSize, values },
    direction: Float32Array.from(rowOf(record.content, 0)),
    scores,
    positive,
    randomDirections,
    randomSeed,
  });
  return { result, digest };
}

async function score(call: Call, task: ScoreTask): Promise<ScoreResult> {
  await using background = new Background();
  return await background.run(task, call.signal);
}

function ruleOf({ id, derivation }: VectorRecord): ReadRule {
  const kind = ruleOfName(derivation?.tokenRule ?? "");
  if (kind === null) {
    throw new FailedPreconditionError(
      `"${id}" reads by a rule that this version does not know`,
      "UNKNOWN_TOKEN_RULE",
    );
  }
  return { kind, text: derivation?.tokenText ?? "" };
}
