/** Probes of a request: what is read where, and the scores. */
import { EngineFault } from "../errors.js";
import type { NativeProbe, NativeProbeEvent } from "../native/binding.js";
import type { PinnedProbe, ProbeRegistry } from "../probes/registry.js";
import { textBytes } from "./after-text.js";

export type ProbeRead = NativeProbe["read"];

export interface ProbeSpec {
  /** Path in the request, for errors. */
  field: string;
  probeId: string;
  read: ProbeRead;
  /** For "after_text"; null otherwise. */
  text: string | null;
}

/** What the scores of one probe are made of. */
export interface AppliedProbe {
  probeId: string;
  digest: string;
  layer: number;
  read: ProbeRead;
  /** Null: not calibrated. */
  threshold: number | null;
}

/** Scores of one probe of the request, positions ascending. */
export interface ProbeScores {
  /** Index in the request. */
  probe: number;
  probeId: string;
  positions: number[];
  scores: number[];
}

/** Probes pinned for one request. Release it when the request has ended. */
export class PinnedProbes {
  private readonly pinned: { spec: ProbeSpec; probe: PinnedProbe }[] = [];

  /** Throws InvalidArgumentError, NotFoundError, ResourceExhaustedError. */
  static pin(specs: readonly ProbeSpec[], registry: ProbeRegistry): PinnedProbes {
    const probes = new PinnedProbes();
    try {
      for (const spec of specs) {
        const probe = registry.acquire(spec.probeId, `${spec.field}.probe_id`);
        probes.pinned.push({ spec, probe });
      }
      return probes;
    } catch (error) {
      probes.release();
      throw error;
    }
  }

  release(): void {
    for (const { probe } of this.pinned) probe.release();
  }

  native(): NativeProbe[] {
    return this.pinned.map(({ spec, probe }) => ({
      vector: probe.handle,
      layer: probe.layer,
      read: spec.read,
      afterText: textBytes(spec.text),
    }));
  }

  applied(): AppliedProbe[] {
    return this.pinned.map(({ spec, probe }) => ({
      probeId: probe.probeId,
      digest: probe.digest,
      layer: probe.layer,
      read: spec.read,
      threshold: probe.threshold,
    }));
  }

  /** The event's scores at positions below `end`. Throws an EngineFault for one that is not finite. */
  scoresBelow(event: NativeProbeEvent, end: number): ProbeScores {
    const probeId = this.pinned[event.probe]?.probe.probeId;
    if (probeId === undefined) throw new EngineFault(`scores of an unknown probe ${event.probe}`);
    const kept = event.positions.filter((position) => position < end).length;
    const scores = [...event.scores.subarray(0, kept)];
    if (!scores.every(Number.isFinite)) {
      throw new EngineFault(`a score of probe ${event.probe} is not finite`);
    }
    return {
      probe: event.probe,
      probeId,
      positions: [...event.positions.subarray(0, kept)],
      scores,
    };
  }
}

/** Appends scores that stand behind those that are there. */
export function appendScores(list: ProbeScores[], more: ProbeScores): void {
  const known = list.find(({ probe }) => probe === more.probe);
  if (known) {
    known.positions.push(...more.positions);
    known.scores.push(...more.scores);
    return;
  }
  list.push({ ...more, positions: [...more.positions], scores: [...more.scores] });
  list.sort((a, b) => a.probe - b.probe);
}
