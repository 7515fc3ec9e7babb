/** --label KEY=VALUE. */
import { UsageError } from "../exit.js";

export function parseLabels(labels: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    labels.map((label) => {
      const [, key, value] = /^([^=]+)=(.*)$/s.exec(label) ?? [];
      if (key === undefined || value === undefined) {
        throw new UsageError(`label "${label}" is not KEY=VALUE`);
      }
      return [key, value];
    }),
  );
}
