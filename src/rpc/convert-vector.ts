/** From records of the registry to messages of the contract. */

import type { Timestamp } from "../generated/google/protobuf/Timestamp.js";
import type { Derivation as DerivationMessage } from "../generated/llamasteer/v1/Derivation.js";
import type { Probe } from "../generated/llamasteer/v1/Probe.js";
import type { Vector } from "../generated/llamasteer/v1/Vector.js";
import { factsOf, layerOf } from "../probes/registry.js";
import type { Derivation, VectorRecord } from "../vectors/vector.js";

export function vectorMessage(record: VectorRecord): Vector {
  return {
    vectorId: record.id,
    digest: record.digest,
    layers: record.layers,
    hiddenSize: record.hiddenSize,
    derivation: derivationMessage(record.derivation),
    labels: record.labels,
    stats: record.stats,
    createTime: timestamp(record.createTime),
    revision: record.revision.toString(),
  };
}

/** Of a record of kind "probe". */
export function probeMessage(record: VectorRecord): Probe {
  const { fit, calibration } = factsOf(record);
  return {
    probeId: record.id,
    digest: record.digest,
    layer: layerOf(record),
    hiddenSize: record.hiddenSize,
    l2Norm: record.stats[0]?.l2Norm ?? 0,
    derivation: derivationMessage(record.derivation),
    fit,
    calibration,
    labels: record.labels,
    createTime: timestamp(record.createTime),
    revision: record.revision.toString(),
  };
}

function derivationMessage(derivation: Derivation | null): DerivationMessage | null {
  if (derivation === null) return null;
  const diagnostics = derivation.diagnostics.map(({ splitHalfCosine, ...rest }) => ({
    ...rest,
    ...(splitHalfCosine === null ? {} : { splitHalfCosine }),
  }));
  return { ...derivation, diagnostics };
}

function timestamp(time: Date): Timestamp {
  const ms = time.getTime();
  return { seconds: Math.floor(ms / 1000), nanos: (((ms % 1000) + 1000) % 1000) * 1e6 };
}
