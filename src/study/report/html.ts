/** A report as one HTML file that needs no network and runs no script but its own. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Block, ReportDocument, TableBlock } from "./document.js";
import { escapeMarkup, jsonForScript } from "./markup.js";
import { colorSheet } from "./plots/colors.js";
import { drawKey, renderPanels } from "./plots/render.js";
import type { Samples } from "./samples.js";

/** From dist/study/report/ as from src/study/report/. */
const PAGE_FOLDER = path.join(import.meta.dirname, "../../../src/study/report/page");

export async function renderHtml(report: ReportDocument, samples: Samples): Promise<string> {
  const [sheet, script] = await Promise.all([
    readFile(path.join(PAGE_FOLDER, "page.css"), "utf8"),
    readFile(path.join(PAGE_FOLDER, "page.js"), "utf8"),
  ]);
  const style = `${colorSheet()}\n${sheet}`;
  const policy = [
    "default-src 'none'",
    `style-src '${hashOf(style)}'`,
    `script-src '${hashOf(script)}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  const blocks: string[] = [];
  for (const block of report.blocks) blocks.push(await renderBlock(block));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeMarkup(report.title)}</title>
<style>${style}</style>
</head>
<body>
<header class="top">
<p class="eyebrow">${escapeMarkup(report.eyebrow)}</p>
<h1>${escapeMarkup(report.title)}</h1>
<p class="facts">${escapeMarkup(report.facts)}</p>
${renderContents(report.blocks)}
</header>
<main>
${blocks.join("\n")}
</main>
<script type="application/json" id="samples">${jsonForScript(samples)}</script>
<script type="module">${script}</script>
</body>
</html>
`;
}

/** A source of a Content-Security-Policy. */
function hashOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}

function renderContents(blocks: readonly Block[]): string {
  const links = blocks.flatMap((block) =>
    block.kind === "heading" && block.level === 2
      ? [`<li><a href="#${block.id}">${escapeMarkup(block.text)}</a></li>`]
      : [],
  );
  return `<nav aria-label="Contents"><ul>${links.join("")}</ul></nav>`;
}

async function renderBlock(block: Block): Promise<string> {
  switch (block.kind) {
    case "headline":
      return `<p class="headline">${escapeMarkup(block.text)}</p>`;
    case "heading":
      return `<h${block.level} id="${block.id}">${escapeMarkup(block.text)}</h${block.level}>`;
    case "paragraph":
      return `<p${block.note ? ' class="note"' : ""}>${escapeMarkup(block.text)}</p>`;
    case "list":
      return fold(
        block.fold,
        `<ul class="points">${block.items.map((item) => `<li class="point">${escapeMarkup(item)}</li>`).join("")}</ul>`,
      );
    case "table":
      return renderTable(block);
    case "plot":
      return renderPlot(block);
    case "code":
      return fold(block.fold, `<pre><code>${escapeMarkup(block.text)}</code></pre>`);
    case "samples":
      return SAMPLES;
  }
}

const SAMPLES = `<form id="filters" class="filters"></form>
<p id="sample-count" class="note" aria-live="polite"></p>
<div id="sample-list"></div>
<button id="sample-more" class="more" type="button" hidden>Show more</button>
<noscript><p>The filters need JavaScript; <code>rows.jsonl</code> has every answer.</p></noscript>`;

function renderTable({ columns, rows, fold: summary }: TableBlock): string {
  const tag = (name: "th" | "td", text: string, index: number) => {
    const scope = name === "th" ? ' scope="col"' : "";
    const kind = columns[index]?.number ? "number" : columns[index]?.prose ? "prose" : "";
    const align = kind === "" ? "" : ` class="${kind}"`;
    return `<${name}${scope}${align}>${renderCell(text)}</${name}>`;
  };
  const head = columns.map(({ title }, index) => tag("th", title, index)).join("");
  const body = rows.map(
    (row) => `<tr>${row.map((text, index) => tag("td", text, index)).join("")}</tr>`,
  );
  return fold(
    summary,
    `<div class="table-scroll" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>\n${body.join("\n")}\n</tbody></table></div>`,
  );
}

/** What follows a line break is set smaller below. */
function renderCell(text: string): string {
  if (text.startsWith("sha256:")) return `<code class="digest">${escapeMarkup(text)}</code>`;
  const [first = "", ...rest] = text.split("\n");
  const below = rest.map((line) => `<small>${escapeMarkup(line)}</small>`);
  return escapeMarkup(first) + below.join("");
}

async function renderPlot({ plot, table }: Extract<Block, { kind: "plot" }>): Promise<string> {
  const legend = plot.legend.map(
    (entry) =>
      `<li><svg viewBox="0 0 24 14" aria-hidden="true">${drawKey(entry)}</svg>${escapeMarkup(entry.label)}</li>`,
  );
  const panels = (await renderPanels(plot)).map((svg, index) => {
    const title = escapeMarkup(plot.panels[index]?.title ?? "");
    return `<div class="panel"><h4>${title}</h4>${svg}</div>`;
  });
  return `<figure id="${plot.id}">
<h3>${escapeMarkup(plot.title)}</h3>
<figcaption>${escapeMarkup(plot.caption)}</figcaption>
<ul class="legend">${legend.join("")}</ul>
<div class="panels">${panels.join("\n")}</div>
${renderTable(table)}
</figure>`;
}

function fold(summary: string | undefined, content: string): string {
  if (summary === undefined) return content;
  return `<details><summary>${escapeMarkup(summary)}</summary>${content}</details>`;
}
