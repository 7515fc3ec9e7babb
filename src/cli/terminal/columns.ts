/** Texts side by side where the terminal is wide enough, else one below the other. */

export interface Titled {
  title: string;
  text: string;
}

const GUTTER = " │ ";
const MIN_COLUMN = 24;

/** Lines of at most `width` characters, indented as their paragraph; longer words are cut. */
export function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => wrapParagraph(paragraph, width));
}

function wrapParagraph(paragraph: string, width: number): string[] {
  const lines: string[] = [];
  const indent = /^\s*/.exec(paragraph)?.[0].slice(0, Math.floor(width / 2)) ?? "";
  const room = width - indent.length;
  let line = "";
  for (let word of paragraph.split(/\s+/).filter(Boolean)) {
    while (word.length > room) {
      if (line) lines.push(line);
      line = "";
      lines.push(word.slice(0, room));
      word = word.slice(room);
    }
    if (line && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  if (line || lines.length === 0) lines.push(line);
  return lines.map((text) => (text ? indent + text : text));
}

export function sideBySide(columns: readonly Titled[], width: number): string {
  const gutters = GUTTER.length * (columns.length - 1);
  const columnWidth = Math.floor((width - gutters) / columns.length);
  if (columnWidth < MIN_COLUMN) return oneBelowTheOther(columns, width);
  const cells = columns.map(({ title, text }) => [
    title,
    "─".repeat(columnWidth),
    ...wrap(text, columnWidth),
  ]);
  const height = Math.max(...cells.map((lines) => lines.length));
  const rows: string[] = [];
  for (let row = 0; row < height; row++) {
    const parts = cells.map((lines) => (lines[row] ?? "").padEnd(columnWidth));
    rows.push(parts.join(GUTTER).trimEnd());
  }
  return rows.join("\n");
}

function oneBelowTheOther(columns: readonly Titled[], width: number): string {
  return columns
    .map(({ title, text }) =>
      [title, "─".repeat(Math.min(width, 60)), ...wrap(text, width)].join("\n"),
    )
    .join("\n\n");
}
