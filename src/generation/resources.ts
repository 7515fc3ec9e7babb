/** What a request pins for its life: vectors, probes, an adapter. */
import type { PinnedAdapter } from "../model/adapters.js";
import type { GenerationContext } from "./context.js";
import { PinnedProbes, type ProbeSpec } from "./probes.js";
import { PinnedSteering, type SteeringSpec } from "./steering.js";

export interface ResourceSpec {
  steering: SteeringSpec[];
  probes: ProbeSpec[];
  /** Empty: the base model. */
  adapterId: string;
}

export class PinnedResources {
  private constructor(
    readonly steering: PinnedSteering,
    readonly probes: PinnedProbes,
    readonly adapter: PinnedAdapter,
    /** At which ids were resolved. */
    readonly registryRevision: bigint,
  ) {}

  /** Throws InvalidArgumentError, NotFoundError, ResourceExhaustedError; then nothing is pinned. */
  static pin(context: GenerationContext, spec: ResourceSpec): PinnedResources {
    const { vectors, model } = context;
    const held: { release(): void }[] = [];
    const hold = <T extends { release(): void }>(pinned: T): T => {
      held.push(pinned);
      return pinned;
    };
    try {
      return new PinnedResources(
        hold(PinnedSteering.pin(spec.steering, vectors, model)),
        hold(PinnedProbes.pin(spec.probes, context.probes)),
        hold(context.adapters.acquire(spec.adapterId, "adapter_id")),
        vectors.revision,
      );
    } catch (error) {
      for (const each of held) each.release();
      throw error;
    }
  }

  release(): void {
    this.steering.release();
    this.probes.release();
    this.adapter.release();
  }
}
