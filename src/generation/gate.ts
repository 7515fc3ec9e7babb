/** Gates: from what the client wrote to what the engine evaluates. */
import { invalid } from "../errors.js";
import type {
  NativeGate,
  NativeGateComparator,
  NativeGateMetric,
  NativeGateScope,
} from "../native/binding.js";
import type { PinnedVector, VectorRegistry } from "../vectors/registry.js";

export interface GateSpec {
  /** Path in the request, for errors. */
  field: string;
  vectorId: string;
  layer: number;
  metric: NativeGateMetric;
  comparator: NativeGateComparator;
  threshold: number;
  scope: NativeGateScope;
}

/** Pins the gate's vector. Throws InvalidArgumentError when it has no direction for the layer. */
export function pinGate(spec: GateSpec, registry: VectorRegistry): PinnedVector {
  const vector = registry.acquire(spec.vectorId, `${spec.field}.vector_id`);
  const problem = !vector.layers.includes(spec.layer)
    ? `the vector holds no row for block ${spec.layer}`
    : vector.zeroLayers.includes(spec.layer)
      ? `the vector's row for block ${spec.layer} is zeros, which is no direction`
      : null;
  if (problem === null) return vector;
  vector.release();
  throw invalid(`${spec.field}.layer`, problem);
}

/** A row that is steered already cannot wait for a gate behind it. `field` is the steering's path. */
export function checkGateOrder(spec: GateSpec, layers: readonly number[], field: string): void {
  if (spec.scope !== "each_token") return;
  const before = layers.find((layer) => layer < spec.layer);
  if (before === undefined) return;
  throw invalid(`${field}.layers`, `block ${before} lies before the gate's block ${spec.layer}`);
}

export function nativeGate(spec: GateSpec, vector: PinnedVector, promptTokens: number): NativeGate {
  return {
    vector: vector.handle,
    layer: spec.layer,
    metric: spec.metric,
    comparator: spec.comparator,
    threshold: spec.threshold,
    scope: spec.scope,
    promptTokens,
  };
}
