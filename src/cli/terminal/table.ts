/** Tables for people: columns as wide as their widest cell, numbers to the right. */

export interface Column {
  title: string;
  /** Default "right". */
  align?: "left" | "right";
}

/** Lines of a table, each with its newline. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }, i) =>
    Math.max(widthOf(title), ...rows.map((row) => widthOf(row[i] ?? ""))),
  );
  const line = (cells: readonly string[]) =>
    columns
      .map(({ align = "right" }, i) => {
        const cell = cells[i] ?? "";
        const room = " ".repeat((widths[i] ?? 0) - widthOf(cell));
        return align === "right" ? room + cell : cell + room;
      })
      .join("  ")
      .trimEnd();
  const lines = [columns.map(({ title }) => title), ...rows].map(line);
  return lines.map((text) => `${text}\n`).join("");
}

/** Characters, not UTF-16 units; combining marks take no room. */
const widthOf = (text: string) => [...text.replaceAll(/\p{M}/gu, "")].length;

export const percent = (share: number): string => `${Number((share * 100).toPrecision(3))}%`;
