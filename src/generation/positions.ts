/** Which absolute positions a request means. Semantics: docs/steering.md, "Positions". */
import { invalid } from "../errors.js";
import { OPEN_END } from "../native/binding.js";

export type PositionScope =
  | { kind: "all" }
  | { kind: "prompt" }
  | { kind: "generated" }
  /** Negative numbers count from the end of the prompt; null: from 0, open. */
  | { kind: "range"; start: number | null; end: number | null };

/** [begin, end); end may be OPEN_END. */
export interface PositionRange {
  begin: number;
  end: number;
}

export function resolvePositions(
  scope: PositionScope,
  promptTokens: number,
  field: string,
): PositionRange {
  switch (scope.kind) {
    case "all":
      return { begin: 0, end: OPEN_END };
    case "prompt":
      return { begin: 0, end: promptTokens };
    case "generated":
      return { begin: promptTokens, end: OPEN_END };
    case "range": {
      const begin = fromPromptEnd(scope.start ?? 0, promptTokens, `${field}.range.start`);
      const end =
        scope.end === null
          ? OPEN_END
          : fromPromptEnd(scope.end, promptTokens, `${field}.range.end`);
      if (end <= begin) {
        throw invalid(`${field}.range`, `is empty: positions ${begin} to ${end}`);
      }
      return { begin, end };
    }
  }
}

function fromPromptEnd(position: number, promptTokens: number, field: string): number {
  const absolute = position < 0 ? promptTokens + position : position;
  if (absolute < 0) {
    throw invalid(field, `${position} lies before the prompt, which has ${promptTokens} tokens`);
  }
  return absolute;
}
