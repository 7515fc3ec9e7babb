/** The adapter of a request, held until the request is over. */
import { NotFoundError } from "../errors.js";
import type { GenerationContext } from "../generation/context.js";

export interface UsedAdapter extends Disposable {
  /** 0: the base model. */
  handle: number;
  /** Empty: the base model. */
  digest: string;
}

const MAX_ECHO_CHARACTERS = 63;

/** `adapterId` empty: the base model. Throws NotFoundError. */
export function useAdapter(_context: GenerationContext, adapterId: string): UsedAdapter {
  if (adapterId === "") return { handle: 0, digest: "", [Symbol.dispose]: () => {} };
  // No adapter is loaded, so every id is unknown.
  throw new NotFoundError("adapter", adapterId.slice(0, MAX_ECHO_CHARACTERS));
}
