/** Reads the text of /metrics. */

/** The sum of a metric over all its labels. Throws when there is none of that name. */
export function sumOfMetric(text: string, name: string): number {
  const lines = text
    .split("\n")
    .filter((line) => line.startsWith(name) && /^[{ ]/.test(line.slice(name.length)));
  if (lines.length === 0) throw new Error(`no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
