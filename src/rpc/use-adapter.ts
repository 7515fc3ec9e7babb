/** The adapter of a request, held until the request is over. */
import type { GenerationContext } from "../generation/context.js";

export interface UsedAdapter extends Disposable {
  /** 0: the base model. */
  handle: number;
  /** Empty: the base model. */
  digest: string;
}

/** `adapterId` empty: the base model. Throws InvalidArgumentError, NotFoundError. */
export function useAdapter(context: GenerationContext, adapterId: string): UsedAdapter {
  const { handle, digest, release } = context.adapters.acquire(adapterId, "adapter_id");
  return { handle, digest, [Symbol.dispose]: release };
}
