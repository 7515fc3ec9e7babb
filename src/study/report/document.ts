/** What a report says, before it is HTML or Markdown. All texts are plain: renderers escape them. */
import type { Plot } from "./plots/plot.js";

export interface Column {
  title: string;
  /** Aligned to the right. */
  number?: boolean;
  /** Long texts that wrap. */
  prose?: boolean;
}

export interface TableBlock {
  kind: "table";
  columns: Column[];
  /** As many texts a row as there are columns; what follows a line break in a text is secondary. */
  rows: string[][];
  /** Folded under this line; absent: open. */
  fold?: string;
}

export type Block =
  | { kind: "headline"; text: string }
  | { kind: "heading"; level: 2 | 3; id: string; text: string }
  | { kind: "paragraph"; text: string; note?: true }
  | { kind: "list"; items: string[]; fold?: string }
  | TableBlock
  | { kind: "plot"; plot: Plot; table: TableBlock }
  | { kind: "code"; text: string; fold?: string }
  /** Where the filterable answers stand in HTML; Markdown gives a few of them. */
  | { kind: "samples" };

export interface ReportDocument {
  eyebrow: string;
  title: string;
  /** One line under the title. */
  facts: string;
  blocks: Block[];
}
