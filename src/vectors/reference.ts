/** How a request names a vector or a probe: "sentiment", or pinned "sentiment@sha256:0123456789ab". */
import { invalid } from "../errors.js";
import { isVectorId, type RecordKind } from "./vector.js";

export interface VectorReference {
  id: string;
  /** Start of the digest that the content must have, "sha256:…"; null: any. */
  digestPrefix: string | null;
}

const PIN = /^sha256:[0-9a-f]{12,64}$/;

/** `field` is the reference's path in the request. */
export function parseReference(
  text: string,
  field: string,
  kind: RecordKind = "vector",
): VectorReference {
  const at = text.indexOf("@");
  const id = at < 0 ? text : text.slice(0, at);
  const pin = at < 0 ? null : text.slice(at + 1);
  if (!isVectorId(id)) throw invalid(field, `is not the id of a ${kind}`);
  if (pin !== null && !PIN.test(pin)) {
    throw invalid(field, "a pin is @sha256: and 12 to 64 lower-case hex digits");
  }
  return { id, digestPrefix: pin };
}
