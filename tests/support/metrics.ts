/** Reads the text of /metrics. */

/**
 * The sum over all its labels, or over those that are named with it: 0 when nothing was counted under
 * them yet. Throws when there is no metric of that name.
 */
export function sumOfMetric(text: string, name: string): number {
  const lines = text
    .split("\n")
    .filter((line) => line.startsWith(name) && /^[{ ]/.test(line.slice(name.length)));
  const bare = name.replace(/\{.*/, "").replace(/_(sum|count|bucket)$/, "");
  if (lines.length === 0 && !text.includes(`# TYPE ${bare} `)) throw new Error(`no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
