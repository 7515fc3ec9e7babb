/** DeriveVector: validate, read the pairs, compute, register. */
import type { DeriveVectorRequest__Output } from "../generated/llamasteer/v1/DeriveVectorRequest.js";
import type { DeriveVectorResponse } from "../generated/llamasteer/v1/DeriveVectorResponse.js";
import type { Ticket } from "../generation/admission.js";
import { admitted, type Call, type GenerationContext } from "../generation/context.js";
import {
  type ReadRule,
  readTargets,
  resolveReads,
  tokensInFlight,
} from "../generation/residuals.js";
import type { ByteBudget } from "../vectors/byte-budget.js";
import { type Derived, type DeriveProgress, deriveRows } from "../vectors/derive/derive.js";
import type { DeriveMethod } from "../vectors/derive/directions.js";
import type { PairTargets, ReadTarget } from "../vectors/derive/pairs.js";
import type { Derivation } from "../vectors/vector.js";
import { Checker } from "./checker.js";
import { vectorMessage } from "./convert-vector.js";
import type { RequestLimits } from "./limits.js";
import { type UsedAdapter, useAdapter } from "./use-adapter.js";
import {
  METHODS,
  methodName,
  type PairInputs,
  readLayers,
  readPairInputs,
  readRule,
  ruleName,
} from "./validate-pairs.js";

/** Random directions beside each block, and their seed: every vector is held against the same. */
const RANDOM_DIRECTIONS = 100;
const RANDOM_SEED = 0n;

/** What deriving stands on. */
export interface DerivationRoom {
  context: GenerationContext;
  limits: RequestLimits;
  /** Shared by all derivations, fits and scores. */
  activations: ByteBudget;
}

export async function* deriveVector(
  room: DerivationRoom,
  request: DeriveVectorRequest__Output,
  call: Call,
): AsyncGenerator<DeriveVectorResponse, void, undefined> {
  const { context, limits } = room;
  const { vectorId: id, labels } = request;
  context.vectors.checkNew(id, labels);
  const check = new Checker();
  const job: DerivationJob = {
    inputs: readPairInputs(request.pairs, limits, check),
    method: check.enumValue("method", request.method, METHODS, "mean_difference"),
    layers: readLayers(request.layers, limits, check),
    rule: readRule(request.tokenRule, request.tokenText, limits, check),
    normalize: request.normalize,
    adapterId: request.adapterId ?? "",
    randomDirections: Math.min(RANDOM_DIRECTIONS, limits.maxRandomDirections),
    randomSeed: RANDOM_SEED,
  };
  check.throwIfAny();
  using adapter = useAdapter(context, job.adapterId);
  for await (const event of runDerivation(room, job, adapter, call)) {
    if (event.type === "progress") {
      yield { progress: event };
      continue;
    }
    const { rows, meanResidualNorms } = event;
    const derivation = derivationOf(context, job, adapter, event);
    const record = await context.vectors.create({
      id,
      rows,
      labels,
      derivation,
      meanResidualNorms,
    });
    yield { vector: vectorMessage(record) };
  }
}

/** What DeriveVector and FitProbe have in common. */
export interface DerivationJob {
  inputs: PairInputs[];
  method: DeriveMethod;
  layers: number[];
  rule: ReadRule;
  normalize: boolean;
  /** Empty: the base model. */
  adapterId: string;
  randomDirections: number;
  randomSeed: bigint;
}

type OnPair = (pair: number, positive: Float32Array, negative: Float32Array) => void;

export function runDerivation(
  { context, limits, activations }: DerivationRoom,
  job: DerivationJob,
  adapter: UsedAdapter,
  call: Call,
  onPair?: OnPair,
): AsyncGenerator<DeriveProgress | Derived, void, undefined> {
  return admitted(context, call, null, async function* (ticket: Ticket) {
    using memory = activations.reserve();
    const sides = job.inputs.flatMap(({ positive, negative }) => [positive, negative]);
    const targets = await resolveReads(context, sides, job.rule, call.signal);
    ticket.countTokens(tokensInFlight(targets));
    ticket.submitted();
    yield* deriveRows(
      { ...job, pairs: pairsOf(targets) },
      {
        hiddenSize: context.model.config.hiddenSize,
        maxBytes: limits.maxDeriveBytes,
        reserve: (bytes) => memory.grow(bytes),
        read: (each, layers) => readRows(context, call, adapter, each, layers),
        signal: call.signal,
        ...(onPair && { onPair }),
      },
    );
  });
}

async function* readRows(
  context: GenerationContext,
  call: Call,
  adapter: UsedAdapter,
  targets: readonly ReadTarget[],
  layers: readonly number[],
): AsyncGenerator<Float32Array, void, undefined> {
  const what = { adapter: adapter.handle, layers, probe: null };
  for await (const { rows } of readTargets(context, call, targets, what)) yield rows;
}

export function derivationOf(
  context: GenerationContext,
  job: DerivationJob,
  adapter: UsedAdapter,
  { diagnostics, pairsDigest }: Derived,
): Derivation {
  return {
    method: methodName(job.method),
    pairsDigest,
    tokenRule: ruleName(job.rule.kind),
    modelFingerprint: context.model.checkpoint.fingerprint,
    tokenText: job.rule.text,
    adapterId: job.adapterId,
    adapterDigest: adapter.digest,
    normalized: job.normalize || job.method !== "mean_difference",
    pairs: job.inputs.length,
    diagnostics,
  };
}

function pairsOf(targets: readonly PairTargets["positive"][]): PairTargets[] {
  const pairs: PairTargets[] = [];
  for (let i = 0; i + 1 < targets.length; i += 2) {
    const [positive, negative] = targets.slice(i, i + 2);
    if (positive && negative) pairs.push({ positive, negative });
  }
  return pairs;
}
