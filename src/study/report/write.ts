/** A run's report, on disk. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { StudyRun, StudyTimings } from "../records.js";
import { figuresOf } from "./figures.js";
import { renderHtml } from "./html.js";
import { renderMarkdown } from "./markdown.js";
import { documentOf } from "./report.js";
import { joinRows, rowsAsCsv, rowsAsJsonLines } from "./rows.js";
import { drawSamples } from "./samples.js";

/**
 * Writes index.html (with everything in it), report.md and its SVG files, rows.jsonl, rows.csv,
 * figures.json and timings.md into `folder`, which is made where it is missing. The same run gives the
 * same bytes; timings.md alone depends on `run.timings`.
 */
export async function writeReport(run: StudyRun, folder: string): Promise<void> {
  const rows = joinRows(run);
  const figures = figuresOf(run);
  const samples = drawSamples(run, rows);
  const report = documentOf(run, figures, samples);
  const markdown = await renderMarkdown(report, samples);
  const files: Record<string, string> = {
    "index.html": await renderHtml(report, samples),
    "report.md": markdown.text,
    ...markdown.files,
    "rows.jsonl": rowsAsJsonLines(rows),
    "rows.csv": rowsAsCsv(rows),
    "figures.json": `${JSON.stringify(figures, null, 1)}\n`,
    "timings.md": timingsText(run.timings),
  };
  await mkdir(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    await writeFile(path.join(folder, name), content);
  }
}

function timingsText(timings: StudyTimings): string {
  const { generationSeconds, judgingSeconds, answers, generatedTokens, starts } = timings;
  const perSecond = generationSeconds > 0 ? generatedTokens / generationSeconds : 0;
  return [
    "# Wall times",
    "",
    `- generation: ${generationSeconds.toFixed(1)} s for ${answers} answers and ${generatedTokens} tokens (${perSecond.toFixed(1)} tokens/s)`,
    `- judging: ${judgingSeconds.toFixed(1)} s`,
    `- starts: ${starts}`,
    "",
  ].join("\n");
}
