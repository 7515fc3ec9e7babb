/** Positions that wait for a text, where all tokens are known beforehand. */
import { invalid } from "../errors.js";
import { findText, type TokenBytes } from "../model/token-bytes.js";

const NO_TEXT = new Uint8Array();
const encoder = new TextEncoder();

/** As the engine wants it; empty without a text. */
export function textBytes(text: string | null): Uint8Array {
  return text === null ? NO_TEXT : encoder.encode(text);
}

/**
 * The first position behind the token that completes `text`. Throws InvalidArgumentError when it
 * does not appear; `field` is the path of the text, `name` what the tokens are.
 */
export function positionBehind(
  table: TokenBytes,
  { tokens, name }: { tokens: Uint32Array; name: string },
  text: string,
  field: string,
): number {
  const completedBy = findText(table, tokens, textBytes(text));
  if (completedBy < 0) throw invalid(field, `does not appear in ${name}`);
  return completedBy + 1;
}
