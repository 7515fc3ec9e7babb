/** A report as Markdown, its plots as SVG files beside it. */
import type { Block, ReportDocument } from "./document.js";
import { escapeText, fence, tableText } from "./markdown-text.js";
import { renderFile } from "./plots/render.js";
import type { SampleRow, Samples } from "./samples.js";

/** Pairs of answers in the Markdown; the HTML has all of the sample, `rows.jsonl` all answers. */
const PAIRS = 6;

export interface MarkdownReport {
  text: string;
  /** File name -> SVG, beside the text. */
  files: Record<string, string>;
}

export async function renderMarkdown(
  report: ReportDocument,
  samples: Samples,
): Promise<MarkdownReport> {
  const files: Record<string, string> = {};
  const parts = [`# ${escapeText(report.title)}`, escapeText(report.facts)];
  for (const block of report.blocks) {
    if (block.kind === "plot") files[fileOf(block.plot.id)] = await renderFile(block.plot);
    parts.push(renderBlock(block, samples));
  }
  return { text: `${parts.join("\n\n")}\n`, files };
}

function fileOf(plot: string): string {
  return `${plot}.svg`;
}

function renderBlock(block: Block, samples: Samples): string {
  switch (block.kind) {
    case "headline":
      return `**${escapeText(block.text)}**`;
    case "heading":
      return `${"#".repeat(block.level)} ${escapeText(block.text)}`;
    case "paragraph":
      return escapeText(block.text);
    case "list":
      return block.items.map((item) => `- ${escapeText(item)}`).join("\n");
    case "table":
      return tableText(block);
    case "plot": {
      const { id, title, caption, alternative } = block.plot;
      return [
        `### ${escapeText(title)}`,
        escapeText(caption),
        `![${escapeText(alternative)}](${fileOf(id)})`,
        tableText(block.table),
      ].join("\n\n");
    }
    case "code":
      return fence(block.text);
    case "samples":
      return renderSamples(samples);
  }
}

/** The first pairs of the sample that differ in cell, so that not one cell fills the page. */
function renderSamples({ rows, cells, prompts }: Samples): string {
  const seen = new Set<number>();
  const chosen: SampleRow[] = [];
  for (const row of rows) {
    if (row.paired < 0 || seen.has(row.cell) || chosen.length === PAIRS) continue;
    seen.add(row.cell);
    chosen.push(row);
  }
  return chosen
    .flatMap((row) => {
      const cell = cells[row.cell];
      const unsteered = rows[row.paired];
      if (!cell || !unsteered) return [];
      return [
        `**${escapeText(`${cell.vector} · ${cell.magnitude} · ${cell.layers} · ${cell.promptSet}`)}**, row ${escapeText(row.row)}`,
        fence(prompts[row.prompt] ?? ""),
        `Unsteered: ${escapeText(unsteered.verdict)}`,
        fence(unsteered.text),
        `Steered: ${escapeText(row.verdict)}`,
        fence(row.text),
      ];
    })
    .join("\n\n");
}
