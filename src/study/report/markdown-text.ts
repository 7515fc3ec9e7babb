/** Untrusted text in Markdown. */
import type { TableBlock } from "./document.js";
import { visible } from "./markup.js";

/** One line of text that Markdown and the HTML in it leave as it is. */
export function escapeText(text: string): string {
  return visible(text)
    .replace(/[\\`*_[\]<>|~&#]/g, (character) =>
      character === "<" ? "&lt;" : character === "&" ? "&amp;" : `\\${character}`,
    )
    .replace(/\s*[\r\n]+\s*/g, " ");
}

/** Longer than any run of backticks inside. */
export function fence(text: string): string {
  const shown = visible(text);
  const longest = Math.max(2, ...[...shown.matchAll(/`+/g)].map(([run]) => run.length));
  const marks = "`".repeat(longest + 1);
  return `${marks}text\n${shown.replace(/\r\n?/g, "\n").replace(/\n$/, "")}\n${marks}`;
}

export function tableText({ columns, rows }: Pick<TableBlock, "columns" | "rows">): string {
  const cell = (text: string) => escapeText(text.replace(/\n(.*)$/s, " [$1]"));
  const line = (texts: string[]) => `| ${texts.map(cell).join(" | ")} |`;
  const rule = `| ${columns.map(({ number }) => (number ? "---:" : "---")).join(" | ")} |`;
  return [line(columns.map(({ title }) => title)), rule, ...rows.map(line)].join("\n");
}
